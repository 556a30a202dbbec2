"""One thread begins a snapshot while another polls."""

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
