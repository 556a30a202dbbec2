"""Prepared transactions of a PostgreSQL sink: for commit="together".

The rows and the token's move are one transaction, prepared before the seal and committed after it. Its name says whose
it is, so that any later instance finds it, and tells it from a leftover. It holds its locks until it is decided, the
token's row among them, so there is one at a time.
Source: PostgreSQL's documentation, pages PREPARE TRANSACTION and pg_prepared_xacts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from onefold.connectors.databases import session_name
from onefold.connectors.postgres.connection import psycopg
from onefold.connectors.postgres.tables import TableName
from onefold.connectors.spooling import file_name
from onefold.types import Binding, EpochHead, EpochNumber, Handle, Incarnation, SealId

__all__ = ["IS_GONE", "abort_prepared", "can_prepare", "commit_prepared", "handle_name", "listed", "prepare"]

IS_GONE = "42704"
"""SQLSTATE of a name that no prepared transaction has: decided, whoever did it."""

MOST_LABEL = 60
"""Characters of flow and sink in a name of 200 at most; they are for people."""


def handle_name(table: TableName, binding: Binding, epoch: EpochHead) -> str:
    """The name under which the rows of an epoch are prepared."""
    parts = [file_name(binding.journal), str(binding.incarnation), str(epoch.number), file_name(epoch.seal)]
    return _owner(table, binding) + ":".join(parts)


def can_prepare(connection: Any) -> bool:
    """Whether the server keeps prepared transactions at all."""
    return int(connection.execute("SHOW max_prepared_transactions").fetchone()[0]) > 0


def prepare(connection: Any, name: str) -> None:
    """End the transaction under way: from now on it survives the session and the server. Raises the client's errors."""
    connection.execute(_statement("PREPARE TRANSACTION", name))


def commit_prepared(connection: Any, name: str) -> None:
    """Make it visible. Raises the client's errors; `IS_GONE` when it is decided already."""
    connection.execute(_statement("COMMIT PREPARED", name))


def abort_prepared(connection: Any, name: str) -> None:
    """Forget it. Raises the client's errors; `IS_GONE` when it is decided already."""
    connection.execute(_statement("ROLLBACK PREPARED", name))


def listed(connection: Any, table: TableName, binding: Binding) -> Sequence[Handle]:
    """Every undecided handle of this flow's sink, of any journal and incarnation."""
    owner = _owner(table, binding)
    rows = connection.execute(
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, %s) ORDER BY gid",
        [owner],
    ).fetchall()
    return [_handle(name, name.removeprefix(owner).split(":")) for (name,) in rows]


def _owner(table: TableName, binding: Binding) -> str:
    label = file_name(f"{binding.flow} {binding.sink}")[:MOST_LABEL]
    return f"onefold:{label}:{session_name(table, binding).rpartition(' ')[2]}:"


def _handle(name: str, parts: Sequence[str]) -> Handle:
    journal, incarnation, epoch, seal = parts
    return Handle(
        unquote(journal), Incarnation(int(incarnation)), EpochNumber(int(epoch)), SealId(unquote(seal)), {"name": name}
    )


def _statement(verb: str, name: str) -> str:
    """These statements take no parameters."""
    return f"{verb} {psycopg().sql.quote(name)}"
