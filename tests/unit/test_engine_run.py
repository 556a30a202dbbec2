"""The engine with its threads: start, stop, drain, progress, bounded spool."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold import disk
from onefold.connectors.memory.source import MemorySource
from onefold.engines.embedded import runner
from onefold.engines.embedded.runner import READ_AHEAD_EPOCHS, Run, run, start
from onefold.errors import JournalLocked, OnefoldError, UserCodeError
from tests.unit.engine_bench import Bench, bench_of

SOON = 30.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


class Watch:
    """A trace that sets an event when what is waited for has been done."""

    def __init__(self, is_it: Callable[[Mapping[str, Any]], bool]) -> None:
        self._is_it = is_it
        self.seen = threading.Event()

    def __call__(self, done: Mapping[str, Any]) -> None:
        if self._is_it(done):
            self.seen.set()

    def wait(self) -> None:
        assert self.seen.wait(SOON)


def committed(sink: str, last: int) -> Watch:
    return Watch(lambda d: d["do"] == "commit" and d["sink"] == sink and d["result"] == "ok" and d["last"] >= last)


def test_a_run_until_drained_takes_everything_and_ends(bench: Bench) -> None:
    bench.feed(50)
    summary = run(bench.flow("a", "b", epoch_rows=7).plan, bench.folder, until="drained")
    assert bench.numbers("a") == bench.numbers("b") == list(range(50))
    assert (summary.events, summary.epochs, summary.is_complete) == (50, 8, True)
    assert summary.totals["sinks"]["a"]["appended"] == 50
    assert repr(summary).startswith("<Summary of bench: 50 events in 8 epochs, ")
    assert summary._repr_html_().startswith("<p>Summary of bench: 50 events")
    again = run(bench.flow("a", "b", epoch_rows=7).plan, bench.folder, until="drained")
    assert (again.events, again.epochs) == (0, 0)


def test_leaving_the_block_stops_cleanly_and_the_next_run_goes_on(bench: Bench) -> None:
    watch = committed("a", 5)
    bench.feed(5)
    with Run(bench.flow("a").plan, bench.folder, trace=watch) as running:
        watch.wait()
        progress = running.progress()
        assert (progress.events, progress.epoch) == (5, 5)
        assert repr(running).startswith("<Run of bench: running, 5 events read, epoch 5 sealed, ")
        assert running._repr_html_().startswith("<p>Run of bench: running")
        assert running.is_running
    assert not running.is_running
    assert running.wait().is_complete
    assert running.progress().settled == 5
    bench.feed(2)
    run(bench.flow("a").plan, bench.folder, until="drained")
    assert bench.numbers("a") == list(range(7))


def test_rows_that_come_while_it_runs_are_taken(bench: Bench) -> None:
    watch, later = committed("a", 1), committed("a", 3)

    def both(done: Mapping[str, Any]) -> None:
        watch(done)
        later(done)

    with Run(bench.flow("a", epoch_seconds="10 ms").plan, bench.folder, trace=both):
        bench.feed(1)
        watch.wait()
        bench.feed(2)
        later.wait()
    assert bench.numbers("a") == [0, 1, 2]


def test_stop_does_not_wait_for_a_sink_that_is_down_and_says_what_is_behind(bench: Bench) -> None:
    bench.memory("b").set_down(True)
    bench.feed(3)
    watch = committed("a", 3)
    with Run(bench.flow("a", "b").plan, bench.folder, until="drained", trace=watch) as running:
        watch.wait()
        assert "down" in running.progress().waiting_sinks["b"]
        assert running.progress().undelivered_bytes >= 3 * 8
        running.stop()
        summary = running.wait(SOON)
    assert dict(summary.behind) == {"b": 0}
    assert not summary.is_complete
    bench.memory("b").set_down(False)
    assert run(bench.flow("a", "b").plan, bench.folder, until="drained").is_complete
    assert bench.numbers("b") == [0, 1, 2]


def test_a_full_spool_stops_reading_until_the_sink_is_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.memory("b").set_down(True)
    bench.feed(400)
    running = Run(bench.flow("a", "b", spool_quota_bytes=20 * 8).plan, bench.folder, until="drained")
    core = running._conductor.core
    undelivered = type(core).undelivered_bytes
    held = threading.Semaphore(0)

    def asked(self: Any) -> int:
        size = undelivered(self)
        if size > 20 * 8:
            held.release()
        return size

    monkeypatch.setattr(type(core), "undelivered_bytes", asked)
    with running:
        for _ in range(3):  # the reading thread has been told three times that the spool is full
            assert held.acquire(timeout=SOON)
        assert 20 < running.progress().epoch < 20 + 10
        bench.memory("b").set_down(False)
        assert running.wait(SOON * 2).is_complete
    assert bench.numbers("a") == bench.numbers("b") == list(range(400))


class Queues:
    """The queues between the threads, each with an event that is set when something did not fit in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full: list[threading.Event] = []
        full = self.full

        class Watched(queue.Queue[Any]):
            def __init__(self, size: int = 0) -> None:
                super().__init__(size)
                self.event = threading.Event()
                if size == READ_AHEAD_EPOCHS:
                    full.append(self.event)

            def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
                try:
                    super().put(item, block, timeout)
                except queue.Full:
                    self.event.set()
                    raise

        monkeypatch.setattr(runner.queue, "Queue", Watched)

    def wait(self, number: int) -> None:
        """Until that one has been full once more from now on."""
        self.full[number].clear()
        assert self.full[number].wait(SOON)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each read of a memory source gave."""
    done: list[int] = []
    read = MemorySource.read

    def counted(self: MemorySource, *args: Any) -> Any:
        found = read(self, *args)
        done.append(sum(batch.num_rows for batch in found.batches))
        return found

    monkeypatch.setattr(MemorySource, "read", counted)
    return done


TO_COMPUTE, COMPUTED = 0, 1
COUNT = 50


def test_slow_computing_stops_the_reader(bench: Bench, reads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    go, is_in = threading.Event(), threading.Event()

    def slowly(rows: Any) -> Any:
        is_in.set()
        assert go.wait(SOON)
        return rows

    flow = of.Flow("bench", epoch_rows=1)
    rows = flow.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in")
    rows.map(slowly, schema={"n": "BIGINT"}).append(bench.memory("a"), name="a")
    bench.feed(COUNT)
    queues = Queues(monkeypatch)
    with Run(flow.plan, bench.folder, until="drained") as running:
        assert is_in.wait(SOON)
        queues.wait(TO_COMPUTE)
        assert sum(reads) <= READ_AHEAD_EPOCHS + 2, "one is computed, one is in the reader's hand, the others wait"
        go.set()
        running.wait(SOON)
    assert bench.numbers("a") == list(range(COUNT))
    assert sum(reads) == COUNT


def test_slow_sealing_stops_computing_and_then_the_reader(
    bench: Bench, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, is_in = threading.Event(), threading.Event()

    def slowly(step: str, moment: str) -> None:
        if (step, moment) == ("journal.seal", "before"):
            is_in.set()
            assert go.wait(SOON)

    monkeypatch.setattr(disk, "observer", slowly)
    bench.feed(COUNT)
    queues = Queues(monkeypatch)
    with Run(bench.flow("a").plan, bench.folder, until="drained") as running:
        assert is_in.wait(SOON)
        queues.wait(COMPUTED)
        queues.wait(TO_COMPUTE)
        most = 2 * READ_AHEAD_EPOCHS + 4
        assert sum(reads) <= most, "one is sealed, three are in hands, the others wait"
        go.set()
        running.wait(SOON)
    assert bench.numbers("a") == list(range(COUNT))


def test_what_stops_the_flow_is_raised_by_wait(bench: Bench) -> None:
    def no(_: Any) -> Any:
        raise ValueError("no")

    flow = of.Flow("bench")
    rows = flow.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in")
    rows.map(no, schema={"n": "BIGINT"}).append(bench.memory("a"), name="a")
    bench.feed(1)
    with pytest.raises(UserCodeError, match="ValueError"):
        run(flow.plan, bench.folder, until="drained")
    with pytest.raises(UserCodeError), start(flow.plan, bench.folder) as running:
        running.wait(SOON)
    with pytest.raises(TimeoutError), start(bench.flow("a").plan, bench.folder.parent / "other") as running:
        running.wait(0.01)


def test_what_stopped_the_flow_is_raised_at_the_end_of_the_block(bench: Bench) -> None:
    flow = of.Flow("bench")
    rows = flow.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in")
    rows.map(lambda _: 1 / 0, schema={"n": "BIGINT"}).append(bench.memory("a"), name="a")  # type: ignore[arg-type,return-value]
    bench.feed(1)

    def leave(error: Exception | None = None) -> None:
        with start(flow.plan, bench.folder) as running:
            running._threads[-1].join(SOON)
            if error is not None:
                raise error

    with pytest.raises(UserCodeError):
        leave()
    with pytest.raises(KeyError):
        leave(KeyError())
    with start(flow.plan, bench.folder) as running, pytest.raises(UserCodeError):
        running.wait(SOON)


def test_a_second_run_is_refused_while_the_first_goes_on(bench: Bench) -> None:
    with start(bench.flow("a").plan, bench.folder), pytest.raises(JournalLocked):
        run(bench.flow("a").plan, bench.folder, until="drained")
    run(bench.flow("a").plan, bench.folder, until="drained")


def test_windows_are_closed_at_the_end_only_when_asked(bench: Bench) -> None:
    flow = of.Flow("bench")
    rows = flow.read(
        bench.memory("in"), schema={"n": "BIGINT", "t": "TIMESTAMP"}, event_time="t", name="in", format="json"
    )
    rows.window("1 hour").agg(total="sum(n)").append(bench.memory("a"), name="a")
    bench.memory("in").feed_bytes(['{"n": 1, "t": "1969-12-31 23:30:00"}', '{"n": 2, "t": "1970-01-01 00:30:00"}'])
    run(flow.plan, bench.folder, until="drained")
    assert [int(row["total"]) for row in bench.memory("a").rows()] == [1]
    run(flow.plan, bench.folder, until="drained", close=True)
    assert [int(row["total"]) for row in bench.memory("a").rows()] == [1, 2]


def test_dead_letters_are_kept_beside_the_journal(bench: Bench) -> None:
    flow = of.Flow("bench")
    flow.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in", format="json").append(bench.memory("a"), name="a")
    bench.memory("in").feed_bytes(['{"n": 1}', "{"])
    summary = run(flow.plan, bench.folder, until="drained")
    assert summary.totals["operators"]["in"]["dead"] == 1
    assert (bench.folder / "dead-letters.sqlite").exists()
    assert bench.numbers("a") == [1]


def test_a_source_that_is_down_ends_the_run_with_its_error(bench: Bench) -> None:
    bench.memory("in").set_down(True)
    with pytest.raises(OnefoldError, match="down"):
        run(bench.flow("a").plan, bench.folder, until="drained")


def test_stop_ends_also_when_a_sink_of_a_flow_that_commits_together_is_down(bench: Bench) -> None:
    bench.memory("b").set_down(True)
    bench.feed(3)
    watch = Watch(lambda done: done["do"] == "open" and done["sink"] == "a")
    with Run(bench.flow("a", "b", commit="together").plan, bench.folder, trace=watch) as running:
        watch.wait()
        running.stop()
        running.wait(SOON)
    assert bench.numbers("a") == []


def test_a_partition_that_fills_every_epoch_does_not_starve_the_others(bench: Bench) -> None:
    for partition in ("a", "b", "c"):
        bench.memory("in").feed([{"n": ord(partition)}] * 100, partition=partition)
    one = bench.open(bench.flow("a", epoch_rows=10))
    for _ in range(6):
        one.step()
    assert {number: bench.numbers("a").count(number) for number in map(ord, "abc")} == {97: 20, 98: 20, 99: 20}
    one.stop()
