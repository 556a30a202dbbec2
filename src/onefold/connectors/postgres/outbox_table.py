"""An outbox: a table whose rows carry the id of the transaction that inserted them. What it must be, and is not.

The column stands in the table, because nothing else tells it: the system column xmin has 32 bits that begin anew, is
another one after an UPDATE, is the id of a subtransaction after a SAVEPOINT, and cannot be indexed. Rows that are
there when the column is added get the id of the transaction that adds it, and are read first, in the order of their id.
Source: PostgreSQL's documentation, chapters System Columns, Transaction ID and Snapshot Information Functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from onefold.connectors.postgres.columns import Column, columns_of
from onefold.connectors.postgres.connection import Server
from onefold.connectors.postgres.outbox_place import PARTITION, Place
from onefold.connectors.postgres.types import quoted
from onefold.errors import SchemaError, SourceRefused

__all__ = ["META", "Layout", "Outbox", "demand_layout", "from_the_future"]

META = pa.schema([("_transaction", pa.uint64()), ("_id", pa.string())])
"""What is read beside the columns: a row's place."""

FILLED_BY = "pg_current_xact_id()"

KEYS = ("smallint", "integer", "bigint", "uuid")
"""Types of the id: their order is the same on every server, and their text is the value."""

OLDEST_VERSION = 150000


@dataclass(frozen=True)
class Outbox:
    """What is read. id, transaction: columns. start: where a new flow begins. is_cleaned: settled rows are deleted."""

    server: Server
    schema: str
    name: str
    id: str = "id"
    transaction: str = "transaction_id"
    start: Literal["earliest", "latest"] = "earliest"
    is_cleaned: bool = False

    @property
    def label(self) -> str:
        """How it is shown."""
        name = self.name if self.schema == "public" else f"{self.schema}.{self.name}"
        return f"{self.server.label}.outbox({name})"

    @property
    def qualified(self) -> str:
        """The table as SQL reads it."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


@dataclass(frozen=True)
class Layout:
    """A table that may be read as an outbox. rows: what stands after FROM. columns: those that are read, in order."""

    outbox: Outbox
    rows: str
    id_kind: str
    columns: Sequence[Column]

    @property
    def watched(self) -> Mapping[str, str]:
        """The columns that must not change while we read, with their types."""
        found = {column.name: column.declared for column in self.columns}
        return {**found, self.outbox.id: self.id_kind, self.outbox.transaction: f"xid8 DEFAULT {FILLED_BY}"}

    def key(self, transaction: int, id_value: int | str | None) -> str:
        """A row's place as SQL."""
        return f"('{transaction}'::xid8, '{id_value}'::{self.id_kind})"


def demand_layout(connection: Any, outbox: Outbox, wanted: Sequence[str]) -> Layout:
    """Look at the table. wanted: columns; none: all but the transaction's.

    Raises SourceRefused with the statements that mend the table, SchemaError for a wanted column that is not there,
    and the client's errors.
    """
    if connection.info.server_version < OLDEST_VERSION:
        raise SourceRefused(
            f"{outbox.label}: this server is too old.", found=connection.info.server_version, expected="15 or later"
        )
    kind = _demand_kind(connection, outbox)
    columns = columns_of(connection, outbox.qualified)
    _demand_id(outbox, columns)
    _demand_transaction(connection, outbox, columns)
    _demand_indexes(connection, outbox, kind)
    _demand_rights(connection, outbox)
    read = _wanted(outbox, columns, wanted)
    rows = outbox.qualified if kind == "p" else f"ONLY {outbox.qualified}"
    return Layout(outbox, rows, columns[outbox.id].declared, read)


