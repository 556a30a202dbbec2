"""Who may open a state folder, with which plan, and what a damaged one does."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold import disk
from onefold.errors import (
    DiskFailed,
    DiskFull,
    Fenced,
    InvariantBroken,
    JournalLocked,
    OnefoldError,
    PlanChanged,
    SinkUnavailable,
)
from tests.unit.engine_bench import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


# --------------------------------------------------------------------------------------------------------- processes


def test_a_second_process_is_told_who_runs(bench: Bench) -> None:
    run = bench.open(bench.flow("a"))
    with pytest.raises(JournalLocked) as locked:
        bench.open(bench.flow("a"))
    assert str(os.getpid()) in str(locked.value.found)
    run.abandon()
    bench.open(bench.flow("a")).stop()


def test_a_process_that_wakes_up_after_another_took_over_is_fenced(bench: Bench) -> None:
    bench.feed(2)
    old = bench.open(bench.flow("a"))
    assert old.step()
    new = bench.open(bench.flow("a"), is_locked=False)
    with pytest.raises(Fenced):
        old.step()
    assert bench.numbers("a") == [0]
    while new.step():
        pass
    new.drain()
    assert bench.numbers("a") == [0, 1]


def test_a_fenced_process_that_already_sealed_cannot_deliver_a_second_time(bench: Bench) -> None:
    bench.feed(1)
    bench.memory("a").set_down(True)
    old = bench.open(bench.flow("a"))
    assert old.step()
    bench.memory("a").set_down(False)
    new = bench.open(bench.flow("a"), is_locked=False)
    new.drain()
    with pytest.raises(Fenced):
        old.drain()
    old.abandon()
    assert bench.numbers("a") == [0]


# -------------------------------------------------------------------------------------------------------------- plans


def flow(bench: Bench, where: str = "n > 0", size: str = "1 second", *more: str) -> of.Flow:
    made = of.Flow("bench", epoch_rows=10)
    rows = made.read(bench.memory("in"), schema={"n": "BIGINT", "t": "TIMESTAMP"}, name="in", event_time="t")
    kept = rows.where(where, name="kept")
    kept.append(bench.memory("a"), name="a")
    kept.window(size, name="sums").agg(total="sum(n)").append(bench.memory("w"), name="w")
    for name in more:
        kept.dedup("n", within=None, name=f"dedup-{name}").append(bench.memory(name), name=name)
    return made


@pytest.mark.parametrize(
    ("changed", "node", "found", "expected"),
    [(("n > 1",), "kept", "n > 1", "n > 0"), (("n > 0", "2 seconds"), "sums", "2000000", "1000000")],
)
def test_a_changed_step_is_refused_with_what_differs(
    bench: Bench, changed: tuple[str, ...], node: str, found: str, expected: str
) -> None:
    bench.run(flow(bench))
    with pytest.raises(PlanChanged) as refused:
        bench.open(flow(bench, *changed))
    assert refused.value.where["node"] == node
    assert found in str(refused.value.found)
    assert expected in str(refused.value.expected)
    assert "reset" in refused.value.next_step
    bench.run(flow(bench))


def test_another_way_to_commit_is_refused(bench: Bench) -> None:
    bench.run(bench.flow("a"))
    with pytest.raises(PlanChanged, match="commit=together"):
        bench.open(bench.flow("a", commit="together"))


def test_added_steps_and_outputs_are_welcome_and_begin_empty(bench: Bench) -> None:
    bench.run(flow(bench))
    bench.run(flow(bench, "n > 0", "1 second", "b", "c"))
    bench.run(flow(bench, "n > 0", "1 second", "c"))
    bench.run(flow(bench, "n > 0", "1 second", "b", "c"))


# ------------------------------------------------------------------------------------------------------------- the disk


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, DiskFailed)])
@pytest.mark.parametrize("step", ["journal.start", "journal.seal", "journal.settle", "spool.write", "snapshot.write"])
def test_a_disk_that_fills_up_or_fails_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str, code: int, error: type[OnefoldError]
) -> None:
    plan = of.Flow("bench", epoch_rows=40_000, snapshot_every_bytes=1)
    rows = plan.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in")
    rows.dedup("n", within=None).append(bench.memory("a"), name="a")
    bench.feed(80_000)

    def fail(name: str, moment: str) -> None:
        if (name, moment) == (step, "before"):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "observer", fail)
    with pytest.raises(error):
        bench.run(plan)
    monkeypatch.setattr(disk, "observer", None)
    bench.run(plan)
    assert bench.numbers("a") == list(range(80_000))


def test_whatever_happens_to_the_journal_no_sink_gets_a_wrong_row(bench: Bench, seed: int) -> None:
    """Flipped bytes: an error that says what to do, or the right result."""
    plan = of.Flow("bench", epoch_rows=2, keep_settled_bytes=64)
    rows = plan.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in")
    rows.dedup("n", within=None).append(bench.memory("a"), name="a")
    bench.feed(6)
    bench.run(plan)
    bench.memory("a").set_down(True)
    bench.feed(4)
    bench.run(plan, end="stop")
    bench.memory("a").set_down(False)
    store = bench.memory("a").store
    table, tokens = store.written(), dict(store.tokens)
    whole = (bench.folder / "journal.sqlite").read_bytes()
    damaged = bench.folder.parent / "damaged"
    outcomes = {"right": 0, "refused": 0}
    for place in range(seed % 251, len(whole), 251):
        shutil.copytree(bench.folder, damaged)
        body = bytearray(whole)
        body[place] ^= 0x55
        (damaged / "journal.sqlite").write_bytes(body)
        store.table, store.tokens = table, dict(tokens)
        try:
            bench.run(plan, folder=damaged)
        except InvariantBroken as error:
            pytest.fail(f"byte {place}: {error}")
        except OnefoldError:
            outcomes["refused"] += 1
            assert bench.numbers("a") in [list(range(n)) for n in range(6, 11, 2)]
        else:
            outcomes["right"] += 1
            assert bench.numbers("a") == list(range(10))
        shutil.rmtree(damaged)
    assert outcomes["right"]
    assert outcomes["refused"]


def test_a_source_that_is_down_is_an_error_and_nothing_is_lost(bench: Bench) -> None:
    bench.feed(2)
    bench.memory("in").set_down(True)
    with pytest.raises(OnefoldError) as down:
        bench.run(bench.flow("a"))
    assert not isinstance(down.value, SinkUnavailable)
    bench.memory("in").set_down(False)
    bench.run(bench.flow("a"))
    assert bench.numbers("a") == [0, 1]


def test_input_that_the_source_lost_is_an_error_that_names_the_range(bench: Bench) -> None:
    bench.feed(2)
    bench.run(bench.flow("a"))
    bench.feed(5)
    bench.memory("in").forget_input(4)
    with pytest.raises(of.errors.InputLost, match="2 to 3"):
        bench.run(bench.flow("a"))
    assert bench.numbers("a") == [0, 1]


def user_error(_: Any) -> Any:
    raise ValueError("no")


def test_a_function_that_raises_stops_before_anything_of_its_epoch_is_written(bench: Bench) -> None:
    plan = of.Flow("bench", epoch_rows=1)
    rows = plan.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in")
    rows.append(bench.memory("a"), name="a")
    rows.map(user_error, schema={"n": "BIGINT"}).append(bench.memory("b"), name="b")
    bench.feed(1)
    with pytest.raises(of.errors.UserCodeError):
        bench.run(plan)
    assert bench.numbers("a") == bench.numbers("b") == []
