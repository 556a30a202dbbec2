"""An append-only table of SQLite as a stream, in the order of its rowid or of a declared key."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from onefold.connectors.spooling import resolved_path
from onefold.connectors.sqlite.sink import BUSY_SECONDS, quoted
from onefold.connectors.sqlite.values import affinity
from onefold.errors import InputLost, SourceError, SourceUnavailable, check
from onefold.protocols import CheckResult, Limit, Read, SourcePromise
from onefold.types import Binding, PartitionId, Position

__all__ = ["SqliteSource"]

PARTITION = PartitionId("table")

_META = pa.schema([("_offset", pa.int64())])
_TYPES = {"INTEGER": pa.int64(), "REAL": pa.float64(), "BLOB": pa.binary(), "TEXT": pa.string(), "NUMERIC": pa.string()}
_POLL_SECONDS = 0.05
_SIZE_OF_VALUE = 8


class SqliteSource:
    """Position: {"after": the key of the last row read}, or {} for the beginning; `_offset` is the key.

    Columns declared NUMERIC, DECIMAL, DATE and the like come as text; the flow's schema casts them.
    """

    memory: pa.Schema | None = None

    def __init__(self, path: str, table: str, key: str | None) -> None:
        self._text = path
        self._table = table
        self._key = key
        self._closed = threading.Event()
        self._connection: sqlite3.Connection | None = None

    @property
    def promise(self) -> SourcePromise:
        """Replayable while rows are only appended."""
        key = self._key or "the rowid"
        conditions = (
            f"rows are only appended, each with a larger {key} than all before it: AUTOINCREMENT does that",
            "rows are not updated after they were read, and not deleted before",
            "an INTEGER PRIMARY KEY exists, or VACUUM is never run: it may renumber rowids",
        )
        return SourcePromise(
            is_replayable=True,
            is_ordered=True,
            payload="rows",
            meta=_META,
            gap="the largest key of the table is smaller than the position",
            isolation="readers see committed rows only",
            conditions=conditions,
        )

    def open(self, remembered: pa.Table | None) -> None:
        """Raises SourceUnavailable when the file or the table is not there."""
        self.close()
        self._closed.clear()
        check(remembered is None or not len(remembered), "this source remembers nothing")
        self.infer_schema()

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """One; the latest is the largest key now."""
        with self._answers() as connection:
            largest = self._largest(connection)
        return {PARTITION: ({}, {} if largest is None else {"after": largest})}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Rows after the position. Raises InputLost when the table went back, or SourceError."""
        check(partition == PARTITION, "a table has one partition", found=partition)
        after, until = _after(start), _after(limit.until)
        rows = self._rows(after, until, limit.rows)
        if not rows and wait_seconds > 0:
            waited = 0.0
            while not rows and waited < wait_seconds and not self._closed.wait(_POLL_SECONDS):
                waited += _POLL_SECONDS
                rows = self._rows(after, until, limit.rows)
        if not rows:
            return Read([], start, is_idle=True)
        rows = rows[: _fitting(rows, limit.size_bytes)]
        return Read([self._batch(rows)], {"after": int(str(rows[-1][0]))})

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Nothing: rows belong to their writer."""

    def close(self) -> None:
        """Close the connection, and end a read that waits."""
        self._closed.set()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def infer_schema(self) -> pa.Schema:
        """The table's columns by their declared types. Raises SourceUnavailable."""
        with self._answers() as connection:
            found = connection.execute(f"PRAGMA table_info({quoted(self._table)})").fetchall()
        if not found:
            raise SourceUnavailable(f"{self._label} does not exist.")
        return pa.schema([(row[1], _TYPES[affinity(row[2])]) for row in found])

    def check(self, binding: Binding | None) -> list[CheckResult]:
        """Is the table there?"""
        try:
            self.infer_schema()
        except SourceUnavailable as error:
            return [CheckResult(self._label, "failed", error.summary, error.next_step)]
        return [CheckResult(self._label, "ok", "can be read")]

    @property
    def _label(self) -> str:
        return f"sqlite({self._text}).{self._table}"

    @property
    def _order(self) -> str:
        return "rowid" if self._key is None else quoted(self._key)

    @property
    def _path(self) -> Path:
        return resolved_path(self._text)

    @contextlib.contextmanager
    def _answers(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    f"{self._path.as_uri()}?mode=ro",
                    uri=True,
                    timeout=BUSY_SECONDS,
                    isolation_level=None,
                    check_same_thread=False,
                )
            yield self._connection
        except sqlite3.Error as error:
            raise SourceUnavailable(f"{self._label} cannot be read.", found=error) from error

    def _largest(self, connection: sqlite3.Connection) -> int | None:
        row = connection.execute(f"SELECT max({self._order}) FROM {quoted(self._table)}").fetchone()
        return None if row[0] is None else int(row[0])

    def _rows(self, after: int | None, until: int | None, count: int) -> list[tuple[object, ...]]:
        conditions, values = ["TRUE"], []
        for sign, bound in ((">", after), ("<=", until)):
            if bound is not None:
                conditions.append(f"{self._order} {sign} ?")
                values.append(bound)
        with self._answers() as connection:
            connection.execute("BEGIN")
            try:
                if after is not None:
                    self._refuse_a_gap(connection, after)
                return connection.execute(
                    f"SELECT {self._order}, * FROM {quoted(self._table)} WHERE {' AND '.join(conditions)} "
                    f"ORDER BY {self._order} LIMIT ?",
                    (*values, count),
                ).fetchall()
            finally:
                connection.execute("ROLLBACK")

    def _refuse_a_gap(self, connection: sqlite3.Connection, after: int) -> None:
        """Once the largest key is behind the position, keys may have been given out again to rows we would skip."""
        largest = self._largest(connection)
        if (largest is None or largest < after) and not self._has_counted_to(connection, after):
            raise InputLost(
                f"{self._label} has lost rows, or was made anew: its largest key is behind what was read.",
                found=f"{largest}",
                expected=f"at least {after}",
                next_step="Restore the table (AUTOINCREMENT keeps a deleted row's key from being given out again)",
                partition=PARTITION,
                position=after,
            )

    def _has_counted_to(self, connection: sqlite3.Connection, after: int) -> bool:
        """Whether AUTOINCREMENT says that no key up to `after` is given out again."""
        try:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (self._table,)).fetchone()
        except sqlite3.OperationalError:  # no table of this file has AUTOINCREMENT
            return False
        return row is not None and int(row[0]) >= after and self._key is None

    def _batch(self, rows: list[tuple[object, ...]]) -> pa.RecordBatch:
        schema = self.infer_schema()
        keys, *columns = zip(*rows, strict=True)
        arrays = [self._array(list(values), field, keys) for values, field in zip(columns, schema, strict=True)]
        return pa.RecordBatch.from_arrays([*arrays, pa.array(keys, pa.int64())], [*schema.names, "_offset"])

    def _array(self, values: list[object], field: pa.Field, keys: tuple[object, ...]) -> pa.Array:
        if pa.types.is_string(field.type):
            values = [str(value) if isinstance(value, (int, float)) else value for value in values]
        try:
            return pa.array(values, field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise SourceError(
                f"{self._label} holds a value of another type than its column {field.name} is declared as.",
                found=str(error).splitlines()[0],
                expected=str(field.type),
                next_step="Correct the rows, or read a table of one type.",
                column=field.name,
                position=f"keys {keys[0]} to {keys[-1]}",
            ) from error


def _after(position: Position) -> int | None:
    found = position.get("after") if isinstance(position, Mapping) else None
    return found if isinstance(found, int) else None


def _fitting(rows: list[tuple[object, ...]], size_bytes: int) -> int:
    """How many rows fit; at least one."""
    left = size_bytes
    for count, row in enumerate(rows):
        left -= sum(len(value) if isinstance(value, (str, bytes)) else _SIZE_OF_VALUE for value in row)
        if left < 0:
            return max(count, 1)
    return len(rows)
