"""The tables as they are when reading begins, in pieces that fit into the stream exactly.

A piece is read by key in one snapshot of the server, which says of every transaction whether it is in it. A marker is
then written to the log. When the marker comes by in the stream, every transaction that is in the piece has come by,
and of those that are not in it, some: rows that these have touched are left out, because what was given of them is
newer. All others are as they are at this very place of the stream. So of every key the states are given in their true
order, whatever is written meanwhile, and a piece can be cut off anywhere and read anew behind its last key.

A transaction may be in the log for a moment before others see its rows. Hence a piece is read only when every
transaction that came by earlier is in its snapshot.
Source: Andreakis and Papapanagiotou, DBLog: A Watermark Based Change-Data-Capture Framework (2019); PostgreSQL's
documentation, chapter Transaction ID and Snapshot Information Functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from onefold.connectors.databases import bound
from onefold.connectors.postgres.changes.catalog import SeenTable, look_at
from onefold.connectors.postgres.types import quoted

__all__ = ["Piece", "Seen", "first_rows", "mark", "next_xid", "read_piece"]

PIECE_BYTES = 4 << 20
"""How large a piece is meant to be; it is held in memory."""

FIRST_ROWS, MOST_ROWS = 500, 20_000

LOW_BITS, HALF_WAY = 0xFFFFFFFF, 1 << 31

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Seen:
    """A snapshot: it holds every transaction below xmin, and those below xmax that are not in `running`."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @staticmethod
    def of(text: str) -> Seen:
        """From xmin:xmax:list."""
        xmin, xmax, running = text.split(":")
        return Seen(int(xmin), int(xmax), frozenset(int(each) for each in running.split(",") if each))

    def holds(self, xid: int) -> bool:
        """Whether a transaction is in it, named by its low 32 bits as the stream does."""
        whole = (self.xmax & ~LOW_BITS) | xid
        if whole > self.xmax + HALF_WAY:
            whole -= LOW_BITS + 1
        elif whole < self.xmax - HALF_WAY:
            whole += LOW_BITS + 1
        return whole < self.xmin or (whole < self.xmax and whole not in self.running)


@dataclass
class Piece:
    """Rows of a table, by key. mark: the content of its marker. touched: keys of which the stream has given more.

    is_last: nothing of the table comes behind it.
    """

    table: str
    rows: list[tuple[Key, list[Any]]]
    seen: Seen
    mark: str
    is_last: bool
    touched: set[Key] = field(default_factory=set)

    def left(self) -> list[tuple[Key, list[Any]]]:
        """The rows that are as they are at the marker."""
        return [row for row in self.rows if row[0] not in self.touched]

    @property
    def end(self) -> Key | None:
        """The last key of it, given or left out."""
        return self.rows[-1][0] if self.rows else None


def first_rows(connection: Any, table: SeenTable, rows: int) -> list[tuple[Key, list[Any]]]:
    """Some rows by key, at most so many, for a look."""
    names = [*table.key, *(column.name for column in table.columns)]
    return _rows(connection.execute(*_query(table, names, None, rows)).pgresult, len(table.key))


def next_xid(connection: Any) -> int:
    """Every transaction that has changed anything until now has a smaller number.

    A number of our own, for a snapshot's xmax is behind the newest that has ended only. Asked in autocommit it ends at
    once, and waits for no standby, because it writes nothing.
    """
    return int(connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0])


def read_piece(
    connection: Any, table: SeenTable, after: Sequence[str] | None, *, rows: int, started: int, given: Iterable[int]
) -> Piece | Seen:
    """The rows behind a key, at most so many; a snapshot alone: not yet, because a transaction that is still open, or
    not yet seen by others, has to end first: one below `started`, or one of those `given`.

    The lock keeps a TRUNCATE or a rewrite of the table from emptying it under an older snapshot.
    Raises the client's errors; SchemaChanged.
    """
    connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        connection.execute(f"LOCK TABLE ONLY {table.qualified} IN ACCESS SHARE MODE")
        text, here = connection.execute(
            "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text"
        ).fetchone()
        seen = Seen.of(text)
        if seen.xmin < started or not all(map(seen.holds, given)):
            return seen
        found = look_at(connection, table.schema, [table.name], table.name)[0]
        if (found.number, found.columns, found.key) != (table.number, table.columns, table.key):
            raise SchemaChanged(found)
        names = [*table.key, *(column.name for column in table.columns)]
        every = _rows(connection.execute(*_query(table, names, after, rows)).pgresult, len(table.key))
    finally:
        connection.execute("ROLLBACK")
    return Piece(table.name, every, seen, here, len(every) < rows)


class SchemaChanged(Exception):
    """The table is not what it was. found: what it is."""

    def __init__(self, found: SeenTable) -> None:
        super().__init__(found.name)
        self.found = found


def mark(connection: Any, prefix: str, content: str) -> None:
    """Write a marker to the log, durably, without waiting for standbys."""
    connection.execute(
        "BEGIN; SET LOCAL synchronous_commit = local; "
        f"SELECT pg_logical_emit_message(true, '{prefix}', '{content}'); COMMIT"
    )


def _rows(result: Any, width: int) -> list[tuple[Key, list[Any]]]:
    columns = range(result.nfields)
    every = [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]
    return [(tuple(row[:width]), row[width:]) for row in every]


def _query(table: SeenTable, names: Sequence[str], after: Sequence[str] | None, rows: int) -> tuple[str, list[Any]]:
    """The client looks for placeholders even where there are no values."""
    columns, key = (bound(", ".join(map(quoted, some))) for some in (names, table.key))
    where, values = "", []
    order = f"ORDER BY {key} " if key else ""
    if after is not None:
        kinds = {column.name: bound(column.kind) for column in table.columns}
        behind = ", ".join(f"%s::{kinds[name]}" for name in table.key)
        where, values = f"WHERE ({key}) > ({behind}) ", list(after)
    return f"SELECT {columns} FROM ONLY {bound(table.qualified)} {where}{order}LIMIT {rows}", values
