"""Snapshots of the state: one file an epoch, written in the background, verified before it is used.

A file is: magic (16 bytes), blocks, footer, digest of the footer (16), length of the footer (8, little-endian), end
magic (16). A block is an Arrow IPC stream (LZ4) of one record batch. The footer is JSON: the epoch, its seal id, and
for every table its blocks as [offset, length, rows, digest]. Digests are XXH3-128. Blocks lie one behind the other
without gaps, so every byte of the file is covered by a digest or compared with what it must be.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import xxhash

from onefold import disk
from onefold.errors import FileCorrupt, check
from onefold.state.blocks import FrozenTable
from onefold.types import EpochNumber, SealId

__all__ = ["LoadedSnapshot", "LoadedTable", "SnapshotStore"]

_MAGIC = b"onefold snap v1\n"
_END = b"\nend of snapshot"
_TRAILER_BYTES = 16 + 8 + len(_END)
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class LoadedTable:
    """One table of a snapshot: how many rows, and its blocks."""

    rows: int
    path: Path
    index: tuple[tuple[int, int, int, str], ...]

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """The rows, one block in memory at a time. Raises FileCorrupt."""
        with self.path.open("rb") as file:
            for offset, length, _, digest in self.index:
                payload = _read_block(file, self.path, offset, length, digest)
                with pa.ipc.open_stream(payload) as stream:
                    yield from stream


@dataclass(frozen=True)
class LoadedSnapshot:
    """The state at the end of one epoch. note: what is odd, for people (a newer file is corrupt); "" if nothing."""

    epoch: EpochNumber
    seal: SealId
    tables: Mapping[str, LoadedTable]
    note: str = ""


class SnapshotStore:
    """A folder of snapshots of one flow, written by one process.

    Args:
        folder: is made when missing. Unfinished files of earlier incarnations in it are removed.
        keep: how many snapshots to keep, two at least.
        incarnation: the process's. It neither sees nor removes what later ones wrote: it may have slept since its
            start, and its successor's state would be gone (INV-2).
    """

    def __init__(self, folder: Path, *, keep: int = 2, incarnation: int = 0) -> None:
        check(keep >= 2, "at least two snapshots are kept", found=keep)
        self._incarnation = incarnation
        self._folder = folder
        self._keep = keep
        self._thread: threading.Thread | None = None
        self._epoch = EpochNumber(0)
        self._failure: BaseException | None = None
        self._corrupt: set[EpochNumber] = set()
        disk.make_folder(folder)
        for leftover in self._files("part").values():
            disk.remove(leftover, step="snapshot.clean")

    def begin(self, epoch: EpochNumber, seal: SealId, tables: Mapping[str, FrozenTable]) -> None:
        """Start to write the tables, frozen at the end of this epoch, in a thread of its own; returns at once.

        One at a time: `poll` must have told of the last one. If killed inside: the snapshot is there or it is not.
        """
        check(self._thread is None, "one snapshot is written at a time", epoch=epoch)
        check(all(epoch > other for other in self.epochs()), "snapshots have rising epochs", epoch=epoch)
        self._epoch = epoch
        self._failure = None
        thread = threading.Thread(
            target=self._run, args=(epoch, seal, dict(tables)), name="onefold-snapshot", daemon=True
        )
        thread.start()
        self._thread = thread  # last: another thread may poll meanwhile

    def poll(self) -> EpochNumber | None:
        """The epoch of a snapshot that has become durable since the last call, else None. Does not block.

        Raises what the writing raised (DiskFull, DiskFailed); the state in memory is unharmed.
        """
        if self._thread is None or self._thread.is_alive():
            return None
        return self.wait()

    def wait(self) -> EpochNumber | None:
        """As `poll`, but blocks until the snapshot that is being written is done; None if there is none."""
        if self._thread is None:
            return None
        self._thread.join()
        epoch, failure = self._epoch, self._failure
        self._thread = None  # last: from now on another thread may begin the next one
        if failure is not None:
            raise failure
        return epoch

    @property
    def is_writing(self) -> bool:
        """Whether a snapshot was begun that `poll` has not told of yet."""
        return self._thread is not None

    def epochs(self) -> list[EpochNumber]:
        """Of the snapshots on disk, ascending."""
        return sorted(self._files("snapshot"))

    def oldest_needed(self) -> EpochNumber:
        """Deltas of epochs after this one must be kept: the oldest of at least two snapshots, else 0 (all)."""
        sound = self._trusted()
        return sound[-self._keep :][0] if len(sound) >= 2 else EpochNumber(0)

    def load_latest(self, at_most_epoch: EpochNumber) -> LoadedSnapshot | None:
        """The newest sound snapshot not after this epoch, every byte verified; None when there is none at all.

        A corrupt one falls back to the one before, with a note. Raises FileCorrupt when no other is left.
        """
        failures: list[FileCorrupt] = []
        for epoch in reversed(self.epochs()):
            if epoch > at_most_epoch:
                continue
            try:
                loaded = _verify(self._files("snapshot")[epoch], epoch)
            except FileCorrupt as failure:
                failures.append(failure)
                self._corrupt.add(epoch)
                continue
            note = "; ".join(f"{failure.where['file']} is corrupt ({failure.found})" for failure in failures)
            if note:
                note += f"; the snapshot of epoch {epoch} and the deltas after it are used instead"
            return LoadedSnapshot(loaded.epoch, loaded.seal, loaded.tables, note)
        if failures:
            raise failures[0]
        return None

    def discard_after(self, epoch: EpochNumber) -> None:
        """Remove the snapshots of later epochs: the journal does not hold the history that they belong to."""
        for other, path in self._files("snapshot").items():
            if other > epoch:
                disk.remove(path, step="snapshot.drop")

    def _trusted(self) -> list[EpochNumber]:
        """All but those that this process found corrupt: they must not count as one of the two that are kept."""
        return [epoch for epoch in self.epochs() if epoch not in self._corrupt]

    def _files(self, suffix: str) -> dict[EpochNumber, Path]:
        """By epoch, those of this and earlier incarnations; of two for one epoch the later incarnation's."""
        found: dict[EpochNumber, tuple[int, Path]] = {}
        for path in self._folder.glob(f"*.{suffix}"):
            epoch, _, incarnation = path.stem.partition("-")
            check(epoch.isdigit() and incarnation.isdigit(), "snapshots are named by epoch and incarnation", file=path)
            number = EpochNumber(int(epoch))
            if found.get(number, (-1, path))[0] < int(incarnation) <= self._incarnation:
                found[number] = (int(incarnation), path)
        return {number: path for number, (_, path) in found.items()}

    def _run(self, epoch: EpochNumber, seal: SealId, tables: dict[str, FrozenTable]) -> None:
        try:
            final = self._folder / f"{epoch:020d}-{self._incarnation}.snapshot"
            part = final.with_suffix(".part")
            disk.remove(part, step="snapshot.clean")
            disk.write_synced(part, _encode(epoch, seal, tables), step="snapshot.write")
            disk.publish(part, final, step="snapshot.publish")
            kept = self._trusted()[-self._keep :]
            for other, path in self._files("snapshot").items():
                if other not in kept:
                    disk.remove(path, step="snapshot.drop")
        except BaseException as failure:  # noqa: BLE001  handed to the thread that polls
            self._failure = failure
        finally:
            for table in tables.values():
                table.close()


