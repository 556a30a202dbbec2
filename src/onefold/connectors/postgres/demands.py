"""What a table of PostgreSQL must be to take a sink's rows: looked at when it is opened, and again if it is altered.

No transaction begins or ends here. Source: PostgreSQL's documentation, chapters System Catalogs and Row Security.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onefold.connectors.databases import misfit, owner_of
from onefold.connectors.postgres.copying import copy_in
from onefold.connectors.postgres.tables import TableName, merge, staging
from onefold.connectors.postgres.types import EXPLICIT, declared_type, keeps_exactly, quoted
from onefold.connectors.spooling import stored_schema
from onefold.errors import BuildError, SchemaError, SinkRefused
from onefold.types import Binding

__all__ = ["Shape", "changed", "demand_rights", "demand_still", "demand_table", "demand_tokens"]

_MARK = """
SELECT relkind::text, row_security_active(oid), oid, xmin::text,
       ARRAY(SELECT xmin::text FROM pg_attribute WHERE attrelid = class.oid AND attnum > 0 ORDER BY attnum),
       ARRAY(SELECT xmin::text FROM pg_index WHERE indrelid = class.oid ORDER BY indexrelid)
FROM pg_class AS class WHERE oid = to_regclass(%s)
"""
"""Whoever alters a table writes the rows of the catalog anew that tell what was altered: their xmin is another then."""

_UNKEPT = """
WITH RECURSIVE part AS (
    SELECT to_regclass(%s)::oid AS oid
    UNION ALL
    SELECT inhrelid FROM part JOIN pg_inherits ON inhparent = part.oid JOIN pg_class ON pg_class.oid = inhrelid
    WHERE relispartition
)
SELECT relkind::text, format('%%I.%%I', nspname, relname)
FROM part JOIN pg_class USING (oid) JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relpersistence <> 'p' OR relkind = 'f' ORDER BY 2 LIMIT 1
"""

_EQUATED = (*EXPLICIT, "citext")
"""Types under which different texts are equal."""


@dataclass(frozen=True)
class Shape:
    """A table that takes the rows, as it was found.

    mark: its kind, whether row security holds, and more: another one when anything was altered. differing: the columns
    that have another type than we declare, with theirs; without any, rows can be copied as they are.
    """

    mark: tuple[Any, ...] = ()
    differing: Mapping[str, str] = field(default_factory=dict)


def demand_table(connection: Any, table: TableName, binding: Binding) -> Shape:
    """The table, when it takes what the flow writes.

    Raises SchemaError, SinkRefused: no table, one that a crash empties or that hides rows, a missing column, a type
    that would change values, a column that must be given and is not, no unique key, a key under which different texts
    are one.
    """
    mark = _mark(connection, table)
    if not mark or mark[0] not in ("r", "p"):
        raise SinkRefused(
            f"{table.label} does not exist.",
            next_step="Make the table, or say create=True to have it made from the stream's schema.",
            sink=binding.sink,
        )
    _demand_kept(connection, table.label, table.qualified, binding)
    _demand_unfiltered(connection, table, mark, binding)
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
    return Shape(mark, differing)


def demand_still(connection: Any, table: TableName, binding: Binding, shape: Shape) -> Shape:
    """The table as it is until the transaction ends: as it was found, or altered so that it still takes the rows.

    Raises SinkRefused, and the client's errors.
    """
    _lock(connection, table)
    mark = _mark(connection, table)
    if mark == shape.mark:
        if mark[0] == "p":  # its partitions are altered by themselves
            _demand_kept(connection, table.label, table.qualified, binding)
        return shape
    try:
        return demand_table(connection, table, binding)
    except BuildError as error:
        raise changed(table, f"{error.summary} {error.found}", binding.sink, next_step=error.next_step) from error


def demand_tokens(connection: Any, table: TableName, binding: Binding) -> None:
    """Raise SinkRefused for a table of tokens that a crash of the server empties."""
    _demand_kept(connection, table.tokens, table.tokens, binding)


def demand_rights(connection: Any, table: TableName, binding: Binding, shape: Shape) -> None:
    """Do all that a delivery does, with no rows, and take it back: an epoch is not sealed that cannot be delivered.

    Raises the client's error for what this user may not do.
    """
    schema = stored_schema(binding)
    with connection.transaction(force_rollback=True):
        _lock(connection, table)
        if binding.mode == "append" and not shape.differing:
            copy_in(connection, table.qualified, schema.empty_table())
            return
        staged = schema if binding.mode == "append" else binding.schema
        name = " ".join(owner_of(binding)) if binding.is_together else None
        with staging(connection, table, staged, prepared_as=name) as stage:
            copy_in(connection, stage, staged.empty_table())
            merge(connection, table, binding, stage, shape.differing)


def changed(table: TableName, found: str, sink: str | None, *, next_step: str | None = None) -> SinkRefused:
    """The error of a table or a column that is not there any more, or not as it was."""
    return SinkRefused(f"{table.label} was changed meanwhile.", found=found, next_step=next_step, sink=sink)


# --------------------------------------------------------------------------------------------------------------- inner


def _mark(connection: Any, table: TableName) -> tuple[Any, ...]:
    return tuple(connection.execute(_MARK, [table.qualified]).fetchone() or ())


def _lock(connection: Any, table: TableName) -> None:
    """Nobody can alter the table then; others can write to it. Partitions cannot be of other types than it."""
    connection.execute(f"LOCK TABLE ONLY {table.qualified} IN ROW EXCLUSIVE MODE")


def _demand_kept(connection: Any, label: str, qualified: str, binding: Binding) -> None:
    """The token stands in a table that survives a crash: rows that do not would be taken for delivered."""
    unkept = connection.execute(_UNKEPT, [qualified]).fetchone()
    if unkept is None:
        return
    kind, name = unkept
    is_foreign = kind == "f"
    raise SinkRefused(
        f"{label} does not keep rows as the token is kept.",
        found=f"{name} is a foreign table" if is_foreign else f"{name} is unlogged: a crash of the server empties it",
        expected="tables of this server that are logged",
        next_step="Write to the table that is foreign here." if is_foreign else f"ALTER TABLE {name} SET LOGGED",
        sink=binding.sink,
    )


def _demand_unfiltered(connection: Any, table: TableName, mark: tuple[Any, ...], binding: Binding) -> None:
    """COPY does not go into a table with row security, and a row that is hidden is neither changed nor deleted."""
    if mark[1]:
        raise SinkRefused(
            f"{table.label} has row security, which holds for this user.",
            found="row_security_active",
            expected="a user who sees and writes every row",
            next_step=f"ALTER ROLE {quoted(connection.info.user)} BYPASSRLS, or write as the table's owner.",
            sink=binding.sink,
        )


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
        kind = found[name].kind
        if kind.removesuffix("[]") in _EQUATED:
            raise misfit(table, binding, name, f"{kind}, under which different texts are equal", "text for a key")
    indexes = connection.execute(
        """
        SELECT array_agg(attname ORDER BY attname)::text[]
        FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey[0:indnkeyatts - 1])
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
