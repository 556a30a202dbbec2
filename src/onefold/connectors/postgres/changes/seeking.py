"""Where a stream begins: whether the server still has everything from a place on, and what is made for a new flow."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from onefold.connectors.postgres.changes.cursor import What
from onefold.connectors.postgres.changes.lost import ForLoss
from onefold.connectors.postgres.changes.place import Place
from onefold.connectors.postgres.changes.replication import Replication
from onefold.connectors.postgres.changes.slot import (
    Slot,
    drop_slot,
    end_of_log,
    find_slot,
    is_publication,
    make_publication,
    make_slot,
    unpublished,
)
from onefold.connectors.postgres.changes.snapshot import next_xid
from onefold.connectors.postgres.connection import psycopg
from onefold.errors import SourceRefused, SourceUnavailable

__all__ = ["MEMORY", "HeldByUs", "Names", "Sought", "memory_of", "parted_at", "seek"]

MEMORY = pa.schema(
    [("begin", pa.int64()), ("slot", pa.string()), ("system", pa.string()), ("table", pa.string()), ("oid", pa.int64())]
)
"""One row for each table that was begun: with which beginning (see Place), through which slot, of which server."""

WAITS, WAIT_SECONDS = 40, 0.05
"""How often and how long a slot is waited for that a session of ours has just left."""


class HeldByUs(SourceUnavailable):
    """Another session of this very read has the slot: one that the server has not missed yet, or a later instance."""


@dataclass(frozen=True)
class Names:
    """Of slot and publication on the server, and of our sessions. makes_publication: it is ours to make."""

    slot: str
    publication: str
    makes_publication: bool
    session: str


@dataclass(frozen=True)
class Sought:
    """A stream has been started at `place`.

    confirmed: what the server was told to be settled. started: every transaction that came by before has a smaller
    number.
    """

    place: Place
    confirmed: int
    started: int
    losses: ForLoss


def memory_of(place: Place, names: Names, what: What, system: str) -> pa.RecordBatch:
    """What is remembered of a beginning."""
    rows = [
        {"begin": place.begin, "slot": names.slot, "system": system, "table": table.name, "oid": table.number}
        for table in what.tables.values()
    ]
    return pa.RecordBatch.from_pylist(rows, MEMORY)


def seek(
    sql: Any,
    stream: Replication,
    place: Place,
    names: Names,
    *,
    what: What,
    known: Sequence[Mapping[str, Any]],
    is_read_whole: bool,
) -> Sought:
    """Start the stream at a place. known: rows of MEMORY. is_read_whole: a new beginning reads the tables first.

    Publication and slot are made for a beginning that is not known; one that is known, or a place in the log, needs
    those that are there. Raises InputLost, SourceRefused, SourceUnavailable, and the client's errors.
    If killed inside: publication and slot are there or not.
    """
    end = end_of_log(sql)
    losses = ForLoss(what.label, names.slot, place, end)
    ours = [row for row in known if row["begin"] == place.begin]
    _demand_same_tables(ours, what)
    system, timeline = _identity(stream)
    is_new = place.lsn is None and not ours
    if is_new:
        _make(sql, names, what)
    elif place.lsn is not None:
        _demand_history(stream, place, losses, system=system, timeline=timeline, end=end)
    elif ours[-1]["system"] != system:
        raise losses.other_history(system, timeline)
    remade = [row["table"] for row in ours if row["oid"] != what.tables[row["table"]].number]
    if remade:
        raise losses.table_remade(remade[0])
    if not is_new and not is_publication(sql, names.publication):
        raise losses.publication_gone(f"no publication {names.publication}")
    missing = unpublished(sql, names.publication, list(what.tables.values()), what.label)
    if missing is not None:
        raise losses.table_unpublished(missing, names.publication)
    slot = _usable(find_slot(sql, names.slot), names, losses, what.label)
    lsn = slot.confirmed or 0 if place.lsn is None else place.lsn
    _start(sql, stream, names, lsn, what.label)
    confirmed = _usable(find_slot(sql, names.slot), names, losses, what.label).confirmed or 0
    _demand_not_ahead(confirmed, lsn, losses)
    begun = replace(place, lsn=lsn, system=system, timeline=timeline)
    if place.lsn is None and is_read_whole:
        begun = replace(begun, table=next(iter(what.tables)))
    return Sought(begun, confirmed, next_xid(sql), losses)


def parted_at(history: str, timeline: int) -> int | None:
    """Where a history file says that it left a timeline. None: it never was on it."""
    for line in history.splitlines():
        parts = line.split("#", 1)[0].split()
        if len(parts) >= 2 and parts[0] == str(timeline):
            high, low = parts[1].split("/")
            return (int(high, 16) << 32) + int(low, 16)
    return None


def _demand_same_tables(ours: Sequence[Mapping[str, Any]], what: What) -> None:
    begun = {row["table"] for row in ours}
    if ours and begun != set(what.tables):
        raise SourceRefused(
            f"{what.label}: the flow began with other tables.",
            found=", ".join(sorted(what.tables)),
            expected=", ".join(sorted(begun)),
            next_step="Read further tables with a read of their own, or give the flow a new name.",
        )


def _identity(stream: Replication) -> tuple[str, int]:
    system, timeline, *_ = stream.ask("IDENTIFY_SYSTEM")[0]
    return str(system), int(timeline or 0)


def _demand_history(
    stream: Replication, place: Place, losses: ForLoss, *, system: str, timeline: int, end: int
) -> None:
    """The server's log must be a continuation of the one that the place is in."""
    if system != place.system:
        raise losses.other_history(system, timeline)
    at = max(place.lsn or 0, place.commit)
    if timeline != place.timeline:
        history = stream.ask(f"TIMELINE_HISTORY {timeline}")[0][1] if timeline > place.timeline else ""
        parted = parted_at(history or "", place.timeline)
        if parted is None or parted < at:
            raise losses.other_history(system, timeline)
    if at > end:
        raise losses.server_behind(end)


