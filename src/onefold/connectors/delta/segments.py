"""What a version of a table adds to a stream: its files in order, and what of their rows counts."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
import pyarrow.parquet as pq

from onefold.connectors.delta.location import Location
from onefold.connectors.delta.log import Log
from onefold.connectors.delta.table import load
from onefold.errors import InputLost, SourceError, SourceUnavailable
from onefold.types import Position, Skip

__all__ = ["Place", "Segment", "Rows", "Segments", "reading"]

CHANGE = "_change_type"
"""A column of files that hold changes."""

ASK_EVERY = 50
"""So often a version that is not there is looked for in the table's checkpoints: its entry may have been cleaned up."""

_WANTED = {"delete": ("delete", "update_preimage"), "upsert": ("insert", "update_postimage")}


@dataclass(frozen=True, order=True)
class Place:
    """Where to read next: the version, a file of it, a row of that. is_snapshot: all files that the version has."""

    version: int
    file: int = 0
    row: int = 0
    is_snapshot: bool = field(default=False, compare=False)

    @staticmethod
    def of(position: Position) -> Place:
        """The inverse of `position`."""
        found: Any = position
        return Place(found["version"], found["file"], found["row"], found.get("snapshot", False))

    def position(self) -> Position:
        """As JSON."""
        place: dict[str, Any] = {"version": self.version, "file": self.file, "row": self.row}
        return {**place, "snapshot": True} if self.is_snapshot else place

    def after(self, rows: int) -> Place:
        """So many rows on."""
        return replace(self, row=self.row + rows)

    def next_file(self) -> Place:
        """At the beginning of the next file."""
        return replace(self, file=self.file + 1, row=0)


@dataclass(frozen=True)
class Segment:
    """A file, and which of its rows count: all, or those that a file of changes marks so.

    partition: values of columns that the file does not hold, as text. op: what `_op` is.
    """

    path: str
    partition: Mapping[str, str | None]
    op: Literal["upsert", "delete"] = "upsert"
    is_changes: bool = False

    def chosen(self, rows: pa.Table, *, with_op: bool) -> pa.Table:
        """Those of the rows that count, with `_op` when it is wanted."""
        if self.is_changes:
            rows = rows.filter(pc.is_in(rows.column(CHANGE), pa.array(_WANTED[self.op]))).drop_columns([CHANGE])
        return rows.append_column("_op", pa.repeat(pa.scalar(self.op), rows.num_rows)) if with_op else rows


class Segments:
    """The segments of each version; those of the last one asked for are kept.

    changes: rows that a version takes back count, too.
    """

    def __init__(self, location: Location, log: Log, *, changes: bool) -> None:
        self._location = location
        self._log = log
        self._changes = changes
        self._last: tuple[tuple[int, bool], Sequence[Segment]] | None = None
        self._misses = 0

    def of(self, place: Place) -> Sequence[Segment] | None:
        """None when the version is not there yet. Raises InputLost, SourceError, SourceUnavailable."""
        key = (place.version, place.is_snapshot)
        if self._last is None or self._last[0] != key:
            found = self._snapshot(place.version) if place.is_snapshot else self._version(place.version)
            if found is None:
                return None
            self._last = key, found
        return self._last[1]

    def _snapshot(self, version: int) -> Sequence[Segment]:
        handle = load(self._location, SourceUnavailable, version=version)
        if handle is None:
            raise self._lost(version, None)
        if pa.table(handle.deletion_vectors()).num_rows:
            raise self._unreadable(version, "deletion vectors")
        actions = pa.table(handle.get_add_actions())
        rows = actions.select(
            [name for name in ("path", "modification_time", "partition") if name in actions.schema.names]
        )
        ordered = sorted(rows.to_pylist(), key=lambda row: (row["modification_time"], row["path"]))
        return [Segment(unquote(row["path"]), _texts(row.get("partition") or {})) for row in ordered]

    def _version(self, version: int) -> Sequence[Segment] | None:
        try:
            actions = self._log.actions(version)
        except (OSError, ValueError) as error:
            raise SourceUnavailable(
                f"{self._location.label} cannot be read now.", found=self._location.clean(error)
            ) from None
        if actions is None:
            self._misses += 1
            if self._misses % ASK_EVERY != 1:
                return None
            handle = load(self._location, SourceUnavailable)
            newest = -1 if handle is None else handle.version()
            if version <= newest:
                raise self._lost(version, newest)
            if version > newest + 1:
                raise self._lost(version, None, found=f"version {newest} as the newest")
            return None
        self._misses = 0
        return self._of_actions(version, actions)

    def _of_actions(self, version: int, actions: Sequence[Mapping[str, Any]]) -> Sequence[Segment]:
        added = [action["add"] for action in actions if "add" in action and action["add"]["dataChange"]]
        removed = [action["remove"] for action in actions if "remove" in action and action["remove"]["dataChange"]]
        marked = [action["cdc"] for action in actions if "cdc" in action]
        if any(one.get("deletionVector") for one in (*added, *removed)):
            raise self._unreadable(version, "deletion vectors")
        if not self._changes:
            if removed:
                operation = next(
                    (action["commitInfo"].get("operation") for action in actions if "commitInfo" in action), ""
                )
                raise SourceError(
                    f"Version {version} of {self._location.label} takes rows back, and the flow reads appended rows.",
                    found=f"{operation} that removes {len(removed)} files",
                    expected="versions that only add rows",
                    next_step="Read it with changes=True, which gives rows that are taken back as deletes.",
                    position=f"version {version}",
                )
            return [_segment(one) for one in added]
        if marked:
            changes = [_segment(one, is_changes=True) for one in marked]
            return [replace(one, op="delete") for one in changes] + changes
        return [_segment(one, op="delete") for one in removed] + [_segment(one) for one in added]

    def _lost(self, version: int, newest: int | None, found: str = "no entry in its log") -> InputLost:
        return InputLost(
            f"{self._location.label} no longer has version {version}, which has not been read.",
            found=found,
            expected=f"versions {version} to {newest}" if newest is not None else f"version {version}",
            next_step="Restore the table with its log",
            skip=None if newest is None else Skip(Place(newest + 1).position()),
            position=f"version {version}",
        )

    def _unreadable(self, version: int, why: str) -> SourceError:
        return SourceError(
            f"Version {version} of {self._location.label} has {why}, which are not read.",
            next_step="Have its writer rewrite the files (PURGE), or switch them off.",
            position=f"version {version}",
        )