def _encode(epoch: EpochNumber, seal: SealId, tables: Mapping[str, FrozenTable]) -> Iterator[bytes | memoryview]:
    """The bytes of a file, block by block."""
    yield _MAGIC
    offset = len(_MAGIC)
    listed: dict[str, list[tuple[int, int, int, str]]] = {}
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    for name, table in tables.items():
        listed[name] = []
        for batch in table.blocks():
            if batch.num_rows == 0:
                continue
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
                writer.write_batch(batch)
            payload = memoryview(sink.getvalue())
            listed[name].append((offset, len(payload), batch.num_rows, xxhash.xxh3_128_hexdigest(payload)))
            offset += len(payload)
            yield payload
    footer = json.dumps({"epoch": epoch, "seal": seal, "tables": listed}).encode()
    yield footer + xxhash.xxh3_128_digest(footer) + len(footer).to_bytes(8, "little") + _END


def _verify(path: Path, epoch: EpochNumber) -> LoadedSnapshot:
    """Read the whole file once. Raises FileCorrupt unless every byte is what was written."""
    with path.open("rb") as file:
        footer = _read_footer(file, path)
        _expect(path, footer["epoch"] == epoch, f"it holds epoch {footer['epoch']}")
        tables: dict[str, LoadedTable] = {}
        offset = len(_MAGIC)
        for name, blocks in footer["tables"].items():
            for start, length, _, digest in blocks:
                _expect(path, start == offset, "its blocks are not in order")
                _read_block(file, path, start, length, digest)
                offset += length
            tables[name] = LoadedTable(sum(block[2] for block in blocks), path, tuple(map(tuple, blocks)))
        _expect(path, offset == footer["start"], "its blocks do not end where its footer begins")
    return LoadedSnapshot(epoch, SealId(footer["seal"]), tables)


def _read_footer(file: BinaryIO, path: Path) -> dict[str, Any]:
    size = file.seek(0, 2)
    _expect(path, size >= len(_MAGIC) + _TRAILER_BYTES, f"it has {size} bytes only")
    file.seek(0)
    _expect(path, file.read(len(_MAGIC)) == _MAGIC, "it does not begin as a snapshot of this version does")
    file.seek(size - _TRAILER_BYTES)
    trailer = file.read(_TRAILER_BYTES)
    _expect(path, trailer[-len(_END) :] == _END, "its end is missing")
    length = int.from_bytes(trailer[_DIGEST_BYTES : _DIGEST_BYTES + 8], "little")
    start = size - _TRAILER_BYTES - length
    _expect(path, start >= len(_MAGIC), "its footer has an impossible length")
    file.seek(start)
    text = file.read(length)
    _expect(path, xxhash.xxh3_128_digest(text) == trailer[:_DIGEST_BYTES], "the checksum of its footer is wrong")
    footer: dict[str, Any] = json.loads(text)
    footer["start"] = start
    return footer


def _read_block(file: BinaryIO, path: Path, offset: int, length: int, digest: str) -> bytes:
    file.seek(offset)
    payload = file.read(length)
    _expect(path, xxhash.xxh3_128_hexdigest(payload) == digest, f"the checksum of its block at {offset} is wrong")
    return payload


def _expect(path: Path, holds: bool, found: str) -> None:
    if not holds:
        raise FileCorrupt(
            "A snapshot of the state is corrupt.",
            file=path,
            found=found,
            expected="the bytes that were written",
            next_step=(
                "Restore this file from a backup. If the journal still has all deltas since an older snapshot, or "
                "since the beginning, remove this file and run again; else `onefold reset` the flow. "
                "No sink was written to."
            ),
        )
