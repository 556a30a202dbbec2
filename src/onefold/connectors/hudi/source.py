"""A Hudi table as a stream: the rows that are there, then what every later instant inserted or updated.

hudi-rs tells the timeline and what each instant wrote; the files are Parquet, read as such: of a table that has a
timestamp without a zone, hudi-rs 0.5 lists no files and reads no rows. A position is {} before anything was read,
{"done": I} when everything through instant I was, and in between {"in": I, "file": n, "row": n}, with "whole" where all
of the table as of I is read.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.hudi.naming import PROPERTIES
from onefold.connectors.hudi.place import Address, Place
from onefold.connectors.hudi.reading import cast
from onefold.connectors.hudi.rows import columns_of
from onefold.connectors.hudi.timeline import History, Step, step_after
from onefold.connectors.slicing import placed, sliced
from onefold.errors import InputLost, OnefoldError, SourceRefused, SourceUnavailable, check
from onefold.protocols import CheckResult, Limit, Read, Reading, SourcePromise
from onefold.types import Binding, PartitionId, Position

__all__ = ["HudiSource"]

PARTITION = PartitionId("0")
_POLL_SECONDS = 0.2
_META = pa.schema([("_instant", pa.string()), ("_file", pa.string()), ("_offset", pa.int64())])
_WRITTEN = "_hoodie_commit_time"


class HudiSource:
    """One partition, in the order of instants. An update is the row as it then was."""

    memory: pa.Schema | None = None

    def __init__(self, address: Address) -> None:
        self._address = address
        self._label = address.label
        self._lies: Place | None = None
        self._meta: tuple[str, ...] = ()
        self._closed = threading.Event()
        self._rows: tuple[str, str, pa.Table] | None = None

    @property
    def promise(self) -> SourcePromise:
        """Replayable while the instants that were not read yet, and their files, are kept."""
        return SourcePromise(
            is_replayable=True,
            is_ordered=True,
            payload="rows",
            meta=_META,
            gap="an instant that is archived, or a file that is cleaned, is named",
            isolation="readers see completed instants only, and none past one that is under way",
            conditions=(
                "hoodie.cleaner.commits.retained and hoodie.keep.min.commits exceed the commits of any downtime",
                "writers of the table have one clock",
                "rows are inserted and updated: an instant that deletes or replaces rows stops the flow",
            ),
        )

    def told(self, reading: Reading) -> None:
        """Which of the columns beside the table's are wanted."""
        self._meta = reading.meta

    def sees(self, target: str) -> bool:
        """Whether this is the table that is written."""
        return target == self._address.target

    def open(self, remembered: pa.Table | None) -> None:
        """Raises SourceUnavailable, SourceRefused, SettingMissing, ExtraMissing."""
        self.close()
        self._closed.clear()
        check(remembered is None or not len(remembered), "this source remembers nothing")
        self._load()

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """One; a new flow begins with the rows that are there."""
        newest = self._history(self._load()).newest
        return {PARTITION: ({}, {} if newest is None else {"done": newest})}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Rows of one instant from the position on. Raises InputLost, SourceUnavailable, SourceRefused."""
        check(partition == PARTITION, "a table has one partition", found=partition)
        step, waited = self._next(start, limit.until), 0.0
        while step is None and waited < wait_seconds and not self._closed.wait(_POLL_SECONDS):
            waited += _POLL_SECONDS
            step = self._next(start, limit.until)
        if step is None:
            return Read([], start, is_idle=True)
        return self._take(step, limit)

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Nothing: instants belong to their writer."""

    def close(self) -> None:
        """Forget the file in hand, and end a read that waits."""
        self._closed.set()
        self._rows = None

    def infer_schema(self) -> pa.Schema:
        """The table's columns. Raises SourceUnavailable, SourceRefused."""
        with self._in_our_words():
            found = columns_of(self._load().get_schema_in_avro_str())
        for field in found:
            if pa.types.is_null(field.type):
                raise SourceRefused(f"{self._label} has a column of a type that is none of ours.", column=field.name)
        return found

    def check(self, binding: Binding | None) -> list[CheckResult]:
        """Is the table there, and can it be read?"""
        try:
            newest = self._history(self._load()).newest
        except OnefoldError as error:
            return [CheckResult(self._label, "failed", str(error.found or error.summary), error.next_step)]
        return [CheckResult(self._label, "ok", f"is at instant {newest}" if newest else "is empty")]

    # ------------------------------------------------------------------------------------------------------- inner

    @property
    def _place(self) -> Place:
        if self._lies is None:
            self._lies = self._address.place()
        return self._lies

    def _load(self) -> Any:
        builder = self._place.builder()
        with self._in_our_words():
            if not self._place.has(PROPERTIES):
                raise SourceUnavailable(f"{self._label} is not there.", found=f"no {PROPERTIES}")
            table = builder.build()
            is_mor = table.is_mor
        if is_mor:
            raise SourceRefused(
                f"{self._label} is a merge-on-read table.", expected="copy-on-write", next_step="Name another table."
            )
        return table

    def _history(self, table: Any) -> History:
        with self._in_our_words():
            return History(table, self._place, self._label)

    def _next(self, start: Position, until: Position) -> Step | None:
        if start == until and until is not None:
            return None
        with self._in_our_words():
            return step_after(self._history(self._load()), start, until)

    def _take(self, step: Step, limit: Limit) -> Read:
        """Rows of one file, or the end of an instant."""
        table = self._load()
        files = self._files(table, step)
        if step.file >= len(files):
            return Read([], step.done)
        rows = self._open_file(table, files[step.file], step)
        end: Mapping[str, Any] = limit.until if isinstance(limit.until, Mapping) else {}
        is_last_file = (end.get("in"), end.get("file")) == (step.instant, step.file)
        part = sliced(rows, step.row, limit, end["row"] if is_last_file else None)
        row = step.row + part.num_rows
        if row < rows.num_rows or is_last_file:
            following = step.at(step.file, row)
        else:
            following = step.at(step.file + 1, 0) if step.file + 1 < len(files) else step.done
        instant, path = pa.scalar(step.instant), pa.scalar(files[step.file])
        return Read(placed(part, self._meta, step.row, _instant=instant, _file=path), following)

    def _files(self, table: Any, step: Step) -> list[str]:
        with self._in_our_words():
            history = self._history(table)
            return history.all_files(step.instant) if step.is_whole else history.files(step.instant)

    def _open_file(self, table: Any, path: str, step: Step) -> pa.Table:
        """Its rows, or those that the instant wrote, which stay in memory until the next file is read."""
        wanted = "" if step.is_whole else step.instant
        if self._rows is None or self._rows[:2] != (path, wanted):
            self._rows = None
            with self._in_our_words():
                self._rows = path, wanted, self._written(table, path, wanted)
        return self._rows[2]

    def _written(self, table: Any, path: str, instant: str) -> pa.Table:
        try:
            found = self._place.parquet(path).read()
        except FileNotFoundError:
            raise InputLost(
                f"A file of {self._label} is gone before its rows were read.",
                found=f"no file {path}",
                next_step="Restore it, or have the table's writer keep more (hoodie.cleaner.commits.retained)",
            ) from None
        if instant:
            found = found.filter(pc.equal(found.column(_WRITTEN), instant))
        columns = columns_of(table.get_schema_in_avro_str())
        for field in columns:
            if field.name not in found.column_names:  # written before the column was added
                found = found.append_column(field.name, pa.nulls(found.num_rows, field.type))
        return cast(found.select(columns.names), columns)

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except OnefoldError:
            raise
        except Exception as error:
            raise SourceUnavailable(f"{self._label} cannot be read.", found=repr(error)) from error
