"""Testing a flow: feed it, crash it anywhere, look at what its sinks hold. In memory, on one thread, no sleeping."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import pyarrow as pa

from onefold import disk
from onefold.connectors.memory import MemoryEndpoint, memory
from onefold.engines.embedded.inline import InlineRun, ManualClock
from onefold.engines.embedded.pipeline import DEAD_LETTERS
from onefold.errors import OnefoldError
from onefold.flow import Flow
from onefold.operators.reading import DEAD_SCHEMA
from onefold.plan import Node, Output, Plan, ReadNode
from onefold.types import Guarantee

__all__ = ["CRASH_POINTS", "FlowRun", "run"]

CRASH_POINTS: Mapping[str, tuple[str, disk.Moment]] = {
    "before seal": ("journal.seal", "before"),
    "after seal": ("journal.seal", "after"),
    "before delivery": ("memory.commit", "before"),
    "after delivery": ("memory.commit", "after"),
    "before settle": ("journal.settle", "before"),
    "after settle": ("journal.settle", "after"),
}
"""Where `FlowRun.crash` can kill the flow."""

_runs = 0


class SimulatedCrash(BaseException):
    """The process dies here. Not an Exception, so that no code under test can survive it."""


def run(flow: Flow | Plan, *, epoch_rows: int | None = None) -> FlowRun:
    """A run of the flow in memory: `with of.testing.run(flow) as t: …`.

    Sources and sinks are replaced by memory ones of the same names; operators, state, journal and spool are real.
    epoch_rows: cut the input into epochs of at most so many rows.
    """
    return FlowRun(flow.plan if isinstance(flow, Flow) else flow, epoch_rows)


class FlowRun:
    """What `run` gives. Crashes are planned with `crash`, take place in `drain` or `step`, and are survived there."""

    def __init__(self, plan: Plan, epoch_rows: int | None) -> None:
        global _runs
        _runs += 1
        self._number = _runs
        self._inputs = {node.name: memory(f"test-{_runs}-in-{node.name}") for node in plan.reads()}
        self._tables = {out.name: memory(f"test-{_runs}-out-{out.name}") for out in plan.outputs}
        self._tables[DEAD_LETTERS] = memory(f"test-{_runs}-out-{DEAD_LETTERS}")
        self._plan = self._in_memory(plan, epoch_rows)
        self._outputs = {output.name: output for output in self._plan.outputs}
        self._outputs[DEAD_LETTERS] = self._dead_letters()
        self._crashes: list[tuple[str, disk.Moment]] = []
        self._run: InlineRun | None = None
        self._is_dead = False
        self.clock = ManualClock()
        self.crashes_survived = 0

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="onefold-test-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandon()
        for endpoint in (*self._inputs.values(), *self._tables.values()):
            endpoint.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def feed(self, read: str, rows: Iterable[Mapping[str, Any] | bytes | str], *, partition: str = "0") -> None:
        """Add input. Dicts become JSON for a read with a format, else typed rows; bytes and text go as they are.

        Typed rows may have the columns of the read's meta=, such as `_table`, too; `_partition` and `_offset` are made.
        """
        endpoint = self._named(self._inputs, read, "read")
        node = cast("ReadNode", self._plan.node(read))
        if node.format is not None:
            endpoint.feed_bytes(rows, partition=partition)
        else:
            own = endpoint.as_source(None).promise.meta.names
            typed = MemoryEndpoint(endpoint.name, pa.schema([one for one in node.schema if one.name not in own]))
            typed.feed(cast("Iterable[Mapping[str, Any]]", rows), partition=partition)

    def crash(self, where: str) -> None:
        """Kill the flow at the next such point: one of CRASH_POINTS. Several calls plan several crashes, in order."""
        if where not in CRASH_POINTS:
            raise OnefoldError(f"There is no crash point {where!r}.", expected=", ".join(CRASH_POINTS))
        self._crashes.append(CRASH_POINTS[where])

    def step(self) -> bool:
        """One epoch. False when there was no input, or a planned crash hit."""
        return self._survive(lambda running: running.step())

    def drain(self, *, close: bool = False) -> None:
        """Run until all input has taken effect, through every planned crash. close: also close open windows."""
        is_done = False
        while not is_done:
            is_done = self._survive(lambda running: self._drain_once(running, close=close))
        self._run = None

    def fail_next(self, sink: str, fault: Literal["unavailable", "unknown-landed", "unknown-lost"]) -> None:
        """Let the next commit of a sink fail in this way."""
        self._named(self._tables, sink, "sink").fail_next(fault)

    def rows(self, sink: str) -> list[dict[str, Any]]:
        """What a sink holds now."""
        return self._named(self._tables, sink, "sink").rows()

    def dead_letters(self) -> list[dict[str, Any]]:
        """All dead letters: read, partition, position, reason, detail, raw."""
        return self._tables[DEAD_LETTERS].rows()

    # ----------------------------------------------------------------------------------------------------- inner

    def _drain_once(self, running: InlineRun, *, close: bool) -> bool:
        while running.step():
            pass
        if close:
            running.close_windows()
        running.drain()
        return True

    def _survive(self, action: Any) -> bool:
        previous, disk.observer = disk.observer, self._observe
        self._is_dead = False
        try:
            return bool(action(self._running()))
        except SimulatedCrash:
            self.crashes_survived += 1
            self._abandon()
            return False
        except BaseException:
            self._abandon()
            raise
        finally:
            disk.observer = previous

    def _running(self) -> InlineRun:
        if self._run is None:
            self._run = InlineRun(self._plan, self._folder, self._outputs, clock=self.clock)
            self._run.begin()
        return self._run

    def _abandon(self) -> None:
        if self._run is not None:
            self._run.abandon()
            self._run = None

    def _observe(self, step: str, moment: disk.Moment) -> None:
        if self._is_dead:
            raise SimulatedCrash(f"{moment} {step}, dead already")
        if self._crashes and self._crashes[0] == (step, moment):
            del self._crashes[0]
            self._is_dead = True
            raise SimulatedCrash(f"{moment} {step}")

    def _in_memory(self, plan: Plan, epoch_rows: int | None) -> Plan:
        nodes: list[Node] = []
        for node in plan.nodes:
            if isinstance(node, ReadNode):
                source = self._inputs[node.name].as_source(node.format)
                nodes.append(replace(node, source=source))
            else:
                nodes.append(node)
        outputs = tuple(replace(o, sink=self._tables[o.name].as_sink(o.mode, o.key)) for o in plan.outputs)
        settings = replace(plan.settings, epoch_rows=epoch_rows or plan.settings.epoch_rows)
        return replace(plan, nodes=tuple(nodes), outputs=outputs, settings=settings)

    def _dead_letters(self) -> Output:
        endpoint = self._tables[DEAD_LETTERS]
        sink = endpoint.as_sink("append", ())
        return Output(DEAD_LETTERS, "", sink, endpoint.label, DEAD_SCHEMA, "append", Guarantee.EXACTLY_ONCE)

    def _named(self, endpoints: Mapping[str, MemoryEndpoint], name: str, what: str) -> MemoryEndpoint:
        if name not in endpoints:
            raise OnefoldError(f"The flow has no {what} named {name!r}.", expected=", ".join(endpoints))
        return endpoints[name]
