"""The replication slot and the publication: what keeps the log for us, and what is in the stream.

Privileges: REPLICATION for the user; to make the publication, CREATE on the database and ownership of the tables; to
read the tables for the first time, SELECT.
Source: PostgreSQL's documentation, chapters Logical Replication (Publication, Security), pg_replication_slots,
Replication Management Functions.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onefold.connectors.postgres.changes.catalog import SeenTable
from onefold.connectors.postgres.changes.place import lsn_number, lsn_text
from onefold.connectors.postgres.changes.snapshot import next_xid
from onefold.connectors.postgres.connection import psycopg
from onefold.connectors.postgres.types import quoted
from onefold.disk import durable_step
from onefold.errors import BuildError, SourceRefused, SourceUnavailable
from onefold.types import canonical_json

__all__ = [
    "Slot", "check_slot_name", "default_name", "demand_server", "drop_slot", "end_of_log",
    "explained", "find_slot", "is_publication", "make_publication", "make_slot", "session_name", "still_open",
    "unpublished",
]  # fmt: skip

MOST_LETTERS = 40

OPEN_WAITS, OPEN_WAIT_SECONDS = 600, 0.05
"""How often and how long open transactions are waited for when reading begins."""

_SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}")


@dataclass(frozen=True)
class Slot:
    """A slot as it stands. confirmed: every transaction whose commit record starts below it is settled; None: the slot
    is just being made. status: of the log that it needs; "lost": it is gone."""

    plugin: str
    is_here: bool
    pid: int | None
    confirmed: int | None
    status: str


def default_name(flow: str, read: str) -> str:
    """The name of slot and publication for a read of a flow: readable, and different for each."""
    told = re.sub(r"[^a-z0-9]+", "_", f"{flow}_{read}".lower()).strip("_")[:MOST_LETTERS]
    mark = hashlib.sha256(canonical_json([flow, read]).encode()).hexdigest()[:10]
    return f"onefold_{told}_{mark}"


def check_slot_name(name: str) -> str:
    """Raises BuildError for what cannot be one."""
    if not _SLOT_NAME.fullmatch(name):
        raise BuildError(
            "PostgreSQL cannot have a slot of this name.",
            found=repr(name),
            expected="1 to 63 lower-case letters, digits and _",
        )
    return name


def session_name(flow: str, read: str, slot: str) -> str:
    """Names the sessions of this read, and no other."""
    named = canonical_json(["changes", flow, read, slot])
    return f"onefold {hashlib.sha256(named.encode()).hexdigest()[:24]}"


def demand_server(connection: Any, label: str) -> None:
    """Raises SourceRefused when the server logs too little, SourceUnavailable for a standby."""
    level, is_standby = connection.execute("SELECT current_setting('wal_level'), pg_is_in_recovery()").fetchone()
    if is_standby:
        raise SourceUnavailable(f"{label}: this server is a standby.", next_step="Name the primary in the URL.")
    if level != "logical":
        raise SourceRefused(
            f"{label}: the server's log does not tell which rows change.",
            found=f"wal_level = {level}",
            expected="wal_level = logical",
            next_step="ALTER SYSTEM SET wal_level = 'logical', then restart the server.",
        )


def end_of_log(connection: Any) -> int:
    """Through where the log is durable."""
    return lsn_number(connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()[0])


# ---------------------------------------------------------------------------------------------------------------- slot


def find_slot(connection: Any, name: str) -> Slot | None:
    """The slot, wherever it is."""
    row = connection.execute(
        "SELECT coalesce(plugin, 'physical'), coalesce(database = current_database(), false), active_pid, "
        "confirmed_flush_lsn::text, coalesce(wal_status, '') FROM pg_replication_slots WHERE slot_name = %s",
        [name],
    ).fetchone()
    if row is None:
        return None
    plugin, is_here, pid, confirmed, status = row
    return Slot(plugin, is_here, pid, None if confirmed is None else lsn_number(confirmed), status)


def make_slot(connection: Any, name: str, publication: str, *, is_ours: bool) -> None:
    """Make a slot from which the log can be decoded for certain, unless another instance is faster.

    A temporary one, of this session alone, is made, moved on (see `_clear`), and copied: so the slot is ready when it
    is there, and from then on nothing but `settle` moves it. is_ours: the publication. Raises SourceUnavailable when
    transactions stay open. If killed inside: it is there or not.
    """
    unready = f"onefold_new_{connection.info.backend_pid}"
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', true)", [unready])
    try:
        _clear(connection, unready, publication, is_ours=is_ours)
        with durable_step("postgres.slot"), contextlib.suppress(psycopg().errors.DuplicateObject):
            connection.execute("SELECT pg_copy_logical_replication_slot(%s, %s, false)", [unready, name])
    finally:
        with contextlib.suppress(psycopg().Error):
            drop_slot(connection, unready)


def drop_slot(connection: Any, name: str) -> None:
    """One whose log is gone is of no use to anybody."""
    connection.execute("SELECT pg_drop_replication_slot(%s)", [name])


def _clear(connection: Any, name: str, publication: str, *, is_ours: bool) -> None:
    """Move a slot that is new to where everything behind can be decoded.

    One that is made while others change the catalog does not know of some of their changes, and what is logged with
    tables that it does not know of ends every decoding ("could not map filenode"; with PostgreSQL 15 within a few
    attempts beside CREATE TABLE, as a test shows). It learns of them with the next change of the catalog that is
    committed when all those transactions have ended; what began before that one is to be over as well, and passed.
    """
    await_open(connection)
    if is_ours:
        connection.execute(f"COMMENT ON PUBLICATION {quoted(publication)} IS 'onefold'")
    else:
        connection.execute('CREATE TEMPORARY TABLE "_onefold_beginning" (x integer) ON COMMIT DROP')
    await_open(connection)
    with durable_step("postgres.beginning"):
        _move(connection, name, lsn_text(end_of_log(connection)))


def await_open(connection: Any) -> None:
    """Until every transaction that has changed anything, and is open now, has ended. Raises SourceUnavailable."""
    bound = next_xid(connection)
    for _ in range(OPEN_WAITS):
        query = "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= %s::xid8"
        if connection.execute(query, [str(bound)]).fetchone()[0]:
            return
        threading.Event().wait(OPEN_WAIT_SECONDS)
    raise SourceUnavailable(
        "Reading changes begins when every transaction has ended that was open before.",
        found=f"open for more than {OPEN_WAITS * OPEN_WAIT_SECONDS:g} seconds: {still_open(connection)}",
        next_step="Wait until they have ended, then run again.",
    )


def still_open(connection: Any) -> str:
    """Who has changed something, and has not ended: sessions and prepared transactions, five at most."""
    rows = connection.execute(
        "SELECT format('session %s (%s)', pid, application_name) FROM pg_stat_activity WHERE backend_xid IS NOT NULL "
        "AND pid <> pg_backend_pid() UNION ALL SELECT format('prepared %s', gid) FROM pg_prepared_xacts LIMIT 5"
    ).fetchall()
    return ", ".join(text for (text,) in rows) or "of a session that has just ended"


def _move(connection: Any, name: str, lsn: str) -> None:
    connection.execute(
        "SELECT pg_replication_slot_advance(slot_name, least(%s::pg_lsn, pg_current_wal_flush_lsn())) "
        "FROM pg_replication_slots WHERE slot_name = %s AND confirmed_flush_lsn < %s::pg_lsn",
        [lsn, name, lsn],
    )


# --------------------------------------------------------------------------------------------------------- publication


def is_publication(connection: Any, name: str) -> bool:
    """Whether there is one of the name."""
    return bool(connection.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", [name]).fetchall())


def make_publication(connection: Any, name: str, tables: Sequence[SeenTable]) -> None:
    """Make it, or add to it what it lacks: nobody ever takes a table out. If killed inside: as before, or made."""
    rows = connection.execute(
        "SELECT prrelid::bigint FROM pg_publication_rel JOIN pg_publication p ON p.oid = prpubid WHERE pubname = %s",
        [name],
    ).fetchall()
    lacking = ", ".join(f"ONLY {table.qualified}" for table in tables if (table.number,) not in rows)
    if not lacking:
        return
    with durable_step("postgres.publication"):
        if not is_publication(connection, name):
            connection.execute(f"CREATE PUBLICATION {quoted(name)} FOR TABLE {lacking}")
        else:
            connection.execute(f"ALTER PUBLICATION {quoted(name)} ADD TABLE {lacking}")


def unpublished(connection: Any, name: str, tables: Sequence[SeenTable], label: str) -> str | None:
    """The first of the tables whose changes the publication leaves out.

    Raises SourceRefused when there is no such publication, or it leaves out some kinds of changes, rows or columns.
    """
    row = connection.execute(
        "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication WHERE pubname = %s", [name]
    ).fetchone()
    every = ", ".join(f"ONLY {table.qualified}" for table in tables)
    mend = f"CREATE PUBLICATION {quoted(name)} FOR TABLE {every}"
    if row is None:
        raise SourceRefused(f"{label}: there is no publication {name}.", next_step=mend)
    partial = SourceRefused(
        f"{label}: publication {name} leaves out some changes.",
        expected="a publication of INSERT, UPDATE, DELETE and TRUNCATE, of all rows and columns",
        next_step=f"DROP PUBLICATION {quoted(name)}; {mend}",
    )
    if not row[0]:
        raise partial
    found = connection.execute(
        "SELECT tablename, attnames::text[], rowfilter IS NOT NULL FROM pg_publication_tables "
        "WHERE pubname = %s AND schemaname = %s",
        [name, tables[0].schema],
    ).fetchall()
    published = {table: (columns, is_filtered) for table, columns, is_filtered in found}
    for table in tables:
        if table.name not in published:
            return table.name
        columns, is_filtered = published[table.name]
        if is_filtered or not {column.name for column in table.columns} <= set(columns):
            raise partial
    return None


# -------------------------------------------------------------------------------------------------------------- errors

_EXPLAINED = (
    (
        "53400",
        "",
        "all replication slots of the server are taken",
        "Raise max_replication_slots, or drop some: a new flow needs two for a moment, and then one.",
    ),
    ("53300", "max_wal_senders", "all its WAL senders are taken", "Raise max_wal_senders."),
    ("", "max_wal_senders", "all its WAL senders are taken", "Raise max_wal_senders."),
    (
        "55P03",
        "",
        "a lock was not to be had in time, or older transactions are still open",
        "Wait until they have ended, then run again.",
    ),
)
_REFUSED = (
    (
        "XX000",
        "could not map filenode",
        "the slot was made while others made tables, and cannot be decoded",
        "Drop the slot; a new flow makes one that can.",
    ),
    ("", "start wal", "the user may not read the log", "ALTER USER … REPLICATION"),
    ("42501", "replication", "the user may not read the log", "ALTER USER … REPLICATION"),
    ("42501", "publication", "the user may not publish", "GRANT CREATE ON DATABASE …; the user must own the tables."),
    ("42501", "permission denied for database", "the user may not publish", "GRANT CREATE ON DATABASE …"),
    ("42501", "must be owner", "the user may not publish", "The user must own the tables; or name publication=…"),
)


def explained(error: Any, label: str) -> SourceRefused | SourceUnavailable | None:
    """What an error of the client means for slots and publications, if it is one of theirs."""
    state, text = str(error.sqlstate or ""), str(error)
    for rows, kind in ((_REFUSED, SourceRefused), (_EXPLAINED, SourceUnavailable)):
        for wanted, part, what, mend in rows:
            if wanted == state and part in text.lower():
                return kind(f"{label}: {what}.", found=text.strip(), next_step=mend)
    return None
