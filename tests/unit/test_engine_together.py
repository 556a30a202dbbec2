"""commit="together": an epoch shows in every sink or in none."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from onefold.connectors.memory.sink import MemorySink
from onefold.engines.embedded.inline import InlineRun
from onefold.engines.embedded.runner import run
from onefold.errors import OnefoldError, OutcomeUnknown, SinkChanged, SinkForked, SinkUnavailable, StateUnknown
from onefold.types import EpochHead, Receipt, SealId
from tests.unit.engine_bench import Bench, bench_of, with_sinks


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


class Refuses(MemorySink):
    """Cannot prepare epochs from the third on."""

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        if epoch.number >= 3:
            raise SinkUnavailable("No room for another prepared transaction.")
        return super().prepare(epoch, batches)


class Dies(MemorySink):
    """The process dies when this sink has prepared the third epoch."""

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        receipt = super().prepare(epoch, batches)
        if epoch.number == 3:
            raise KeyboardInterrupt
        return receipt


def staged(bench: Bench, sink: str) -> int:
    return len(bench.memory(sink).store.staged)


def run_into(bench: Bench, sink: type[MemorySink], error: type[BaseException], folder: Path | None = None) -> None:
    """Four numbers into `a` and `b` of this kind, until it fails at the third."""
    plan = with_sinks(bench.flow("a", "b", commit="together").plan, {"b": sink(bench.memory("b").name)})
    with pytest.raises(error):
        bench.run(plan, folder=folder)


def test_both_sinks_get_every_epoch_once(bench: Bench) -> None:
    bench.feed(5)
    bench.run(bench.flow("a", "b", commit="together"))
    assert bench.numbers("a") == bench.numbers("b") == list(range(5))
    assert bench.commits("a") == [(number, number) for number in range(1, 6)]
    assert staged(bench, "a") == staged(bench, "b") == 0


def test_when_one_cannot_prepare_nobody_sees_the_epoch(bench: Bench) -> None:
    bench.feed(4)
    run_into(bench, Refuses, SinkUnavailable)
    assert bench.numbers("a") == bench.numbers("b") == [0, 1]
    assert staged(bench, "a") == 0
    bench.run(bench.flow("a", "b", commit="together"))
    assert bench.numbers("a") == bench.numbers("b") == [0, 1, 2, 3]


def test_an_error_that_nobody_foresaw_leaves_nothing_prepared_either(bench: Bench) -> None:
    class Breaks(MemorySink):
        def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
            if epoch.number >= 3:
                raise ValueError("a value that cannot be encoded")
            return super().prepare(epoch, batches)

    bench.feed(4)
    run_into(bench, Breaks, ValueError)
    assert bench.numbers("a") == bench.numbers("b") == [0, 1]
    assert staged(bench, "a") == 0


def test_a_sink_that_cannot_prepare_may_leave_the_flow(bench: Bench) -> None:
    """What the others had prepared is forgotten, so nothing keeps anybody."""
    bench.feed(2)
    bench.run(bench.flow("a", "b", commit="together"))
    bench.feed(1)
    plan = with_sinks(bench.flow("a", "b", commit="together").plan, {"b": Refuses(bench.memory("b").name)})
    with pytest.raises(SinkUnavailable):
        run(plan, bench.folder, until="drained")
    bench.run(bench.flow("a", commit="together"))
    assert (len(bench.numbers("a")), len(bench.numbers("b"))) == (3, 2)


def test_a_sink_may_not_leave_while_something_may_be_prepared_in_it(bench: Bench) -> None:
    bench.feed(2)
    bench.run(bench.flow("a", "b", commit="together"))
    bench.feed(1)
    run_into(bench, Dies, KeyboardInterrupt)
    with pytest.raises(SinkChanged, match="may have been prepared"):
        bench.run(bench.flow("a", commit="together"))
    bench.run(bench.flow("a", "b", commit="together"))
    bench.run(bench.flow("a", commit="together"))


def test_a_sink_may_not_leave_whose_prepare_had_no_answer(bench: Bench) -> None:
    """The model found it: it may land after it was looked for, in a sink that nobody lists any more."""

    class IsSilent(MemorySink):
        def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
            raise OutcomeUnknown(sink="b")

    def drain(*sinks: str) -> None:
        run(bench.flow(*sinks, commit="together").plan, bench.folder, until="drained")

    bench.feed(2)
    drain("a", "b")
    bench.feed(1)
    plan = with_sinks(bench.flow("a", "b", commit="together").plan, {"b": IsSilent(bench.memory("b").name)})
    with pytest.raises(OutcomeUnknown):
        run(plan, bench.folder, until="drained")  # it ends by itself, and would say that all is decided
    with pytest.raises(SinkChanged, match="may have been prepared"):
        drain("a")
    drain("a", "b")
    drain("a")
    assert (len(bench.numbers("a")), len(bench.numbers("b"))) == (3, 3)


def test_when_one_cannot_prepare_those_after_it_are_not_asked(bench: Bench) -> None:
    """What they staged would be there after their handles of the epoch were aborted."""
    bench.feed(4)
    plan = with_sinks(bench.flow("b", "a", commit="together").plan, {"b": Refuses(bench.memory("b").name)})
    with pytest.raises(SinkUnavailable):
        bench.run(plan)
    asked = [event["sink"] for event in bench.trace if event["do"] == "prepare" and event["epoch"] == 3]
    assert asked == ["b"]


def test_giving_up_an_epoch_leaves_what_a_copy_of_the_journal_prepared(bench: Bench) -> None:
    class PlantsARival(Refuses):
        def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
            if epoch.number == 3:
                store = bench.memory("a").store
                place, (key, handle, rows) = next(iter(store.staged.items()))
                store.staged[place + "'"] = (key, replace(handle, seal=SealId("f" * 32)), rows)
            return super().prepare(epoch, batches)

    bench.feed(4)
    run_into(bench, PlantsARival, SinkUnavailable)
    assert [handle.seal for _, handle, _ in bench.memory("a").store.staged.values()] == ["f" * 32]


def test_what_a_killed_process_had_prepared_and_not_sealed_is_aborted(bench: Bench) -> None:
    bench.feed(4)
    run_into(bench, Dies, KeyboardInterrupt)
    assert (staged(bench, "a"), staged(bench, "b")) == (1, 1)
    run = bench.open(bench.flow("a", "b", commit="together"))
    assert (staged(bench, "a"), staged(bench, "b")) == (0, 0)
    finish(run)
    assert bench.numbers("a") == bench.numbers("b") == [0, 1, 2, 3]


def test_what_was_sealed_is_committed_by_the_next_process(bench: Bench) -> None:
    bench.feed(2)
    bench.memory("b").fail_next("unknown-lost", 1)
    bench.memory("a").fail_next("unknown-lost", 1)
    run = bench.open(bench.flow("a", "b", commit="together"))
    run.step()
    run.abandon()
    assert bench.numbers("a") == bench.numbers("b") == []
    bench.run(bench.flow("a", "b", commit="together"))
    assert bench.numbers("a") == bench.numbers("b") == [0, 1]


def test_a_copied_journal_aborts_nothing(bench: Bench) -> None:
    bench.feed(4)
    run_into(bench, Dies, KeyboardInterrupt)
    duplicate = bench.folder.parent / "copy"
    shutil.copytree(bench.folder, duplicate)
    for _ in range(2):  # its own refused start does not make it look at home
        with pytest.raises(StateUnknown, match="moved or copied") as refused:
            bench.open(bench.flow("a", "b", commit="together"), duplicate)
        assert "--adopt" in refused.value.next_step
    assert (staged(bench, "a"), staged(bench, "b")) == (1, 1)
    bench.run(bench.flow("a", "b", commit="together"))
    assert bench.numbers("a") == bench.numbers("b") == [0, 1, 2, 3]


def test_nothing_is_aborted_before_every_token_was_compared(bench: Bench) -> None:
    """An older copy of the journal, at the very place of the true one: `b` tells before anything of `a` is touched."""
    bench.feed(2)
    bench.run(bench.flow("a", "b", commit="together"))
    backup = bench.folder.parent / "backup"
    shutil.copytree(bench.folder, backup)
    bench.feed(2)
    bench.run(bench.flow("a", "b", commit="together"))
    shutil.rmtree(bench.folder)
    shutil.copytree(backup, bench.folder)
    with pytest.raises(SinkForked):
        bench.open(bench.flow("a", "b", commit="together"))
    assert bench.numbers("a") == bench.numbers("b") == [0, 1, 2, 3]


def test_one_that_is_down_holds_up_both(bench: Bench) -> None:
    bench.memory("b").set_down(True)
    bench.feed(1)
    run = bench.open(bench.flow("a", "b", commit="together"))
    with pytest.raises(OnefoldError, match="takes no more epochs"):
        run.step()
    run.abandon()
    assert bench.numbers("a") == []
    bench.memory("b").set_down(False)
    bench.run(bench.flow("a", "b", commit="together"))
    assert bench.numbers("a") == bench.numbers("b") == [0]


def finish(run: InlineRun) -> None:
    while run.step():
        pass
    run.drain()
