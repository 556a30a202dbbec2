"""SQL of the PostgreSQL sink: its token, the table that it makes, its rows. No transaction begins or ends here."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.connectors import databases
from onefold.connectors.databases import bound, has_token_row, owner_of, was_moved
from onefold.connectors.postgres.types import EXPLICIT, declared_type, quoted
from onefold.connectors.spooling import OP_COLUMN, stored_schema
from onefold.types import Binding, Token

__all__ = [
    "TableName", "demanding", "ensure_token_row", "ensure_tokens", "is_gone", "make_table", "merge", "read_rows",
    "read_token", "staging",
]  # fmt: skip

_DEFERRABLE = """
SELECT format('%%I.%%I', nspname, conname) FROM pg_constraint JOIN pg_namespace n ON n.oid = connamespace
WHERE (conrelid = %s::regclass OR confrelid = %s::regclass) AND condeferrable ORDER BY 1
"""

_LOCK = 8_021_714_355_092_310_017
"""An advisory lock of ours: CREATE … IF NOT EXISTS fails when two do it at once."""


@dataclass(frozen=True)
class TableName:
    """A table, the schema of the tokens, and how it is shown."""

    schema: str
    name: str
    tokens_schema: str
    label: str

    @property
    def qualified(self) -> str:
        """As SQL reads it."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def tokens(self) -> str:
        """The table of tokens."""
        return f'{quoted(self.tokens_schema)}."_onefold_tokens"'


# --------------------------------------------------------------------------------------------------------------- token


def ensure_tokens(connection: Any, table: TableName) -> None:
    """Make the table of tokens, unless it is there."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    if not _is_known(connection, table.tokens):
        _ensure_schema(connection, table.tokens_schema)
        connection.execute(
            f"CREATE TABLE {table.tokens} (flow text NOT NULL, lane text NOT NULL, sink text NOT NULL, "
            "epoch bigint NOT NULL, seal text NOT NULL, ends text NOT NULL, target text, "
            "PRIMARY KEY (flow, lane, sink))"
        )


def ensure_token_row(connection: Any, table: TableName, binding: Binding, *, is_locked: bool) -> Token | None:
    """The sink's token. is_locked: wait until whoever was moving it has ended, one way or the other.

    Prepared transactions of the sink end by our decision alone: where there are any, nobody must wait for them.
    The row is there from the first opening on, because a row that another transaction is about to insert can be
    neither seen nor waited for.
    """
    if not has_token_row(connection, table, binding):
        connection.execute(
            f"INSERT INTO {bound(table.tokens)} (flow, lane, sink, epoch, seal, ends) VALUES (%s, %s, %s, 0, '', '') "
            "ON CONFLICT (flow, lane, sink) DO NOTHING",
            owner_of(binding),
        )
    return databases.read_token(connection, table, binding, is_locked=is_locked)


def read_token(connection: Any, table: TableName, binding: Binding) -> Token | None:
    """The sink's token, as far as it is committed."""
    return databases.read_token(connection, table, binding) if _is_known(connection, table.tokens) else None


def is_gone(connection: Any, table: TableName, binding: Binding) -> bool:
    """Whether the token was moved with rows of this table, and the table is not there."""
    return was_moved(connection, table, binding) and not _is_there(connection, table)


# -------------------------------------------------------------------------------------------------------------- schema


def make_table(connection: Any, table: TableName, binding: Binding) -> None:
    """Create the table from the stream's schema, with a unique index over the key of an upsert, unless it is there."""
    if _is_there(connection, table):
        return
    schema = stored_schema(binding)
    columns = [f"{quoted(field.name)} {declared_type(field, table.label)}" for field in schema]
    if binding.mode == "upsert":
        columns.append(f"UNIQUE NULLS NOT DISTINCT ({', '.join(map(quoted, binding.key))})")
    _ensure_schema(connection, table.schema)
    connection.execute(f"CREATE TABLE {table.qualified} ({', '.join(columns)})")


def _is_there(connection: Any, table: TableName) -> bool:
    row = connection.execute(
        "SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE nspname = %s AND relname = %s AND relkind IN ('r', 'p')",
        [table.schema, table.name],
    ).fetchone()
    return row is not None


def _ensure_schema(connection: Any, name: str) -> None:
    """CREATE SCHEMA IF NOT EXISTS needs the permission to make one even where it is there."""
    if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [name]).fetchone() is None:
        connection.execute(f"CREATE SCHEMA {quoted(name)}")


def _is_known(connection: Any, qualified: str) -> bool:
    return connection.execute("SELECT to_regclass(%s)", [qualified]).fetchone()[0] is not None


# ---------------------------------------------------------------------------------------------------------------- rows


def read_rows(connection: Any, table: TableName, schema: pa.Schema) -> list[tuple[Any, ...]]:
    """Its rows; none when it is not there."""
    if not _is_there(connection, table):
        return []
    columns = ", ".join(map(quoted, schema.names))
    return list(connection.execute(f"SELECT {columns} FROM {table.qualified}").fetchall())


