"""What a process that slept finds when it wakes, and that it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.connectors.memory.source import MemorySource
from onefold.engines.embedded import opening
from onefold.engines.embedded.runner import Run
from onefold.errors import DiskFailed, Fenced, FileCorrupt, InputLost
from onefold.journal import SqliteJournal
from onefold.protocols import JournalRecord
from onefold.types import RecordNumber
from tests.unit.engine_bench import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


@pytest.mark.parametrize("is_overtaken", [True, False])
def test_state_that_a_successor_freed_is_no_damage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, is_overtaken: bool
) -> None:
    flow = bench.flow("a")
    load = opening._load_state

    def slept(*args: Any) -> Any:
        monkeypatch.setattr(opening, "_load_state", load)
        if is_overtaken:
            bench.open(flow, is_locked=False).stop()
        raise FileCorrupt(file="gone")

    monkeypatch.setattr(opening, "_load_state", slept)
    with pytest.raises(Fenced if is_overtaken else FileCorrupt):
        bench.open(flow)


def test_a_process_that_was_overtaken_frees_nothing_in_the_journal(tmp_path: Path) -> None:
    zombie = SqliteJournal(tmp_path, new_id="a")
    for number in (1, 2, 3):
        zombie.append(RecordNumber(number), JournalRecord("start", {}, {"rows/a": b"x", "state/b": b"y"}))
    successor = SqliteJournal(tmp_path, new_id="b", is_locked=False)
    successor.append(RecordNumber(4), JournalRecord("start", {}))
    successor.drop_before(RecordNumber(3))
    for free in (lambda: zombie.strip(RecordNumber(4), prefix="state/"), lambda: zombie.drop_before(RecordNumber(2))):
        with pytest.raises(Fenced):
            free()
    kept = dict(successor.read(RecordNumber(1)))
    assert list(kept) == [3, 4], "and the mark of the first record has not gone back"
    assert set(kept[RecordNumber(3)].attachments) == {"rows/a", "state/b"}
    successor.close()
    zombie.close()


@pytest.mark.parametrize("is_halted", [True, False])
def test_a_failed_snapshot_does_not_hide_why_the_instance_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, is_halted: bool
) -> None:
    run = bench.open(bench.flow("a"))

    def fail() -> None:
        raise DiskFailed(where="a part that the successor cleaned away")

    monkeypatch.setattr(run.conductor.opened.snapshots, "wait", fail)
    run.conductor.halted = Fenced() if is_halted else None
    run.conductor.close()
    assert isinstance(run.conductor.halted, Fenced if is_halted else DiskFailed)


def test_what_goes_wrong_after_a_successor_started_is_put_down_to_it(bench: Bench) -> None:
    """Found by freezing a process: it woke, missed a file that its successor had freed, and called it damage."""
    run = bench.open(bench.flow("a"))
    bench.open(bench.flow("a"), is_locked=False).abandon()
    run.conductor.halted = FileCorrupt(file="gone")
    run.conductor.close()
    assert isinstance(run.conductor.halted, Fenced)
    assert isinstance(run.conductor.halted.__cause__, FileCorrupt)


def test_a_run_that_must_end_waits_for_no_more_input(tmp_path: Path) -> None:
    flow = of.Flow("ends")
    flow.read(of.memory("ends-in"), schema={"id": "BIGINT"}, format="json").append(of.memory("ends-out"))
    run = Run(flow.plan, tmp_path)
    run._must_end.set()  # as after a halt, when the reader could not say that it had ended
    computing = threading.Thread(target=run._compute, daemon=True)
    computing.start()
    computing.join(10)
    assert not computing.is_alive()


@pytest.mark.parametrize("is_overtaken", [True, False])
def test_input_that_a_successor_let_the_source_forget_is_no_loss(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, is_overtaken: bool
) -> None:
    """The slot was moved on by the successor's settling, and the process that slept reads from before it."""
    flow = bench.flow("a")
    bench.feed(1)
    read = MemorySource.read

    def slept(*_: Any) -> Any:
        monkeypatch.setattr(MemorySource, "read", read)
        if is_overtaken:
            bench.open(flow, is_locked=False).stop()
        raise InputLost("The slot was moved on by somebody else.")

    monkeypatch.setattr(MemorySource, "read", slept)
    with (
        Run(flow.plan, bench.folder, until="drained", is_locked=False) as run,
        pytest.raises(Fenced if is_overtaken else InputLost),
    ):
        run.wait()
