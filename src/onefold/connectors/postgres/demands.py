"""What a table of PostgreSQL must be to take a sink's rows: looked at when it is opened, and again if it is altered.

No transaction begins or ends here. Source: PostgreSQL's documentation, chapters System Catalogs and Row Security.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onefold.connectors.databases import misfit
from onefold.connectors.postgres.tables import TableName
from onefold.connectors.postgres.types import declared_type, keeps_exactly, quoted
from onefold.connectors.spooling import OP_COLUMN, stored_schema
from onefold.errors import BuildError, SchemaError, SinkRefused
from onefold.types import Binding

__all__ = ["Shape", "changed", "demand_rights", "demand_still", "demand_table"]

_LOOK = """
SELECT class.oid, class.xmin::text,
       (SELECT string_agg(xmin::text, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = class.oid AND attnum > 0),
       (SELECT string_agg(xmin::text, ' ' ORDER BY indexrelid) FROM pg_index WHERE indrelid = class.oid)
FROM pg_class AS class JOIN pg_namespace ON pg_namespace.oid = class.relnamespace
WHERE nspname = %s AND class.relname = %s AND class.relkind IN ('r', 'p')
"""
"""Whoever alters a table writes the rows of the catalog anew that tell what was altered: their xmin is another then."""


@dataclass(frozen=True)
class Shape:
    """A table that takes the rows, as it was found.

    mark: another one when anything was altered. differing: the columns that have another type than we declare, with
    theirs; without any, rows can be copied as they are.
    """

    mark: tuple[Any, ...] = ()
    differing: Mapping[str, str] = field(default_factory=dict)


def demand_table(connection: Any, table: TableName, binding: Binding) -> Shape:
    """The table, when it takes what the flow writes.

    Raises SchemaError, SinkRefused: no table, a missing column, a type
    that would change values, a column that must be given and is not, no unique key, a key under a
    collation that takes different texts for one.
    """
    seen = _look(connection, table.schema, table.name)
    if not seen:
        raise SinkRefused(
            f"{table.label} does not exist.",
            next_step="Make the table, or say create=True to have it made from the stream's schema.",
            sink=binding.sink,
        )
    found = _columns(connection, table)
    differing: dict[str, str] = {}
    for column in stored_schema(binding):
        declared = declared_type(column, table.label)
        there = found.get(column.name)
        if there is None or there.is_computed:
            raise misfit(table, binding, column.name, "no such column" if there is None else "a computed one", declared)
        if not keeps_exactly(declared, there.kind):
            raise misfit(table, binding, column.name, there.kind, declared)
        if there.kind != declared:
            differing[column.name] = there.kind
    ours = set(stored_schema(binding).names)
    for name, there in found.items():
        if name not in ours and there.must_be_given:
            raise misfit(table, binding, name, "NOT NULL without a default", "a column that may be left out")
    if binding.mode == "upsert":
        _demand_key(connection, table, binding, found)
    return Shape(seen, differing)


def demand_still(connection: Any, table: TableName, binding: Binding, shape: Shape) -> Shape:
    """The table as it is until the transaction ends: as it was found, or altered so that it still takes the rows.

    Raises SinkRefused, and the client's errors.
    """
    _lock(connection, table)
    if _look(connection, table.schema, table.name) == shape.mark:
        return shape
    try:
        return demand_table(connection, table, binding)
    except BuildError as error:
        raise changed(table, f"{error.summary} {error.found}", binding.sink, next_step=error.next_step) from error


def demand_rights(connection: Any, table: TableName, binding: Binding, shape: Shape) -> None:
    """Do all that a delivery does, to no row, and take it back: an epoch is not sealed that could never be delivered.

    Raises the client's error for what this user may not do.
    """
    schema = stored_schema(binding)
    columns = ", ".join(map(quoted, schema.names))
    kinds = [shape.differing.get(one.name) or declared_type(one, table.label) for one in schema]
    nothing = ", ".join(f"NULL::{kind}" for kind in kinds)
    with connection.transaction(force_rollback=True):
        _lock(connection, table)
        connection.execute(f"INSERT INTO {table.qualified} ({columns}) SELECT {nothing} WHERE FALSE")
        if binding.mode == "upsert":
            first = quoted(schema.names[0])
            connection.execute(f"UPDATE {table.qualified} SET {first} = {first} WHERE FALSE")
            if OP_COLUMN in binding.schema.names:
                connection.execute(f"DELETE FROM {table.qualified} WHERE FALSE")


def changed(table: TableName, found: str, sink: str | None, *, next_step: str | None = None) -> SinkRefused:
    """The error of a table or a column that is not there any more, or not as it was."""
    return SinkRefused(f"{table.label} was changed meanwhile.", found=found, next_step=next_step, sink=sink)


# --------------------------------------------------------------------------------------------------------------- inner


def _look(connection: Any, schema: str, name: str) -> tuple[Any, ...]:
    row = connection.execute(_LOOK, [schema, name]).fetchone()
    return tuple(row) if row else ()


def _lock(connection: Any, table: TableName) -> None:
    """Nobody can alter the table then; others can write to it. Partitions cannot be of other types than it."""
    connection.execute(f"LOCK TABLE ONLY {table.qualified} IN ROW EXCLUSIVE MODE")


@dataclass(frozen=True)
class _Column:
    kind: str
    must_be_given: bool
    is_computed: bool
    is_not_null: bool
    is_deterministic: bool


def _columns(connection: Any, table: TableName) -> dict[str, _Column]:
    rows = connection.execute(
        """
        SELECT attname, format_type(atttypid, atttypmod), attnotnull, atthasdef OR attidentity <> '',
               attgenerated <> '' OR attidentity = 'a', coalesce(collisdeterministic, true)
               AND format_type(atttypid, NULL) <> 'citext'
        FROM pg_attribute LEFT JOIN pg_collation ON pg_collation.oid = attcollation
        WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
        """,
        [table.qualified],
    ).fetchall()
    return {
        name: _Column(kind, is_not_null and not has_default, is_computed, is_not_null, is_deterministic)
        for name, kind, is_not_null, has_default, is_computed, is_deterministic in rows
    }


def _demand_key(connection: Any, table: TableName, binding: Binding, found: dict[str, _Column]) -> None:
    for name in binding.key:
        if not found[name].is_deterministic:
            raise misfit(table, binding, name, "a collation that takes different texts for one", "a deterministic one")
    indexes = connection.execute(
        """
        SELECT array_agg(attname ORDER BY attname)::text[]
        FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        WHERE indrelid = %s::regclass AND indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL
              AND indimmediate
        GROUP BY indexrelid
        """,
        [table.qualified],
    ).fetchall()
    if sorted(binding.key) not in [sorted(names) for (names,) in indexes]:
        key = ", ".join(map(quoted, binding.key))
        raise SchemaError(
            f"{table.label} has no unique key of the upsert's columns.",
            found="; ".join(", ".join(names) for (names,) in indexes) or "no unique index",
            expected=f"a primary key or a unique index over exactly {', '.join(binding.key)}",
            next_step=f"ALTER TABLE {table.qualified} ADD PRIMARY KEY ({key})",
            sink=binding.sink,
        )