def from_the_future(outbox: Outbox, newest: Place, next_transaction: int) -> SourceRefused:
    """Rows that would be waited for until the server comes to their transactions, and then be in wrong places."""
    column = quoted(outbox.transaction)
    return SourceRefused(
        f"{outbox.label} holds rows of transactions that this server has not had: they were restored from a dump, or "
        "replicated from another server.",
        found=str(newest),
        expected=f"a transaction before {next_transaction}",
        next_step=f"UPDATE {outbox.qualified} SET {column} = DEFAULT WHERE {column} >= pg_current_xact_id(); "
        "reads them as new rows.",
        partition=PARTITION,
    )


def _wanted(outbox: Outbox, columns: Mapping[str, Column], wanted: Sequence[str]) -> list[Column]:
    names = wanted or [name for name in columns if name != outbox.transaction]
    for name in names:
        if name not in columns or name in META.names:
            raise SchemaError(
                f"{outbox.label} has no column {name}." if name not in columns else f"{name} is a name of the source.",
                found=", ".join(columns),
                expected=f"columns of the table, none of them {' or '.join(META.names)}",
                next_step="Correct the flow's schema, or alter the table.",
                column=name,
            )
    return [columns[name] for name in names]


def _demand_kind(connection: Any, outbox: Outbox) -> str:
    row = connection.execute(
        """
        SELECT relkind::text, relpersistence::text, row_security_active(pg_class.oid),
               EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = pg_class.oid),
               relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = pg_class.oid)
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = %s AND relname = %s
        """,
        [outbox.schema, outbox.name],
    ).fetchone()
    if row is None:
        raise SourceRefused(f"{outbox.label} does not exist.", next_step="Make the table, or correct its name.")
    kind, persistence, is_filtered, is_replicated, is_parent = row
    reasons = {
        "it is no table": kind not in ("r", "p"),
        "it is unlogged or temporary: a crash of the server empties it": persistence != "p",
        "row security hides rows from this user": is_filtered,
        "a subscription fills it, with transaction ids of another server": is_replicated,
        "other tables inherit from it: ids are not unique over them": is_parent,
    }
    for reason, holds in reasons.items():
        if holds:
            raise SourceRefused(
                f"{outbox.label} cannot be read as an outbox: {reason}.",
                expected="a table that transactions of this server insert into",
                next_step=f"Read the table that is written to, or read changes: {_changes(outbox)}.",
            )
    return str(kind)


def _demand_id(outbox: Outbox, columns: Mapping[str, Column]) -> None:
    found = columns.get(outbox.id)
    if found is None:
        raise SourceRefused(
            f"{outbox.label} has no column {outbox.id}.",
            found=", ".join(columns),
            expected=f"a unique column of type {', '.join(KEYS)}",
            next_step='Name the column that tells rows of one transaction apart: id="…".',
        )
    if found.declared not in KEYS:
        raise SourceRefused(
            f"{outbox.label}: the column {outbox.id} cannot be the id.",
            found=found.declared,
            expected=", ".join(KEYS),
            next_step=f"ALTER TABLE {outbox.qualified} ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE; "
            'then say id="number".',
        )


def _demand_transaction(connection: Any, outbox: Outbox, columns: Mapping[str, Column]) -> None:
    table, column = outbox.qualified, quoted(outbox.transaction)
    found = columns.get(outbox.transaction)
    if found is None:
        raise _unready(
            outbox,
            f"it has no column {outbox.transaction} for the id of the transaction that inserts a row. Without it rows "
            "that commit late are lost, by whatever else they are ordered",
            f"ALTER TABLE {table} ADD COLUMN {column} xid8 NOT NULL DEFAULT {FILLED_BY}; {_index(outbox)}",
            also=f"Where the table may not be altered, read its changes: {_changes(outbox)}.",
        )
    if found.declared != "xid8":
        raise _unready(
            outbox,
            f"the column {outbox.transaction} has the type {found.declared}, not xid8",
            f"ALTER TABLE {table} DROP COLUMN {column}, ADD COLUMN {column} xid8 NOT NULL DEFAULT {FILLED_BY}; "
            f"{_index(outbox)}",
            also='Or name another column: transaction="…".',
        )
    default, is_not_null, is_generated = connection.execute(
        "SELECT pg_get_expr(adbin, adrelid), attnotnull, attgenerated <> '' FROM pg_attribute "
        "LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = %s::regclass AND attname = %s",
        [table, outbox.transaction],
    ).fetchone()
    if default != FILLED_BY or is_generated:
        raise _unready(
            outbox,
            f"the column {outbox.transaction} is filled by {default or 'nothing'}, not by {FILLED_BY}",
            f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {FILLED_BY}; "
            f"UPDATE {table} SET {column} = DEFAULT;",
        )
    if not is_not_null:
        raise _unready(
            outbox,
            f"the column {outbox.transaction} may be NULL",
            f"UPDATE {table} SET {column} = DEFAULT WHERE {column} IS NULL; "
            f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL;",
        )


