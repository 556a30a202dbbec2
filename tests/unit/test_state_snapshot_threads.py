"""One thread begins a snapshot while another polls; one process wakes after another has taken over."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from onefold.state.snapshots import SnapshotStore
from onefold.types import EpochNumber, SealId


def test_a_poll_while_a_snapshot_begins_finds_nothing_or_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotStore(tmp_path)
    start = threading.Thread.start
    polled: list[EpochNumber | None] = []

    def poll_then_start(thread: threading.Thread) -> None:
        polled.append(store.poll())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", poll_then_start)
    store.begin(EpochNumber(1), SealId("a"), {})
    assert polled == [None]
    assert store.wait() == 1
    assert store.epochs() == [1]


def test_what_was_told_of_a_snapshot_is_not_mixed_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotStore(tmp_path)
    store.begin(EpochNumber(1), SealId("a"), {})
    join = threading.Thread.join
    told: list[bool] = []

    def join_and_look(thread: threading.Thread, timeout: float | None = None) -> None:
        join(thread, timeout)
        told.append(store.is_writing)

    monkeypatch.setattr(threading.Thread, "join", join_and_look)
    assert store.wait() == 1
    assert told == [True], "until its epoch was read, no other may begin"
    assert not store.is_writing


def test_a_process_that_slept_neither_sees_nor_removes_what_its_successor_wrote(tmp_path: Path) -> None:
    zombie = SnapshotStore(tmp_path, incarnation=3)
    for epoch in (4, 5):
        zombie.begin(EpochNumber(epoch), SealId("a"), {})
        zombie.wait()
    successor = SnapshotStore(tmp_path, incarnation=7)
    for epoch in (8, 9):
        successor.begin(EpochNumber(epoch), SealId("b"), {})
        successor.wait()
    (tmp_path / f"{12:020d}-7.part").write_bytes(b"under way")
    zombie.discard_after(EpochNumber(0))
    zombie.begin(EpochNumber(6), SealId("a"), {})
    zombie.wait()
    woken = SnapshotStore(tmp_path, incarnation=3)
    assert (woken.epochs(), woken.oldest_needed()) == ([6], 0)
    assert (successor.epochs(), successor.oldest_needed()) == ([6, 8, 9], 8)
    assert (tmp_path / f"{12:020d}-7.part").exists()
    assert SnapshotStore(tmp_path, incarnation=8).load_latest(EpochNumber(9)).seal == "b"  # type: ignore[union-attr]
    assert not (tmp_path / f"{12:020d}-7.part").exists()
