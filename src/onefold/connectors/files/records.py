"""Records of one segment: lines and CSV records cut out of blocks of bytes, or rows of a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from onefold.connectors.files.blocks import BlockPool
from onefold.connectors.files.bytesin import TAIL_BYTES, open_bytes
from onefold.errors import SourceError
from onefold.formats.lines import MAX_RECORD_BYTES, split_records
from onefold.formats.lines import Records as Split

__all__ = ["Cut", "LineOptions", "Records", "lines_of", "rows_of_parquet"]

BLOCK_BYTES = 16 << 20
"""Read at a time. Together with a record that is not whole yet, the most that a source holds."""

_POOLED_BYTES = BLOCK_BYTES + (1 << 20)
_SMALL_BYTES = 1 << 20
_pool = BlockPool(_POOLED_BYTES)

_PARQUET_ROWS = 65_536


@dataclass(frozen=True)
class Cut:
    """Some records: their columns, the offset of each, and a bound on their bytes."""

    columns: dict[str, pa.Array]
    offsets: pa.Array
    size_bytes: int

    def __len__(self) -> int:
        return len(self.offsets)


class Records(Protocol):
    """Reads one segment of a file forward."""

    at: int
    """The offset of the next record: bytes, or rows of a Parquet file."""

    def take(self, rows: int, size_bytes: int, stop: int | None, is_finished: Callable[[], bool]) -> Cut | None:
        """At most so much, at least a record; None when no whole record is there before `stop`.

        is_finished is asked at the end of the file: then an unterminated last line is a record.
        """
        ...

    def unread(self) -> int:
        """How much is there now beyond `at`; negative when the file shrank."""
        ...

    def sum(self) -> str:
        """A digest of what stands right before `at`: it shows that the file is still the one that was read."""
        ...

    def inode(self) -> int:
        """Which file this is."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Splitter(Protocol):
    """Cuts a buffer that begins where a record begins; see formats.lines.split_records."""

    def __call__(self, buffer: pa.Buffer, *, is_final: bool, max_record_bytes: int) -> Split:
        """The whole records in the buffer."""
        ...


@dataclass(frozen=True)
class LineOptions:
    """How bytes are cut into records.

    has_header: the first record of a file is none; check_header is given it and the file's path, and may refuse.
    """

    split: Splitter = split_records
    max_record_bytes: int = MAX_RECORD_BYTES
    has_header: bool = False
    check_header: Callable[[bytes, str], None] | None = None


def lines_of(path: Path, compression: str, at: int, options: LineOptions) -> Records:
    """Lines from uncompressed byte `at` on. Raises OSError, SourceError."""
    return _Lines(path, compression, at, options)


def rows_of_parquet(path: Path, at: int) -> Records:
    """Rows from row `at` on. Raises OSError; SourceError when it is no Parquet file."""
    return _ParquetRows(path, at)


