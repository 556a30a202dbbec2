"""Files as a stream: one partition, the order in which the journal admitted the files."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Literal

import pyarrow as pa

from onefold.clock import SystemClock
from onefold.connectors.files.admission import MEMORY, Admissions, Place, Segment
from onefold.connectors.files.candidates import Candidates
from onefold.connectors.files.cursor import Cursor
from onefold.connectors.files.encoding import DATA_SET_SUFFIXES
from onefold.connectors.files.listing import Completeness, FileKind, Pattern, compression_of
from onefold.connectors.files.records import LineOptions, Records, lines_of, rows_of_parquet
from onefold.connectors.spooling import resolved_path, target_path
from onefold.errors import InvariantBroken, SourceUnavailable, check
from onefold.protocols import CheckResult, Clock, Limit, Read, Reading, SourcePromise
from onefold.types import Binding, PartitionId, Position

__all__ = ["FilesSource"]

PARTITION = PartitionId("files")

_META = pa.schema([("_file", pa.dictionary(pa.int32(), pa.string())), ("_offset", pa.int64())])
_POLL_SECONDS = 0.05
_CONDITIONS = (
    "a file keeps its path and its bytes until the epochs that read it are settled; it may only grow",
    "a file that was read and is renamed keeps its inode; a copy of it under a new name is a new file",
    "a file that is rewritten or replaced after it was read is not read again (each run names it)",
)

LOG = logging.getLogger("onefold")


class FilesSource:
    """Reads the files that match a pattern, those that appear later, and what is appended to them.

    Bytes come in `_value`, a record each; rows of Parquet files in their own columns. `_file` is the path below the
    pattern's leading folder, `_offset` the record's first byte (uncompressed) or its row.
    """

    def __init__(
        self,
        pattern: str,
        kind: FileKind,
        *,
        completeness: Completeness,
        options: LineOptions,
        clock: Clock | None = None,
    ) -> None:
        self._text = pattern
        self._kind = kind
        self._completeness = completeness
        self._options = options
        self._clock: Clock = clock or SystemClock()
        self._closed = threading.Event()
        self._admissions = Admissions(None)
        self._candidates: Candidates | None = None
        self._cursor: Cursor | None = None
        self._folder = Path()

    @property
    def format_name(self) -> str:
        """What decodes the records by default."""
        return self._kind.format_name

    @property
    def memory(self) -> pa.Schema:
        """One row for each admission; see admission.MEMORY."""
        return MEMORY

    @property
    def promise(self) -> SourcePromise:
        """Replayable as long as the files are there."""
        payload: Literal["bytes", "rows"] = "rows" if self._kind.layout == "parquet" else "bytes"
        conditions: tuple[str, ...] = _CONDITIONS
        if self._completeness.rule == "age":
            seconds = f"{self._completeness.age_seconds:g} s"
            conditions += (f"no writer pauses for {seconds} in the middle of a line, or of a compressed file",)
        return SourcePromise(
            is_replayable=True,
            is_ordered=True,
            payload=payload,
            meta=_META,
            gap="a file that vanished, shrank or was replaced before it was read is named, with where its loss begins",
            conditions=conditions,
        )

    def told(self, reading: Reading) -> None:
        """What the records will be decoded by: how CSV hides line ends, and which header its files must have."""
        if reading.format is None:
            return
        split = getattr(reading.format, "split", None)
        check_header = getattr(reading.format, "check_header", None)
        self._options = replace(
            self._options,
            split=split or self._options.split,
            has_header=bool(getattr(reading.format, "has_header", False)),
            check_header=check_header and (lambda record, where: check_header(record, reading.declared, where=where)),
        )

    def sees(self, target: str) -> bool:
        """Whether this is a data set whose files the pattern matches."""
        pattern = PurePath(target_path(self._text))
        kind, _, rest = target.partition(":")
        for suffix in DATA_SET_SUFFIXES:
            if kind == "files" and rest.endswith(suffix):
                folder = PurePath(rest.removesuffix(suffix))
                return folder.is_relative_to(pattern) or (folder / f"x{suffix}").match(str(pattern))
        return False

    def open(self, remembered: pa.Table | None) -> None:
        """Find the folder. Raises SourceUnavailable when it is not there, SettingMissing."""
        self.close()
        self._closed.clear()
        pattern = self._pattern()
        if not pattern.seen():
            LOG.warning("no file matches files(%s) yet", self._text)
        self._folder = pattern.base
        self._admissions = Admissions(remembered)
        self._candidates = Candidates(pattern, self._kind, self._admissions, self._clock)
        self._cursor = Cursor(self._candidates, self._admissions, self._kind, self._clock, self._records)
        self._cursor.seek(Place(0))

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """One. What is the latest position is not known without listing."""
        return {PARTITION: (Place(0).position(), None)}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Records from `start` on. Raises InputLost naming file and offset; SourceUnavailable; SourceError."""
        check(partition == PARTITION, "files have one partition", found=partition)
        cursor, candidates, origin = self._opened(), self._candidates, Place.of(start)
        if origin != cursor.place:
            cursor.seek(origin)
        until = None if limit.until is None else Place.of(limit.until)
        deadline = self._clock.monotonic() + wait_seconds
        while True:
            try:
                batches = cursor.gather(limit, until)
            except OSError as error:
                raise SourceUnavailable(f"files({self._text}) cannot be read.", found=str(error)) from error
            left = deadline - self._clock.monotonic()
            if batches or cursor.place != origin or left <= 0:
                break
            poll_seconds = max(_POLL_SECONDS, 10 * candidates.listing_seconds) if candidates else _POLL_SECONDS
            if self._closed.wait(min(left, poll_seconds)):
                break
        is_idle = not batches and (cursor.has_reached(until) or cursor.is_drained())
        remember = self._admissions.rows(origin.known, cursor.place.known)
        return Read(batches, start if cursor.place == origin else cursor.place.position(), remember, is_idle)

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Nothing: the files belong to their writer."""

    def close(self) -> None:
        """Close the file in hand, and end a read that waits."""
        self._closed.set()
        if self._cursor is not None:
            self._cursor.close()

    def remarks(self) -> list[str]:
        """Files that are not read though something was written to them, and files that may be copies."""
        return list(self._candidates.remarks.values()) if self._candidates is not None else []

    def infer_schema(self) -> pa.Schema:
        """The columns of the first Parquet file. Raises SourceUnavailable when there is none yet."""
        import pyarrow.parquet as pq

        for seen in self._pattern().seen():
            return pq.read_schema(self._pattern().base / seen.path)
        raise SourceUnavailable(f"files({self._text}) has no file yet to take the schema from.")

    def check(self, binding: Binding | None) -> list[CheckResult]:
        """Is the folder there, and does the pattern match anything yet?"""
        what = f"files({self._text})"
        try:
            seen = self._pattern().seen()
        except SourceUnavailable as error:
            return [CheckResult(what, "failed", error.summary, error.next_step)]
        if not seen:
            return [CheckResult(what, "warning", "no file matches yet")]
        return [CheckResult(what, "ok", f"{len(seen)} files match")]

    def _pattern(self) -> Pattern:
        return Pattern(str(resolved_path(self._text)), self._completeness)

    def _opened(self) -> Cursor:
        if self._cursor is None:
            raise InvariantBroken("A source was read before it was opened.", source=self._text)
        return self._cursor

    def _records(self, segment: Segment, at: int) -> Records:
        path = self._folder / segment.path
        if self._kind.layout == "parquet":
            return rows_of_parquet(path, at)
        return lines_of(path, compression_of(segment.path), at, self._options)
