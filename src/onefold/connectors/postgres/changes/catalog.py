"""The tables whose changes are read: their columns, keys, and whether the log tells enough of them.

Source: PostgreSQL's documentation, chapters System Catalogs, Replica Identity, and TOAST.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.connectors.postgres.types import quoted
from onefold.connectors.spooling import OP_COLUMN
from onefold.errors import SchemaError, SourceRefused

__all__ = ["SeenColumn", "SeenTable", "columns_of", "look_at", "numbers_of", "schema_of"]

MOST_DIGITS = 38

_TYPES: Mapping[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "oid": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
_ELEMENTS = ("boolean", "smallint", "integer", "bigint", "real", "double precision", "text")
"""Of the arrays that become lists; the others stay text."""

_LONG_NAMES = (
    (re.compile(r"^timestamp(\(\d\))? without time zone$"), "timestamp"),
    (re.compile(r"^timestamp(\(\d\))? with time zone$"), "timestamptz"),
    (re.compile(r"^time(\(\d\))? without time zone$"), "time"),
    (re.compile(r"^character varying(\(\d+\))?(?=\[\]$|$)"), "text"),
)
_NUMERIC = re.compile(r"^numeric\((\d+),(-?\d+)\)$")


@dataclass(frozen=True)
class SeenColumn:
    """type, modifier: the server's numbers; kind: their text, a domain's as its base's. large: it may be kept out of
    line."""

    name: str
    type: int
    modifier: int
    kind: str
    large: bool

    @property
    def arrow(self) -> pa.DataType:
        """The type of the flow's column: the server's own, where one holds every ordinary value; else text."""
        kind = self.kind
        for pattern, short in _LONG_NAMES:
            kind = pattern.sub(short, kind)
        if kind.endswith("[]") and kind[:-2] in _ELEMENTS:
            return pa.list_(_TYPES.get(kind[:-2], pa.string()))
        number = _NUMERIC.match(kind)
        if number is not None and int(number[1]) <= MOST_DIGITS and 0 <= int(number[2]) <= int(number[1]):
            return pa.decimal128(int(number[1]), int(number[2]))
        return _TYPES.get(kind, pa.string())


@dataclass(frozen=True)
class SeenTable:
    """A table as it stands. key: of its rows, in its own order; (): it has none. identity: its replica identity.

    identified: the columns that the log names an old row by. is_toasted: values of it may be kept out of line.
    """

    number: int
    schema: str
    name: str
    columns: tuple[SeenColumn, ...]
    key: tuple[str, ...]
    identity: str
    identified: tuple[str, ...]
    is_toasted: bool

    @property
    def qualified(self) -> str:
        """As SQL reads it."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def large(self) -> tuple[str, ...]:
        """The columns whose unchanged values the log may leave out."""
        if self.identity == "f" or not self.is_toasted:
            return ()
        return tuple(column.name for column in self.columns if column.large and column.name not in self.identified)


_TABLES = """
SELECT c.oid::bigint, relname, relkind, relpersistence, relreplident, reltoastrelid <> 0,
       (SELECT array_agg(attname ORDER BY place)::text[]
        FROM pg_index, unnest(indkey::smallint[]) WITH ORDINALITY AS part (number, place)
             JOIN pg_attribute ON attnum = number
        WHERE indrelid = c.oid AND attrelid = c.oid AND indisprimary AND indimmediate AND place <= indnkeyatts),
       (SELECT array_agg(attname ORDER BY place)::text[]
        FROM pg_index, unnest(indkey::smallint[]) WITH ORDINALITY AS part (number, place)
             JOIN pg_attribute ON attnum = number
        WHERE indrelid = c.oid AND attrelid = c.oid AND indisreplident AND place <= indnkeyatts)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = %s AND relname = ANY (%s)
"""

_COLUMNS = """
SELECT attname, atttypid::bigint, atttypmod,
       CASE WHEN typbasetype <> 0 THEN format_type(typbasetype, typtypmod) ELSE format_type(atttypid, atttypmod) END,
       attstorage <> 'p'
FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum
"""


def look_at(connection: Any, schema: str, names: Sequence[str], label: str) -> tuple[SeenTable, ...]:
    """The tables, in this order. Raises SourceRefused for what is there not, or is no ordinary table."""
    rows = {row[1]: row for row in connection.execute(_TABLES, [schema, list(names)]).fetchall()}
    return tuple(_seen(connection, schema, name, rows.get(name), label) for name in names)


def numbers_of(connection: Any, schema: str, names: Sequence[str]) -> Sequence[tuple[str, int]]:
    """Of the tables that there are, name and number."""
    return connection.execute(  # type: ignore[no-any-return]
        "SELECT relname, c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = %s AND relname = ANY(%s)",
        [schema, list(names)],
    ).fetchall()


def _seen(connection: Any, schema: str, name: str, row: Any, label: str) -> SeenTable:
    if row is None:
        raise SourceRefused(f"{label}: there is no such table.", found=f"{schema}.{name}")
    number, _, kind, persistence, identity, is_toasted, primary, chosen = row
    if kind != "r" or persistence != "p":
        raise SourceRefused(
            f"{label}: {name} is no ordinary table, and the log does not tell all that happens to its rows.",
            found={"p": "a partitioned table", "v": "a view"}.get(kind, "an unlogged or temporary one, or no table"),
            next_step="Read the tables that it is made of; of a partitioned one, its partitions.",
        )
    columns = tuple(SeenColumn(*found) for found in connection.execute(_COLUMNS, [number]).fetchall())
    every = tuple(column.name for column in columns)
    identified = {"d": tuple(primary or ()), "i": tuple(chosen or ()), "f": every}.get(identity, ())
    key = tuple(primary or ()) or (identified if identity == "i" else ())
    table = SeenTable(number, schema, name, columns, key, identity, identified, bool(is_toasted))
    if not identified or not set(key) <= set(identified):
        raise _unidentified(table, label)
    return table


def _unidentified(table: SeenTable, label: str) -> SourceRefused:
    found = {"d": "no primary key", "n": "REPLICA IDENTITY NOTHING", "i": "an index that lacks the primary key"}
    return SourceRefused(
        f"{label}: the log does not tell by what key a row of {table.name} was changed or deleted.",
        found=found.get(table.identity, "an index that is gone"),
        expected="a primary key and REPLICA IDENTITY DEFAULT, or REPLICA IDENTITY FULL",
        next_step=f"ALTER TABLE {table.qualified} ADD PRIMARY KEY (…), or REPLICA IDENTITY FULL",
    )


def columns_of(tables: Sequence[SeenTable]) -> Mapping[str, SeenColumn]:
    """The columns of all tables together. Raises SchemaError when two of one name have two types."""
    found: dict[str, SeenColumn] = {}
    for table in tables:
        for column in table.columns:
            first = found.setdefault(column.name, column)
            if first.arrow != column.arrow:
                raise SchemaError(
                    f"Two of the tables have a column {column.name}, of two types.",
                    found=f"{column.kind} in {table.name}",
                    expected=first.kind,
                    next_step="Read the tables by reads of their own, or declare a schema without that column.",
                )
    return found


def schema_of(tables: Sequence[SeenTable]) -> pa.Schema:
    """The columns of the flow's rows, and what happened to each."""
    fields = [pa.field(name, column.arrow) for name, column in columns_of(tables).items()]
    return pa.schema([*fields, pa.field(OP_COLUMN, pa.string())])