class Rows:
    """The rows of a file, a row group at a time: that is what is in memory. Raises what `group_at` raises."""

    def __init__(self, segment: Segment, files: fs.FileSystem, schema: pa.Schema) -> None:
        self.segment = segment
        self._schema = schema.append(pa.field(CHANGE, pa.string())) if segment.is_changes else schema
        self._file = pq.ParquetFile(files.open_input_file(segment.path))
        sizes = [self._file.metadata.row_group(n).num_rows for n in range(self._file.metadata.num_row_groups)]
        self._ends = list(itertools.accumulate(sizes))
        self._group: tuple[int, pa.Table] | None = None

    @property
    def count(self) -> int:
        """How many rows the file has."""
        return self._ends[-1] if self._ends else 0

    def at(self, row: int) -> pa.Table:
        """The rows from this one to the end of its row group, in the table's columns; those that it lacks NULL."""
        number = bisect.bisect_right(self._ends, row)
        if number >= len(self._ends):
            return self._schema.empty_table()
        if self._group is None or self._group[0] != number:
            self._group = number, self._in_columns(self._file.read_row_group(number))
        first = self._ends[number] - self._group[1].num_rows
        return self._group[1].slice(row - first)

    def _in_columns(self, found: pa.Table) -> pa.Table:
        columns = []
        for column in self._schema:
            if column.name in self.segment.partition:
                text = pa.array([self.segment.partition[column.name]], pa.string()).cast(column.type)[0]
                columns.append(pa.repeat(text, found.num_rows))
            elif column.name in found.schema.names:
                columns.append(found.column(column.name).cast(column.type))
            else:
                columns.append(pa.nulls(found.num_rows, column.type))
        return pa.table(columns, schema=self._schema)


@contextlib.contextmanager
def reading(segment: Segment, label: str, place: Place) -> Iterator[None]:
    """What an error of a file means. Raises InputLost, SourceError, SourceUnavailable."""
    try:
        yield
    except FileNotFoundError:
        raise InputLost(
            f"A file of {label} is gone that has not been read.",
            found="no such file",
            expected=segment.path,
            next_step="Restore it; a VACUUM with a longer retention would have kept it",
            skip=Skip(place.next_file().position()),
            position=f"version {place.version}",
        ) from None
    except pa.ArrowInvalid as error:
        raise SourceError(
            f"A file of {label} does not hold the table's columns.",
            found=str(error).splitlines()[0],
            file=segment.path,
            position=f"version {place.version}",
        ) from error
    except OSError as error:
        raise SourceUnavailable(f"{label} cannot be read now.", found=str(error)) from error


def _segment(
    action: Mapping[str, Any], *, op: Literal["upsert", "delete"] = "upsert", is_changes: bool = False
) -> Segment:
    return Segment(unquote(action["path"]), action.get("partitionValues") or {}, op, is_changes)


def _texts(values: Mapping[str, Any]) -> Mapping[str, str | None]:
    """Partition values as the log has them."""
    return {
        name: None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }
