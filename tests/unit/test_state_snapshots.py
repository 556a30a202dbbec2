"""Snapshots hold the state of exactly one epoch, and a damaged one is never believed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from onefold import disk
from onefold.errors import DiskFull, FileCorrupt, InvariantBroken
from onefold.state.keyset import KeySet
from onefold.state.snapshots import LoadedSnapshot, SnapshotStore
from onefold.state.table import KeyedTable
from onefold.types import EpochNumber, SealId

KEY = b"0123456789abcdef"
SEAL = SealId("0" * 32)


class Counters:
    """A table and a key set that at the end of epoch e hold nothing but e in every one of their rows."""

    def __init__(self, keys: int) -> None:
        self.keys = pa.array(range(keys), pa.int64())
        self.table = KeyedTable("counts", pa.schema([("k", pa.int64())]), pa.schema([("v", pa.int64())]), hash_key=KEY)
        self.seen = KeySet("seen", KEY, 0)
        self.epoch = 0

    def step(self) -> None:
        self.epoch += 1
        values = pa.array(np.full(len(self.keys), self.epoch))
        self.table.upsert(pa.table([self.keys, values], schema=self.table.schema))
        self.seen.first_seen(self.seen.hash([self.keys]), np.full(len(self.keys), self.epoch))
        self.seen.expire(self.epoch)

    def freeze(self) -> dict[str, Any]:
        return {"counts": self.table.freeze(), "seen": self.seen.freeze()}


def epochs_in(loaded: LoadedSnapshot, keys: int) -> set[int]:
    """Every epoch that a value of the snapshot comes from; also checks that no key is missing or double."""
    counts = pa.Table.from_batches(loaded.tables["counts"].blocks())
    assert sorted(counts.column("k").to_pylist()) == list(range(keys))
    seen = pa.Table.from_batches(loaded.tables["seen"].blocks())
    assert seen.num_rows == keys + 1
    return set(counts.column("v").to_pylist()) | set(seen.column("time").to_pylist())


def write(store: SnapshotStore, epoch: int, tables: dict[str, Any]) -> None:
    store.begin(EpochNumber(epoch), SEAL, tables)
    assert store.wait() == epoch


def small(epoch: int) -> dict[str, Any]:
    state = Counters(100)
    state.epoch = epoch - 1
    state.step()
    return state.freeze()


def store_with(folder: Path, *epochs: int) -> SnapshotStore:
    store = SnapshotStore(folder)
    for epoch in epochs:
        write(store, epoch, small(epoch))
    return store


def path_of(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch:020d}-0.snapshot"


def test_a_snapshot_is_the_state_of_exactly_one_epoch_while_epochs_go_on(tmp_path: Path) -> None:
    keys = 60_000
    state, store = Counters(keys), SnapshotStore(tmp_path, keep=50)
    gate = threading.Event()
    state.step()
    for _ in range(3):
        expected = state.epoch
        gate.clear()
        frozen = state.freeze()
        frozen["seen"] = Gated(frozen["seen"], gate)
        store.begin(EpochNumber(expected), SEAL, frozen)
        for step in range(4):
            state.step()
            if step == 1:
                gate.set()
        assert store.wait() == expected
        loaded = store.load_latest(EpochNumber(expected))
        assert loaded is not None
        assert epochs_in(loaded, keys) == {expected}


class Gated:
    """A frozen table whose blocks come one by one, the first before and the others after the gate opens."""

    def __init__(self, frozen: Any, gate: threading.Event) -> None:
        self.frozen, self.gate, self.schema = frozen, gate, frozen.schema

    def blocks(self) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(self.frozen.blocks()):
            if number == 1:
                assert self.gate.wait(timeout=60)
            yield batch

    def close(self) -> None:
        self.frozen.close()


def test_the_check_for_one_epoch_sees_a_mixture(tmp_path: Path) -> None:
    state, store = Counters(1_000), SnapshotStore(tmp_path)
    state.step()
    counts = state.table.freeze()
    state.step()
    write(store, 1, {"counts": counts, "seen": state.seen.freeze()})
    loaded = store.load_latest(EpochNumber(1))
    assert loaded is not None
    assert epochs_in(loaded, 1_000) == {1, 2}


def test_poll_tells_once_when_the_snapshot_is_durable(tmp_path: Path) -> None:
    store, gate = SnapshotStore(tmp_path), threading.Event()
    assert store.poll() is None
    tables = small(3)
    tables["seen"] = Gated(tables["seen"], gate)
    store.begin(EpochNumber(3), SEAL, tables)
    assert store.poll() is None
    assert store.is_writing
    assert store.epochs() == []
    with pytest.raises(InvariantBroken, match="one snapshot is written at a time"):
        store.begin(EpochNumber(4), SEAL, {})
    gate.set()
    assert store.wait() == 3
    assert store.poll() is None
    assert store.epochs() == [3]


def test_two_are_kept_and_deltas_back_to_the_older_one(tmp_path: Path) -> None:
    store = store_with(tmp_path)
    assert store.load_latest(EpochNumber(9)) is None
    assert store.oldest_needed() == 0
    write(store, 1, small(1))
    assert store.oldest_needed() == 0
    write(store, 5, small(5))
    assert store.oldest_needed() == 1
    write(store, 9, small(9))
    assert (store.epochs(), store.oldest_needed()) == ([5, 9], 5)
    with pytest.raises(InvariantBroken, match="rising"):
        store.begin(EpochNumber(9), SEAL, {})
    with pytest.raises(InvariantBroken, match="at least two"):
        SnapshotStore(tmp_path, keep=1)


def test_the_newest_not_after_the_asked_epoch_is_loaded(tmp_path: Path) -> None:
    store = store_with(tmp_path, 3, 7)
    for asked, expected in ((2, None), (3, 3), (6, 3), (7, 7), (100, 7)):
        loaded = store.load_latest(EpochNumber(asked))
        assert (loaded and loaded.epoch) == expected
    loaded = store.load_latest(EpochNumber(7))
    assert loaded is not None
    assert (loaded.seal, loaded.note, loaded.tables["counts"].rows) == (SEAL, "", 100)
    store.discard_after(EpochNumber(5))
    assert store.epochs() == [3]


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    store = store_with(tmp_path, 3)
    path = path_of(tmp_path, 3)
    whole = path.read_bytes()
    spots = sorted({*range(0, len(whole), 29), *range(40), *range(len(whole) - 60, len(whole))})
    for spot in spots:
        damaged = bytearray(whole)
        damaged[spot] ^= 1 << (spot % 8)
        path.write_bytes(damaged)
        with pytest.raises(FileCorrupt) as caught:
            store.load_latest(EpochNumber(3))
        assert str(path) in str(caught.value)
        assert "next:" in str(caught.value)
    path.write_bytes(whole)
    assert store.load_latest(EpochNumber(3)) is not None


def test_a_file_that_is_too_short_or_too_long_is_noticed(tmp_path: Path) -> None:
    store = store_with(tmp_path, 3)
    path = path_of(tmp_path, 3)
    whole = path.read_bytes()
    for size in (0, 1, 16, 55, 56, len(whole) // 2, len(whole) - 41, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FileCorrupt):
            store.load_latest(EpochNumber(3))
    for longer in (whole + b"\0", whole[:200] + b"\0" + whole[200:], whole + whole):
        path.write_bytes(longer)
        with pytest.raises(FileCorrupt):
            store.load_latest(EpochNumber(3))


def test_a_file_under_another_epochs_name_is_not_believed(tmp_path: Path) -> None:
    store = store_with(tmp_path, 3)
    path_of(tmp_path, 3).rename(path_of(tmp_path, 4))
    with pytest.raises(FileCorrupt, match="corrupt"):
        store.load_latest(EpochNumber(9))


def test_a_corrupt_newest_falls_back_with_a_note_and_does_not_count_as_kept(tmp_path: Path) -> None:
    store = store_with(tmp_path, 3, 7)
    damaged = bytearray(path_of(tmp_path, 7).read_bytes())
    damaged[60] ^= 1
    path_of(tmp_path, 7).write_bytes(damaged)
    store = SnapshotStore(tmp_path)
    loaded = store.load_latest(EpochNumber(8))
    assert loaded is not None
    assert loaded.epoch == 3
    assert epochs_in(loaded, 100) == {3}
    assert str(path_of(tmp_path, 7)) in loaded.note
    assert store.oldest_needed() == 0
    write(store, 9, small(9))
    assert (store.epochs(), store.oldest_needed()) == ([3, 9], 3)
    for epoch in (3, 9):
        path_of(tmp_path, epoch).write_bytes(b"")
    with pytest.raises(FileCorrupt):
        store.load_latest(EpochNumber(9))


def test_unfinished_files_are_never_loaded_and_are_cleared(tmp_path: Path) -> None:
    store_with(tmp_path, 3)
    path_of(tmp_path, 5).with_suffix(".part").write_bytes(b"half")
    store = SnapshotStore(tmp_path)
    assert store.epochs() == [3]
    assert list(tmp_path.glob("*.part")) == []


def test_a_failed_write_is_raised_by_poll_and_leaves_the_older_ones(tmp_path: Path, monkeypatch: Any) -> None:
    store = store_with(tmp_path, 3)

    def full(step: str, moment: str) -> None:
        if (step, moment) == ("snapshot.publish", "before"):
            raise DiskFull(where="snapshot")

    monkeypatch.setattr(disk, "observer", full)
    store.begin(EpochNumber(5), SEAL, small(5))
    with pytest.raises(DiskFull):
        store.wait()
    monkeypatch.setattr(disk, "observer", None)
    assert store.epochs() == [3]
    write(store, 5, small(5))
    assert store.epochs() == [3, 5]


def test_the_name_is_given_after_the_bytes_are_synced_and_old_ones_go_last(tmp_path: Path, monkeypatch: Any) -> None:
    store = store_with(tmp_path, 1, 2)
    steps: list[str] = []
    monkeypatch.setattr(disk, "observer", lambda step, moment: steps.append(f"{moment} {step}"))
    write(store, 3, small(3))
    assert [step for step in steps if "clean" not in step] == [
        "before snapshot.write", "after snapshot.write", "before snapshot.publish", "after snapshot.publish",
        "before snapshot.drop", "after snapshot.drop",
    ]  # fmt: skip


def test_empty_tables_are_kept_too(tmp_path: Path) -> None:
    state = Counters(0)
    store = SnapshotStore(tmp_path)
    write(store, 1, {"counts": state.table.freeze(), "seen": state.seen.freeze()})
    loaded = store.load_latest(EpochNumber(1))
    assert loaded is not None
    assert {name: table.rows for name, table in loaded.tables.items()} == {"counts": 0, "seen": 0}
    state.table.load(loaded.tables["counts"].blocks())
    assert len(state.table) == 0
