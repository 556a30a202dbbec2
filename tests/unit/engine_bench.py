"""A flow of numbers from memory into memory, on the one-thread engine: what the tests of the engine start from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onefold as of
from onefold.connectors.memory import MemoryEndpoint
from onefold.engines.embedded.inline import InlineRun, ManualClock
from onefold.plan import Output, Plan
from onefold.types import Token

__all__ = ["Bench"]


class Bench:
    """One flow's state folder and the memory it reads and writes; runs are opened on it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        self.clock = ManualClock()
        self.trace: list[Mapping[str, Any]] = []
        self._prefix = f"bench-{folder}"
        self._endpoints: dict[str, MemoryEndpoint] = {}
        self._fed = 0

    def memory(self, name: str) -> MemoryEndpoint:
        """The memory of that name, this bench's own."""
        return self._endpoints.setdefault(name, of.memory(f"{self._prefix}-{name}"))

    def flow(self, *sinks: str, weaker: Mapping[str, str] | None = None, **settings: Any) -> of.Flow:
        """Numbers `n` appended to each sink."""
        flow = of.Flow("bench", **{"epoch_rows": 1, **settings})
        rows = flow.read(self.memory("in"), schema={"n": "BIGINT"}, name="in")
        for sink in sinks:
            rows.append(self.memory(sink), name=sink, guarantee=(weaker or {}).get(sink))
        return flow

    def feed(self, count: int) -> list[int]:
        """So many numbers more, each the next one."""
        numbers = list(range(self._fed, self._fed + count))
        self.memory("in").feed([{"n": number} for number in numbers])
        self._fed += count
        return numbers

    def open(self, flow: of.Flow | Plan, folder: Path | None = None, **options: Any) -> InlineRun:
        """A run that has begun."""
        plan = flow.plan if isinstance(flow, of.Flow) else flow
        outputs = {output.name: output for output in plan.outputs}
        run = InlineRun(plan, folder or self.folder, outputs, clock=self.clock, trace=self.trace.append, **options)
        try:
            run.begin()
        except BaseException:
            run.abandon()
            raise
        return run

    def run(self, flow: of.Flow | Plan, *, end: str = "drain", folder: Path | None = None) -> InlineRun:
        """Everything that is there, then drain, stop or abandon."""
        run = self.open(flow, folder)
        try:
            while run.step():
                pass
            getattr(run, end)()
        except BaseException:
            run.abandon()
            raise
        return run

    def numbers(self, sink: str) -> list[int]:
        """What a sink holds."""
        return [row["n"] for row in self.memory(sink).rows()]

    def token(self, sink: str) -> Token | None:
        """The token that a sink holds."""
        return self.memory(sink).store.tokens.get(("bench", "0", sink))

    def commits(self, sink: str, result: str = "ok") -> list[tuple[int, int]]:
        """The ranges of epochs that a sink was asked to take, with this result, in order."""
        return [
            (event["first"], event["last"])
            for event in self.trace
            if event["do"] == "commit" and event["sink"] == sink and event["result"] == result
        ]

    def clear(self) -> None:
        """Forget the memory."""
        for endpoint in self._endpoints.values():
            endpoint.clear()


def with_sinks(plan: Plan, sinks: Mapping[str, Any]) -> Plan:
    """The plan with other sinks behind some of its outputs."""
    changed: Iterable[Output] = (replace(o, sink=sinks.get(o.name, o.sink)) for o in plan.outputs)
    return replace(plan, outputs=tuple(changed))


def bench_of(folder: Path) -> Iterator[Bench]:
    """For a fixture."""
    bench = Bench(folder)
    yield bench
    bench.clear()
