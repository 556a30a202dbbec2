"""Sinks that come, go, change, fall behind, go back in time, or follow another history."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import onefold as of
from onefold.connectors.memory.sink import MemorySink
from onefold.engines.embedded import archive
from onefold.errors import (
    OnefoldError,
    OutcomeUnknown,
    SinkChanged,
    SinkForked,
    SinkRefused,
    SinkRestored,
    TargetTaken,
    TokenRefused,
)
from onefold.types import Receipt, TokenMove
from tests.unit.engine_bench import Bench, bench_of, with_sinks


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


# ----------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "files", "memory"])
def test_a_target_of_another_flow_stops_the_run_unless_both_share_it(tmp_path: Path, kind: str) -> None:
    targets = {
        "duckdb": of.duckdb(str(tmp_path / "x.duckdb")).table("events"),
        "sqlite": of.sqlite(str(tmp_path / "x.sqlite")).table("events"),
        "files": of.files(tmp_path / "lake"),
        "memory": of.memory(f"{tmp_path}/events"),
    }

    def run(name: str, *, shared: bool) -> int:
        flow = of.Flow(name)
        flow.read(source, schema={"n": "BIGINT"}, name="in").append(targets[kind], name="events", shared=shared)
        return flow.run(state=tmp_path / "state").events

    source = of.memory(f"{tmp_path}/in")
    source.feed([{"n": 1}])
    assert run("first", shared=False) == 1
    with pytest.raises(TargetTaken) as refused:
        run("second", shared=False)
    assert refused.value.where["flow"] == "second"
    assert refused.value.where["sink"] == "events"
    assert refused.value.found == "flow first, sink events"
    assert "shared=True for every sink" in str(refused.value)
    assert run("second", shared=True) == 1
    source.feed([{"n": 2}])
    with pytest.raises(TargetTaken, match="Another flow or sink"):
        run("first", shared=False)
    assert run("first", shared=True) == 1


# ------------------------------------------------------------------------------------------------------- come and go


def test_a_sink_added_later_starts_at_the_next_epoch(bench: Bench) -> None:
    bench.feed(3)
    bench.run(bench.flow("a"))
    later = bench.feed(2)
    bench.run(bench.flow("a", "b"))
    assert bench.numbers("a") == [0, 1, 2, 3, 4]
    assert bench.numbers("b") == later


def test_a_sink_is_removed_only_when_it_has_taken_everything(bench: Bench) -> None:
    bench.feed(2)
    bench.open(bench.flow("a", "b")).abandon()
    bench.memory("b").set_down(True)
    bench.run(bench.flow("a", "b"), end="stop")
    with pytest.raises(SinkChanged) as refused:
        bench.open(bench.flow("a"))
    assert refused.value.where["sink"] == "b"
    bench.memory("b").set_down(False)
    bench.run(bench.flow("a", "b"))
    assert bench.numbers("b") == [0, 1]
    bench.feed(1)
    bench.run(bench.flow("a"))
    assert (bench.numbers("a"), bench.numbers("b")) == ([0, 1, 2], [0, 1])


def test_a_removed_sink_that_comes_back_goes_on_from_its_old_token(bench: Bench) -> None:
    bench.feed(2)
    bench.run(bench.flow("a", "b"))
    old = bench.token("b")
    bench.feed(2)
    bench.run(bench.flow("a"))
    assert bench.token("b") == old
    bench.feed(2)
    bench.run(bench.flow("a", "b"))
    bench.run(bench.flow("a"))
    bench.run(bench.flow("a", "b"))
    assert bench.numbers("b") == [0, 1, 4, 5]
    assert bench.token("b") == bench.token("a")


def test_a_sink_is_retargeted_only_when_drained_and_starts_anew(bench: Bench) -> None:
    def flow(target: str) -> of.Flow:
        made = of.Flow("bench", epoch_rows=1)
        made.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in").append(bench.memory(target), name="a")
        return made

    bench.feed(2)
    bench.memory("old").set_down(True)
    bench.run(flow("old"), end="stop")
    with pytest.raises(SinkChanged):
        bench.open(flow("new"))
    bench.memory("old").set_down(False)
    bench.run(flow("old"))
    later = bench.feed(1)
    bench.run(flow("new"))
    assert (bench.numbers("old"), bench.numbers("new")) == ([0, 1], later)


def test_a_new_target_that_holds_a_strange_token_is_refused(bench: Bench) -> None:
    bench.feed(1)
    bench.run(bench.flow("a"))
    with pytest.raises(SinkForked):
        bench.open(bench.flow("a"), bench.folder.parent / "another journal")
    assert bench.numbers("a") == [0]


@pytest.mark.parametrize("weak", ["at-least-once", "at-most-once"])
def test_a_guarantee_is_lowered_and_raised_again_without_loss_or_duplicate(bench: Bench, weak: str) -> None:
    for weaker in (None, {"a": weak}, None, {"a": weak}, None):
        bench.feed(2)
        bench.run(bench.flow("a", weaker=weaker))
    assert bench.numbers("a") == list(range(10))


def test_a_guarantee_changes_only_when_drained(bench: Bench) -> None:
    bench.feed(2)
    bench.memory("a").set_down(True)
    bench.run(bench.flow("a"), end="stop")
    with pytest.raises(SinkChanged):
        bench.open(bench.flow("a", weaker={"a": "at-least-once"}))


# -------------------------------------------------------------------------------------------------- back in time, forks


def snapshot(bench: Bench, sink: str) -> tuple[object, object]:
    store = bench.memory(sink).store
    return store.written(), copy.copy(store.tokens)


def restore(bench: Bench, sink: str, backup: tuple[object, object]) -> None:
    store = bench.memory(sink).store
    store.table, store.tokens = backup  # type: ignore[assignment]


def test_a_sink_restored_to_an_earlier_state_is_given_what_it_lacks(bench: Bench) -> None:
    bench.feed(2)
    bench.run(bench.flow("a", "b"))
    backup = snapshot(bench, "a")
    bench.feed(3)
    bench.run(bench.flow("a", "b"))
    restore(bench, "a", backup)
    assert bench.numbers("a") == [0, 1]
    bench.feed(1)
    bench.run(bench.flow("a", "b"))
    assert bench.numbers("a") == bench.numbers("b") == list(range(6))


def test_an_emptied_sink_is_given_everything_again(bench: Bench) -> None:
    bench.feed(3)
    bench.run(bench.flow("a"))
    restore(bench, "a", (None, {}))
    bench.run(bench.flow("a"))
    assert bench.numbers("a") == [0, 1, 2]


@pytest.mark.parametrize("settings", [{"keep_settled_bytes": 1}, {"keep_settled": "1 second"}])
def test_a_restored_sink_whose_rows_are_no_longer_kept_stops_the_flow(
    bench: Bench, settings: dict[str, object]
) -> None:
    bench.feed(2)
    bench.run(bench.flow("a", **settings))
    backup = snapshot(bench, "a")
    bench.feed(3)
    bench.run(bench.flow("a", **settings))
    bench.clock.advance(3600)
    bench.feed(3)
    bench.run(bench.flow("a", **settings))
    restore(bench, "a", backup)
    with pytest.raises(SinkRestored):
        bench.open(bench.flow("a", **settings))
    assert bench.numbers("a") == [0, 1]


def test_a_copied_journal_is_refused_before_anything_is_written(bench: Bench) -> None:
    bench.feed(2)
    bench.run(bench.flow("a", "b"))
    duplicate = bench.folder.parent / "copy"
    shutil.copytree(bench.folder, duplicate)
    bench.feed(2)
    bench.run(bench.flow("a", "b"))
    held = [bench.numbers("a"), bench.numbers("b"), bench.token("a"), bench.token("b")]
    bench.feed(1)
    with pytest.raises(SinkForked) as forked:
        bench.run(bench.flow("a", "b"), folder=duplicate)
    assert "epoch 4" in str(forked.value.found)
    assert held == [bench.numbers("a"), bench.numbers("b"), bench.token("a"), bench.token("b")]
    bench.run(bench.flow("a", "b"))
    assert bench.numbers("a") == bench.numbers("b") == list(range(5))


def test_a_copied_journal_that_sealed_before_its_sink_answered_is_refused_all_the_same(bench: Bench) -> None:
    """The copy cannot know better while the sink is down: it seals, and must stop when it sees the token."""
    bench.feed(2)
    bench.run(bench.flow("a"))
    duplicate = bench.folder.parent / "copy"
    shutil.copytree(bench.folder, duplicate)
    bench.feed(1)
    bench.memory("a").set_down(True)
    copied = bench.open(bench.flow("a"), duplicate)
    assert copied.step()
    bench.memory("a").set_down(False)
    bench.run(bench.flow("a"))
    with pytest.raises(SinkForked):
        copied.drain()
    copied.abandon()
    assert bench.numbers("a") == [0, 1, 2]


def test_two_live_copies_never_both_write(bench: Bench) -> None:
    bench.feed(1)
    bench.run(bench.flow("a"))
    duplicate = bench.folder.parent / "copy"
    shutil.copytree(bench.folder, duplicate)
    first, second = bench.open(bench.flow("a")), bench.open(bench.flow("a"), duplicate)
    bench.feed(2)
    assert first.step()
    with pytest.raises(TokenRefused):
        second.step()
    second.abandon()
    while first.step():
        pass
    first.drain()
    assert bench.numbers("a") == [0, 1, 2]


# ------------------------------------------------------------------------------------------------------------- pace


def test_a_sink_that_is_down_does_not_hold_up_the_others_and_catches_up(bench: Bench) -> None:
    bench.memory("b").set_down(True)
    run = bench.open(bench.flow("a", "b"))
    bench.feed(20)
    while run.step():
        pass
    assert bench.numbers("a") == list(range(20))
    assert bench.numbers("b") == []
    bench.memory("b").set_down(False)
    run.drain()
    assert bench.numbers("b") == list(range(20))
    assert bench.commits("b") == [(1, 20)]


def test_what_is_delivered_together_is_bounded_in_bytes(bench: Bench) -> None:
    bench.memory("a").set_down(True)
    bench.feed(9)
    run = bench.open(bench.flow("a", deliver_bytes=3 * 8))
    while run.step():
        pass
    bench.memory("a").set_down(False)
    run.drain()
    assert bench.numbers("a") == list(range(9))
    assert bench.commits("a") == [(1, 3), (4, 6), (7, 9)]


class Slow(MemorySink):
    """Times out, with nothing written, on more than so many rows at once."""

    most = 2

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        if sum(receipt.rows for receipt in receipts) > self.most:
            raise OutcomeUnknown("No answer in time.") from TimeoutError()
        super().commit(receipts, move)


def test_after_a_timeout_half_as_much_is_delivered(bench: Bench) -> None:
    plan = bench.flow("a", deliver_bytes=8 * 8).plan
    plan = with_sinks(plan, {"a": Slow(bench.memory("a").name)})
    bench.memory("a").set_down(True)
    bench.feed(8)
    run = bench.open(plan)
    while run.step():
        pass
    bench.memory("a").set_down(False)
    run.drain()
    assert bench.numbers("a") == list(range(8))
    assert bench.commits("a", "unknown")[:2] == [(1, 8), (1, 4)]
    assert bench.commits("a")[0] == (1, 2)


def test_small_payloads_beyond_the_bound_in_memory_are_read_from_the_journal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "INLINE_IN_MEMORY_BYTES", 700)  # two payloads or so
    bench.memory("b").set_down(True)
    run = bench.open(bench.flow("a", "b"))
    bench.feed(10)
    while run.step():
        pass
    bench.memory("b").set_down(False)
    run.drain()
    assert bench.numbers("a") == bench.numbers("b") == list(range(10))


def test_sealed_rows_are_delivered_by_a_later_process(bench: Bench) -> None:
    bench.memory("a").set_down(True)
    bench.feed(5)
    bench.run(bench.flow("a"), end="abandon")
    bench.memory("a").set_down(False)
    bench.memory("in").forget_input(5)
    bench.run(bench.flow("a"))
    assert bench.numbers("a") == list(range(5))


def test_a_sink_that_refuses_rows_stops_and_the_others_go_on(bench: Bench) -> None:
    bench.memory("b").fail_next("rows-refused")
    bench.feed(3)
    run = bench.run(bench.flow("a", "b"))
    assert bench.numbers("a") == [0, 1, 2]
    assert bench.numbers("b") == []
    assert set(run.conductor.stopped_sinks) == {"b"}
    assert run.conductor.drained is not None
    assert dict(run.conductor.drained.behind) == {"b": 0}
    bench.run(bench.flow("a", "b"))
    assert bench.numbers("b") == [0, 1, 2]


def test_stop_leaves_what_a_sink_that_is_down_cannot_take_and_drain_waits(bench: Bench) -> None:
    bench.memory("b").set_down(True)
    bench.feed(2)
    run = bench.run(bench.flow("a", "b"), end="stop")
    assert run.conductor.drained is not None
    assert dict(run.conductor.drained.behind) == {"b": 0}
    with pytest.raises(OnefoldError, match="does not drain"):
        bench.run(bench.flow("a", "b"))
    bench.memory("b").set_down(False)
    bench.run(bench.flow("a", "b"))
    assert bench.numbers("b") == [0, 1]


def test_tokens_move_over_epochs_that_were_empty_for_a_sink(bench: Bench) -> None:
    flow = of.Flow("bench", epoch_rows=1)
    rows = flow.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in")
    rows.append(bench.memory("a"), name="a")
    rows.where("n < 0").append(bench.memory("b"), name="b")
    run = bench.open(flow)
    bench.feed(3)
    while run.step():
        pass
    assert bench.token("b") is None
    bench.clock.advance(11)
    run.pump()
    assert bench.token("b") == bench.token("a")
    bench.feed(1)
    run.step()
    run.stop()
    token = bench.token("b")
    assert token is not None
    assert token.epoch == 4


# ---------------------------------------------------------------------------------------------- unknown outcomes


@pytest.mark.parametrize("fault", ["unknown-landed", "unknown-lost", "unavailable"])
def test_exactly_once_reads_the_token_back_and_writes_once(bench: Bench, fault: str) -> None:
    bench.feed(5)
    bench.memory("a").fail_next(fault, 2)  # type: ignore[arg-type]
    bench.run(bench.flow("a"))
    assert bench.numbers("a") == list(range(5))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("unknown-landed", [0, 0, 1, 2]), ("unknown-lost", [0, 1, 2]), ("unavailable", [0, 1, 2])],
)
def test_at_least_once_repeats_what_is_unknown_and_nothing_else(bench: Bench, fault: str, expected: list[int]) -> None:
    bench.feed(3)
    bench.memory("a").fail_next(fault)  # type: ignore[arg-type]
    bench.run(bench.flow("a", weaker={"a": "at-least-once"}))
    assert bench.numbers("a") == expected


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("unknown-landed", [0, 1, 2]), ("unknown-lost", [1, 2]), ("unavailable", [1, 2]), ("rows-refused", [1, 2])],
)
def test_at_most_once_gives_up_what_is_unknown_and_counts_it(bench: Bench, fault: str, expected: list[int]) -> None:
    bench.feed(3)
    bench.memory("a").fail_next(fault)  # type: ignore[arg-type]
    run = bench.run(bench.flow("a", weaker={"a": "at-most-once"}))
    assert bench.numbers("a") == expected
    assert run.conductor.given_up["a"] == 1
    again = bench.open(bench.flow("a", weaker={"a": "at-most-once"}))
    assert again.conductor.given_up["a"] == 1
    again.stop()


# ----------------------------------------------------------------------------------------------------------- forgetful


class Forgetful(MemorySink):
    """Its target forgets tokens that are not written for an hour."""

    renew_every_seconds = 600.0

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.renewed = 0
        self.fails = False

    def renew(self) -> None:
        self.renewed += 1
        if self.fails:
            raise OutcomeUnknown("nobody answered")


def test_a_token_that_its_target_forgets_is_written_again_in_time(bench: Bench) -> None:
    sink = Forgetful(bench.memory("a").name)
    bench.feed(1)
    run = bench.open(with_sinks(bench.flow("a").plan, {"a": sink}))
    while run.step():
        pass
    assert sink.renewed == 0
    for _ in range(6):
        bench.clock.advance(601)
        run.step()
    assert sink.renewed == 6
    sink.fails = True
    bench.clock.advance(601)
    bench.feed(1)
    while run.step():
        pass
    run.drain()
    assert sink.renewed == 7
    assert bench.numbers("a") == [0, 1], "a failure of it stops nothing"


def test_a_sink_without_a_token_is_not_asked_to_write_it_again(bench: Bench) -> None:
    sink = Forgetful(bench.memory("a").name)
    bench.feed(1)
    run = bench.open(with_sinks(bench.flow("a", weaker={"a": "at-least-once"}).plan, {"a": sink}))
    bench.clock.advance(601)
    run.step()
    run.drain()
    assert sink.renewed == 0


class Unwilling(MemorySink):
    """Opens, and will not have what is delivered."""

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        raise SinkRefused("The table was changed.", sink="a")


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once", "at-most-once"])
def test_a_sink_that_refuses_a_delivery_ends_the_run(bench: Bench, guarantee: str) -> None:
    """No later try would help: opened again it would look well, and refuse for ever."""
    bench.feed(2)
    flow = bench.flow("a", weaker={"a": guarantee})
    refusing = with_sinks(flow.plan, {"a": Unwilling(bench.memory("a").name)})
    with pytest.raises(SinkRefused, match="was changed"):
        bench.run(refusing)
    assert bench.numbers("a") == []
    bench.run(flow)
    assert bench.numbers("a") == ([1] if guarantee == "at-most-once" else [0, 1])