def _make(sql: Any, names: Names, what: What) -> None:
    """The publication comes first: what is logged before it is made cannot be decoded through it.

    An instance that sleeps here, and wakes when another has begun, changes nothing of what that one reads by.
    """
    if names.makes_publication:
        make_publication(sql, names.publication, list(what.tables.values()))
    slot = find_slot(sql, names.slot)
    if slot is not None and slot.status == "lost":
        drop_slot(sql, names.slot)
        slot = None
    if slot is None:
        make_slot(sql, names.slot, names.publication, is_ours=names.makes_publication)


def _usable(slot: Slot | None, names: Names, losses: ForLoss, label: str) -> Slot:
    if slot is None:
        raise losses.slot_gone()
    if slot.plugin != "pgoutput" or not slot.is_here:
        raise SourceRefused(
            f"{label}: slot {names.slot} is not for us.",
            found=f"plugin {slot.plugin}" + ("" if slot.is_here else ", of another database"),
            expected="a logical slot of this database, with plugin pgoutput",
            next_step="Name another one with slot=…, or drop it.",
        )
    if slot.status == "lost":
        raise losses.slot_invalid(slot.status)
    if slot.confirmed is None:
        raise SourceUnavailable(f"{label}: slot {names.slot} is still being made.", found=f"by session {slot.pid}")
    return slot


def _demand_not_ahead(confirmed: int, lsn: int, losses: ForLoss) -> None:
    """Nobody but us can move the slot while we hold it; who did so before may have taken what we still need."""
    if confirmed > lsn:
        raise losses.slot_ahead(confirmed)


def _start(sql: Any, stream: Replication, names: Names, lsn: int, label: str) -> None:
    """A session of ours that was just left, or ended, may hold the slot for a moment; anybody else's is named."""
    in_use = psycopg().errors.ObjectInUse
    for attempt in range(WAITS):
        try:
            stream.start(names.slot, lsn, names.publication)
            return
        except in_use as error:
            user = sql.execute(
                "SELECT pid, application_name, usename FROM pg_stat_activity WHERE pid = "
                "(SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s)",
                [names.slot],
            ).fetchone()
            if user is not None and (user[1] != names.session or attempt == WAITS - 1):
                raise (HeldByUs if user[1] == names.session else SourceUnavailable)(
                    f"{label}: slot {names.slot} is in use.",
                    found=f"session {user[0]}, application {user[1]!r}, user {user[2]}",
                    next_step=f"Find out whose it is; SELECT pg_terminate_backend({user[0]}) ends it.",
                ) from error
            threading.Event().wait(WAIT_SECONDS)
    raise SourceUnavailable(f"{label}: slot {names.slot} is in use.")
