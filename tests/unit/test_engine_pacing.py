"""Sinks that are paced, and targets that are looked after, by the engine's clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from onefold.connectors.memory.sink import MemorySink
from onefold.errors import SinkUnavailable
from onefold.protocols import Maintain, Maintained, Paced
from onefold.types import Binding
from tests.unit.engine_bench import Bench, bench_of, with_sinks


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


class PacedSink(MemorySink):
    """A delivery every ten seconds."""

    commit_every_seconds = 10.0


class KeptSink(MemorySink):
    """Looked after once a minute. is_away: what it then says."""

    maintain_every_seconds = 60.0
    is_away = False

    def maintain(self, binding: Binding, *, is_dry: bool) -> Sequence[Maintained]:
        if self.is_away:
            raise SinkUnavailable("It is away.", sink=binding.sink)
        self.asked = [*getattr(self, "asked", []), (binding.sink, is_dry)]
        return [Maintained("compacted", "3 files into 1")]


def test_a_paced_sink_gets_one_delivery_in_its_time_and_all_of_it_at_the_end(bench: Bench) -> None:
    sink = PacedSink(bench.memory("a").name)
    assert isinstance(sink, Paced)
    plan = with_sinks(bench.flow("a", "b").plan, {"a": sink})
    bench.feed(4)
    run = bench.open(plan)
    while run.step():
        pass
    assert bench.commits("a") == [(1, 1)]
    assert bench.commits("b") == [(1, 1), (2, 2), (3, 3), (4, 4)]
    bench.clock.advance(9.9)
    run.pump()
    assert bench.commits("a") == [(1, 1)]
    bench.clock.advance(0.2)
    run.pump()
    assert bench.commits("a") == [(1, 1), (2, 4)]
    bench.feed(1)
    assert run.step()
    assert bench.commits("a") == [(1, 1), (2, 4)]
    run.drain()
    assert bench.numbers("a") == bench.numbers("b") == [0, 1, 2, 3, 4]


def test_sinks_that_commit_together_are_not_paced(bench: Bench) -> None:
    sink = PacedSink(bench.memory("a").name)
    plan = with_sinks(bench.flow("a", "b", commit="together").plan, {"a": sink})
    bench.feed(3)
    bench.run(plan)
    assert bench.commits("a") == [(1, 1), (2, 2), (3, 3)]


def test_a_target_is_looked_after_in_its_time(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    sink = KeptSink(bench.memory("a").name)
    assert isinstance(sink, Maintain)
    run = bench.open(with_sinks(bench.flow("a").plan, {"a": sink}))
    bench.clock.advance(59.0)
    run.pump()
    assert not hasattr(sink, "asked")
    with caplog.at_level("INFO", logger="onefold"):
        for _ in range(2):
            bench.clock.advance(60.0)
            run.pump()
    assert sink.asked == [("a", False)] * 2
    assert "sink a: compacted 3 files into 1" in caplog.text
    sink.is_away = True
    bench.clock.advance(60.0)
    run.pump()
    assert "sink a was not maintained: It is away." in caplog.text
    run.drain()