@contextlib.contextmanager
def staging(connection: Any, table: TableName, schema: pa.Schema, *, prepared_as: str | None) -> Iterator[str]:
    """A table of the declared types for a part of the transaction; its name as SQL reads it.

    prepared_as: the name under which the transaction is to be prepared. It must not touch temporary tables then, so
    this one is an ordinary one that is not logged.
    """
    kind, stage = "TEMPORARY", "pg_temp._onefold_stage"
    if prepared_as is not None:
        mark = hashlib.sha256(prepared_as.encode()).hexdigest()[:24]
        kind, stage = "UNLOGGED", f"{quoted(table.tokens_schema)}._onefold_stage_{mark}"
    columns = ", ".join(f"{quoted(field.name)} {declared_type(field, table.label)}" for field in schema)
    connection.execute(f"CREATE {kind} TABLE {stage} ({columns})")
    yield stage
    connection.execute(f"DROP TABLE {stage}")


def merge(connection: Any, table: TableName, binding: Binding, stage: str, differing: Mapping[str, str]) -> None:
    """Put the staged rows into the table: as they are, or, one a key, in the place of those with the same key.

    differing: see `demands.Shape`.
    NULL is a key value like any other, though a unique index takes two of them for different.
    """
    names = stored_schema(binding).names
    columns = ", ".join(map(quoted, names))
    if binding.mode == "append":
        values = ", ".join(_value(name, differing) for name in names)
        connection.execute(f"INSERT INTO {table.qualified} ({columns}) SELECT {values} FROM {stage} AS fresh")
        return
    sql = _MergeSql(table, binding, stage, differing)
    for statement in sql.deletes() if OP_COLUMN in binding.schema.names else ():
        connection.execute(statement)
    connection.execute(sql.upsert_of_whole_keys())
    for statement in sql.upserts_of_keys_with_null():
        connection.execute(statement)


def _value(name: str, differing: Mapping[str, str]) -> str:
    kind = differing.get(name)
    return f"fresh.{quoted(name)}" + (f"::{kind}" if kind in EXPLICIT else "")


class _MergeSql:
    """The statements of an upsert. Whole keys go through the unique index, those with a NULL are compared."""

    def __init__(self, table: TableName, binding: Binding, stage: str, differing: Mapping[str, str]) -> None:
        self._target = f"{table.qualified} AS target"
        self._fresh = f"{stage} AS fresh"
        names = stored_schema(binding).names
        self._others = [quoted(name) for name in names if name not in binding.key]
        self._key = ", ".join(map(quoted, binding.key))
        self._columns = ", ".join(map(quoted, names))
        self._values = ", ".join(_value(name, differing) for name in names)
        self._changes = ", ".join(
            f"{quoted(name)} = {_value(name, differing)}" for name in names if name not in binding.key
        )
        each = [(f"target.{quoted(name)}", _value(name, differing)) for name in binding.key]
        self._is_equal = " AND ".join(f"{left} = {right}" for left, right in each)
        self._is_same = " AND ".join(f"{left} IS NOT DISTINCT FROM {right}" for left, right in each)
        self._is_whole = "(" + " AND ".join(f"{right} IS NOT NULL" for _, right in each) + ")"
        self._is_kept = f"fresh.{quoted(OP_COLUMN)} <> 'delete'" if OP_COLUMN in binding.schema.names else "TRUE"

    def deletes(self) -> tuple[str, str]:
        """What is deleted and not written again."""
        delete = f"DELETE FROM {self._target} USING {self._fresh} WHERE NOT ({self._is_kept}) AND"
        return (
            f"{delete} {self._is_whole} AND {self._is_equal}",
            f"{delete} NOT {self._is_whole} AND {self._is_same}",
        )

    def upsert_of_whole_keys(self) -> str:
        """One statement, so that a foreign writer of the same key is waited for and not collided with."""
        changes = ", ".join(f"{name} = excluded.{name}" for name in self._others)
        return (
            f"INSERT INTO {self._target} ({self._columns}) SELECT {self._values} FROM {self._fresh} "
            f"WHERE {self._is_whole} AND {self._is_kept} "
            f"ON CONFLICT ({self._key}) DO " + (f"UPDATE SET {changes}" if changes else "NOTHING")
        )

    def upserts_of_keys_with_null(self) -> tuple[str, ...]:
        """Update those that are there, insert the others."""
        where = f"NOT {self._is_whole} AND {self._is_kept}"
        insert = (
            f"INSERT INTO {self._target} ({self._columns}) SELECT {self._values} FROM {self._fresh} "
            f"WHERE {where} AND NOT EXISTS (SELECT FROM {self._target} WHERE {self._is_same})"
        )
        if not self._changes:
            return (insert,)
        return (
            f"UPDATE {self._target} SET {self._changes} FROM {self._fresh} WHERE {where} AND {self._is_same}",
            insert,
        )


def demanding(connection: Any, table: TableName) -> Callable[[], None]:
    """What checks now the deferrable constraints of the table, and those of others that refer to it."""
    found = connection.execute(_DEFERRABLE, [table.qualified] * 2).fetchall()
    names = ", ".join(name for (name,) in found)

    def demand() -> None:
        if names:
            connection.execute(f"SET CONSTRAINTS {names} IMMEDIATE")
            connection.execute(f"SET CONSTRAINTS {names} DEFERRED")

    return demand
