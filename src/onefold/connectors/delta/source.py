"""A Delta table as a stream: the rows that are there, and then the rows of every later version.

Position: {"version", "file", "row"}, the next to read: a version's files in the order of its log entry, and a row in
one. With "snapshot" the files are all those of that version. Read from the log itself: deltalake gives a version's
whole content, or changes in no settled order.
Source: Delta Transaction Log Protocol, Add File and Remove File, Add CDC File.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs

from onefold.connectors.delta.location import Location
from onefold.connectors.delta.log import Log
from onefold.connectors.delta.segments import Place, Rows, Segment, Segments, reading
from onefold.connectors.delta.table import load
from onefold.errors import InvariantBroken, OnefoldError, SourceRefused, SourceUnavailable, check
from onefold.protocols import CheckResult, Limit, Read, SourcePromise
from onefold.types import Binding, PartitionId, Position

__all__ = ["DeltaSource"]

PARTITION = PartitionId("table")

_META = pa.schema([("_version", pa.int64()), ("_file", pa.string()), ("_offset", pa.int64())])
_POLL_SECONDS = 0.1
_REMOTE_POLL_SECONDS = 1.0


class DeltaSource:
    """Rows in the order of versions. `_version`, `_file` and `_offset` tell where a row stands.

    changes: rows are a change stream: each has `_op`, "upsert" or "delete".
    """

    memory: pa.Schema | None = None

    def __init__(self, location: Location, *, from_version: int | None, changes: bool) -> None:
        self._location = location
        self._from_version = from_version
        self._changes = changes
        self._closed = threading.Event()
        self._files: fs.FileSystem | None = None
        self._segments: Segments | None = None
        self._schema = pa.schema([])
        self._rows_at: tuple[tuple[int, bool, int], Rows] | None = None

    @property
    def promise(self) -> SourcePromise:
        """Replayable while the table keeps its versions."""
        return SourcePromise(
            is_replayable=True,
            is_ordered=True,
            payload="rows",
            meta=_META,
            gap="a version whose log entry or files are gone is named",
            isolation="readers see whole versions only",
            conditions=(
                "delta.logRetentionDuration and the retention of VACUUM are longer than the longest downtime",
                *(() if self._changes else ("rows are only appended: a version that takes rows back stops the flow",)),
            ),
        )

    def sees(self, target: str) -> bool:
        """Whether this is the table that is written."""
        return target == self._location.target

    def open(self, remembered: pa.Table | None) -> None:
        """Raises SourceUnavailable, SourceRefused, SettingMissing, ExtraMissing."""
        self.close()
        self._closed.clear()
        check(remembered is None or not len(remembered), "this source remembers nothing")
        handle = self._handle()
        _refuse_mapped(handle, self._location.label)
        self._schema = _schema_of(handle)
        files, root = self._location.files()
        self._segments = Segments(self._location, Log(files, root), changes=self._changes)
        self._files = fs.SubTreeFileSystem(root, files) if root else files

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """One; a new flow begins with the rows that are there now."""
        newest = int(self._handle().version())
        first = self._from_version
        earliest = Place(newest, is_snapshot=True) if first is None else Place(first)
        return {PARTITION: (earliest.position(), None)}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Rows from the position on. Raises InputLost, SourceError for what an append-only reader cannot tell."""
        check(partition == PARTITION, "a table has one partition", found=partition)
        place, until = Place.of(start), None if limit.until is None else Place.of(limit.until)
        batches, place = self._gather(place, limit, until)
        waited = 0.0
        pause = _POLL_SECONDS if self._location.local else _REMOTE_POLL_SECONDS
        while not batches and place == Place.of(start) and waited < wait_seconds:
            if self._closed.wait(min(pause, wait_seconds - waited)):
                break
            waited += pause
            batches, place = self._gather(place, limit, until)
        return Read(batches, place.position(), is_idle=not batches and place == Place.of(start))

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Nothing: versions belong to the table."""

    def close(self) -> None:
        """Close the file in hand, and end a read that waits."""
        self._closed.set()
        self._rows_at = None

    def infer_schema(self) -> pa.Schema:
        """The table's columns, and `_op` of changes. Raises SourceUnavailable, SourceRefused."""
        schema = _schema_of(self._handle())
        return schema.append(pa.field("_op", pa.string())) if self._changes else schema

    def check(self, binding: Binding | None) -> list[CheckResult]:
        """Is the table there, and can it be read?"""
        try:
            handle = self._handle()
            _refuse_mapped(handle, self._location.label)
        except OnefoldError as error:
            return [CheckResult(self._location.label, "failed", str(error.found or error.summary), error.next_step)]
        return [CheckResult(self._location.label, "ok", f"is at version {handle.version()}")]

    def _handle(self) -> Any:
        handle = load(self._location, SourceUnavailable)
        if handle is None:
            raise SourceUnavailable(f"{self._location.label} is not there.")
        return handle

    def _gather(self, place: Place, limit: Limit, until: Place | None) -> tuple[list[pa.RecordBatch], Place]:
        """As much as may be read now; none and the same place when nothing is there."""
        if self._segments is None or self._files is None:
            raise InvariantBroken("A source was read before it was opened.", source=self._location.label)
        taken: list[pa.RecordBatch] = []
        rows, size = 0, 0
        while rows < limit.rows and size < limit.size_bytes and (until is None or place < until):
            segments = self._segments.of(place)
            if segments is None:
                break
            if place.file >= len(segments):
                following = Place(place.version + 1)
                if self._segments.of(following) is None:
                    break
                place = following
                continue
            segment = segments[place.file]
            most = limit.rows - rows
            if until is not None and (until.version, until.file) == (place.version, place.file):
                most = min(most, until.row - place.row)
            batch, count, is_last = self._rows(segment, place, most, limit.size_bytes - size)
            if batch.num_rows:
                taken.append(batch)
                rows, size = rows + batch.num_rows, size + batch.nbytes
            place = place.next_file() if is_last else place.after(count)
        return taken, place

    def _rows(self, segment: Segment, place: Place, most: int, size_bytes: int) -> tuple[pa.RecordBatch, int, bool]:
        """(rows, how many of the file they are, whether the file ends there)."""
        with reading(segment, self._location.label, place):
            key, at_hand = (place.version, place.is_snapshot, place.file), self._rows_at
            if at_hand is None or at_hand[0] != key:
                at_hand = key, Rows(segment, self._files, self._schema)
                self._rows_at = at_hand
            rows = at_hand[1]
            part = rows.at(place.row).slice(0, most)
        if part.nbytes > size_bytes and part.num_rows > 1:
            part = part.slice(0, max(1, part.num_rows * size_bytes // part.nbytes))
        count = part.num_rows
        offsets = pa.array(range(place.row, place.row + count), pa.int64())
        part = part.append_column("_version", pa.repeat(pa.scalar(place.version, pa.int64()), count))
        part = part.append_column("_file", pa.repeat(pa.scalar(segment.path), count)).append_column("_offset", offsets)
        kept = segment.chosen(part, with_op=self._changes)
        return _one_batch(kept), count, place.row + count >= rows.count


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], rows.schema)


def _schema_of(handle: Any) -> pa.Schema:
    return pa.schema([pa.field(field.name, field.type) for field in pa.schema(handle.schema())])


def _refuse_mapped(handle: Any, label: str) -> None:
    if handle.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise SourceRefused(
            f"{label} cannot be read: its columns are mapped (delta.columnMapping.mode).",
            next_step="Read a table without column mapping.",
        )