class _Lines:
    def __init__(self, path: Path, compression: str, at: int, options: LineOptions) -> None:
        self._stream = open_bytes(path, compression, at)
        self._options = options
        self._path = path
        self.at = at
        self._has_header = options.has_header and at == 0
        self._before = self._stream.before  # bytes right before the block
        self._base = at  # offset of the block's first byte
        self._block: pa.Buffer = pa.py_buffer(b"")
        self._values: pa.Array = pa.array([], pa.large_binary())
        self._starts: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._ends = self._starts  # where each record's bytes end, its line end included
        self._next = 0
        self._end = at  # offset after the block's last whole record
        self._is_at_end = False

    def take(self, rows: int, size_bytes: int, stop: int | None, is_finished: Callable[[], bool]) -> Cut | None:
        if self._next >= len(self._starts) and not self._fill(stop, is_finished):
            return None
        first = self._next
        if first < len(self._starts):
            fitting = int(np.searchsorted(self._ends, self._starts[first] + size_bytes, "right"))
            stopping = len(self._starts) if stop is None else int(np.searchsorted(self._starts, stop, "left"))
            self._next = min(max(fitting, first + 1), first + rows, stopping)
            if self._next == first:
                return None
        last = self._next
        before = self.at
        self.at = int(self._starts[last]) if last < len(self._starts) else self._end
        values = self._values.slice(first, last - first)
        return Cut({"_value": values}, pa.array(self._starts[first:last]), self.at - before)

    def unread(self) -> int:
        read_to = self._base + self._block.size
        waiting = self._stream.waiting(read_to)
        if waiting is None:
            return int(read_to - self.at) + int(not self._is_at_end)
        return -1 if waiting < 0 else int(read_to - self.at + waiting)

    def sum(self) -> str:
        return xxhash.xxh3_64_hexdigest(self._tail(self.at))

    def inode(self) -> int:
        return self._stream.inode()

    def close(self) -> None:
        self._stream.close()

    def _fill(self, stop: int | None, is_finished: Callable[[], bool]) -> bool:
        """Read a block after what is not whole yet, and cut it. False when that gives nothing new."""
        rest = bytes(memoryview(self._block)[self._end - self._base :])
        read_to = self._end + len(rest)
        block = self._read(rest, read_to, stop)
        if not block.size:
            return False
        is_final = self._end + block.size == stop if stop is not None else False
        is_final = is_final or (self._is_at_end and is_finished())
        if block.size == len(rest) and not is_final:
            return False
        self._before = self._tail(self._end)
        self._block = block
        self._base = self._end
        found = self._options.split(self._block, is_final=is_final, max_record_bytes=self._options.max_record_bytes)
        self._values, self._starts, self._next = found.values, found.starts + self._base, 0
        self._end = self._base + found.consumed
        self._ends = np.append(self._starts[1:], self._end)
        if self._has_header and len(self._starts):
            if self._options.check_header is not None:
                self._options.check_header(self._values[0].as_py(), str(self._path))
            self._next, self._has_header = 1, False
        return bool(len(self._starts))

    def _read(self, rest: bytes, read_to: int, stop: int | None) -> pa.Buffer:
        """The rest of the last block and what follows it in the file."""
        waiting = self._stream.waiting(read_to)
        room = BLOCK_BYTES if waiting is None else min(BLOCK_BYTES, max(waiting, 0))
        room = room if stop is None else min(room, max(stop - read_to, 0))
        size = len(rest) + room
        is_pooled = _SMALL_BYTES < size <= _POOLED_BYTES
        block = _pool.take() if is_pooled else pa.allocate_buffer(size)
        octets = memoryview(block).cast("B")
        octets[: len(rest)] = rest
        count = self._stream.read_into(octets[len(rest) : size]) if room else 0
        self._is_at_end = count < room or (waiting is not None and count == waiting)
        return block.slice(0, len(rest) + count)

    def _tail(self, at: int) -> bytes:
        """The last bytes before an offset of the block."""
        shown = memoryview(self._block)[max(at - self._base - TAIL_BYTES, 0) : at - self._base]
        return (self._before + bytes(shown))[-TAIL_BYTES:]


class _ParquetRows:
    def __init__(self, path: Path, at: int) -> None:
        self._handle = path.open("rb")
        try:
            self._file = pq.ParquetFile(self._handle)
        except pa.ArrowInvalid as error:
            self._handle.close()
            raise SourceError(
                f"{path.name} is not a whole Parquet file.",
                found=str(error).splitlines()[0],
                next_step="Write it anew, or say with complete= when files are finished.",
                file=path,
            ) from error
        self.at = at
        self._rows = self._file.metadata.num_rows
        self._batches = self._from(at)
        self._batch: pa.RecordBatch | None = None

    def take(self, rows: int, size_bytes: int, stop: int | None, is_finished: Callable[[], bool]) -> Cut | None:
        if self._batch is None or not self._batch.num_rows:
            self._batch = next(self._batches, None)
        if self._batch is None:
            return None
        fitting = max(1, int(size_bytes * self._batch.num_rows // max(self._batch.nbytes, 1)))
        count = min(rows, fitting, self._batch.num_rows, self._rows if stop is None else stop - self.at)
        if count <= 0:
            return None
        taken, self._batch = self._batch.slice(0, count), self._batch.slice(count)
        offsets = pa.array(np.arange(self.at, self.at + count, dtype=np.int64))
        self.at += count
        return Cut(dict(zip(taken.schema.names, taken.columns, strict=True)), offsets, taken.nbytes)

    def unread(self) -> int:
        return int(self._rows - self.at)

    def sum(self) -> str:
        return f"{self._rows} rows"

    def inode(self) -> int:
        return os.fstat(self._handle.fileno()).st_ino

    def close(self) -> None:
        self._file.close()
        self._handle.close()

    def _from(self, at: int) -> Iterator[pa.RecordBatch]:
        """Batches from row `at` on; row groups before it are not read."""
        metadata, first, group = self._file.metadata, 0, 0
        while group < metadata.num_row_groups and first + metadata.row_group(group).num_rows <= at:
            first += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        skip = at - first
        for batch in self._file.iter_batches(_PARQUET_ROWS, row_groups=groups) if groups else ():
            if skip < batch.num_rows:
                yield batch.slice(skip)
            skip = max(skip - batch.num_rows, 0)
