"""Prepared transactions of a PostgreSQL sink: for commit="together".

The rows and the tokens' moves of all sinks that share a session are one transaction, prepared before the seal and
committed after it. Its name says whose it is, so that any later instance finds it, and tells it from a leftover. It
holds its locks until it is decided, the tokens' rows among them, so there is one at a time.
Source: PostgreSQL's documentation, pages PREPARE TRANSACTION and pg_prepared_xacts.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from onefold.connectors.postgres.connection import Server, psycopg
from onefold.connectors.spooling import file_name
from onefold.types import Binding, EpochHead, EpochNumber, Handle, Incarnation, SealId, canonical_json

__all__ = ["IS_GONE", "abort_prepared", "can_prepare", "commit_prepared", "handle_name", "listed", "prepare"]

IS_GONE = "42704"
"""SQLSTATE of a name that no prepared transaction has: decided, whoever did it."""

BUSY_TRIES, BUSY_SECONDS = 100, 0.05
"""How often, and how long each time, another session that decides the same one is waited for."""

MOST_LABEL = 60
"""Characters of a flow's name in a name of 199 at most; they are for people."""


def handle_name(server: Server, binding: Binding, epoch: EpochHead, sinks: Sequence[str]) -> str:
    """The name under which the rows of these sinks are prepared. Of other sinks, another name."""
    mark = hashlib.sha256(canonical_json(sorted(sinks)).encode()).hexdigest()[:8]
    parts = [file_name(binding.journal), str(binding.incarnation), str(epoch.number), file_name(epoch.seal), mark]
    return _owner(server, binding) + ":".join(parts)


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
    """Forget it. Raises the client's errors; `IS_GONE` when it is decided already.

    Sinks of one flow in several sessions list it all, and may ask for it at once: then it is busy for a moment. What
    another user has prepared only that one may forget: the sink that does so is asked at the same time.
    """
    errors = psycopg().errors
    for _ in range(BUSY_TRIES):
        try:
            connection.execute(_statement("ROLLBACK PREPARED", name))
            return
        except (errors.ObjectNotInPrerequisiteState, errors.InsufficientPrivilege):
            threading.Event().wait(BUSY_SECONDS)
    connection.execute(_statement("ROLLBACK PREPARED", name))


def listed(connection: Any, server: Server, binding: Binding) -> Sequence[Handle]:
    """Every undecided handle of this flow's sinks in this database, of any journal and incarnation.

    Those of sinks beside this one are among them: no name has room for all whose rows it holds.
    """
    owner = _owner(server, binding)
    rows = connection.execute(
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, %s) ORDER BY gid",
        [owner],
    ).fetchall()
    return [_handle(name, owner) for (name,) in rows]


def _owner(server: Server, binding: Binding) -> str:
    """Nothing of the URL, which may be written otherwise while something is undecided."""
    label = file_name(binding.flow)[:MOST_LABEL]
    mark = hashlib.sha256(canonical_json([server.tokens, binding.flow, binding.lane]).encode()).hexdigest()[:24]
    return f"onefold:{label}:{mark}:"


def _handle(name: str, owner: str) -> Handle:
    journal, incarnation, epoch, seal, *_ = name.removeprefix(owner).split(":")
    return Handle(
        unquote(journal), Incarnation(int(incarnation)), EpochNumber(int(epoch)), SealId(unquote(seal)), {"name": name}
    )


def _statement(verb: str, name: str) -> str:
    """These statements take no parameters."""
    return f"{verb} {psycopg().sql.quote(name)}"