def _demand_indexes(connection: Any, outbox: Outbox, kind: str) -> None:
    """One that gives rows in order, and one under which no two rows have the same place."""
    indexes = connection.execute(
        """
        SELECT indisunique, (SELECT array_agg(coalesce(attname::text, '') ORDER BY place)
                             FROM unnest(indkey[0:indnkeyatts - 1]) WITH ORDINALITY AS part (number, place)
                             LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = number AND attnum > 0),
               indoption[0] = indoption[1], amname = 'btree'
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
        WHERE indrelid = %s::regclass AND indisvalid AND indpred IS NULL
        """,
        [outbox.qualified],
    ).fetchall()
    order = [outbox.transaction, outbox.id]
    if not any(is_unique and set(names) <= set(order) for is_unique, names, _, _ in indexes):
        raise _unready(
            outbox,
            f"nothing keeps two rows of a transaction from having the same {outbox.id}",
            f"ALTER TABLE {outbox.qualified} ADD UNIQUE ({quoted(outbox.id)});",
        )
    if not any(names[:2] == order and is_even and is_tree for _, names, is_even, is_tree in indexes):
        raise _unready(
            outbox,
            f"it has no index over ({outbox.transaction}, {outbox.id}): every read would go through the whole table",
            _index(outbox, is_partitioned=kind == "p"),
        )
    not_null = connection.execute(
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
        [outbox.qualified, outbox.id],
    ).fetchone()
    if not not_null[0]:
        raise _unready(
            outbox,
            f"the column {outbox.id} may be NULL",
            f"ALTER TABLE {outbox.qualified} ALTER COLUMN {quoted(outbox.id)} SET NOT NULL;",
        )


def _demand_rights(connection: Any, outbox: Outbox) -> None:
    for right in ("SELECT", "DELETE") if outbox.is_cleaned else ("SELECT",):
        check = "has_any_column_privilege" if right == "SELECT" else "has_table_privilege"
        if not connection.execute(f"SELECT {check}(%s::regclass, %s)", [outbox.qualified, right]).fetchone()[0]:
            raise SourceRefused(
                f"{outbox.label}: this user may not {right} there.",
                next_step=f"GRANT {right} ON {outbox.qualified} TO {quoted(connection.info.user)};",
            )


def _index(outbox: Outbox, *, is_partitioned: bool = False) -> str:
    how = "" if is_partitioned else "CONCURRENTLY "  # which a partitioned table does not have
    return f"CREATE INDEX {how}ON {outbox.qualified} ({quoted(outbox.transaction)}, {quoted(outbox.id)});"


def _changes(outbox: Outbox) -> str:
    return f"pg.changes({outbox.name!r})"


def _unready(outbox: Outbox, why: str, statements: str, *, also: str = "") -> SourceRefused:
    return SourceRefused(
        f"{outbox.label} cannot be read as an outbox: {why}.",
        expected=f"{outbox.transaction} xid8 NOT NULL DEFAULT {FILLED_BY}, a unique {outbox.id}, an index over both",
        next_step=f"{statements} {also}".strip(),
    )
