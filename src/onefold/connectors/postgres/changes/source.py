"""The changes of tables as a stream, in the order of their transactions' commits.

The slot keeps the log for us and is moved on by `settle` alone; where we are stands in the position. So a position
can be read from again as long as it is not settled, and what is done is never asked for again.
Source: PostgreSQL's documentation, chapters Logical Decoding and Logical Replication.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from onefold.clock import SystemClock
from onefold.connectors.postgres.changes.catalog import SeenTable, look_at, schema_of
from onefold.connectors.postgres.changes.cursor import Cursor, What
from onefold.connectors.postgres.changes.glance import Glance
from onefold.connectors.postgres.changes.place import Place
from onefold.connectors.postgres.changes.replication import Replication
from onefold.connectors.postgres.changes.rows import META, Row, RowsToArrow
from onefold.connectors.postgres.changes.seeking import MEMORY, HeldByUs, Names, memory_of, seek
from onefold.connectors.postgres.changes.slot import (
    default_name,
    demand_server,
    end_of_log,
    explained,
    session_name,
)
from onefold.connectors.postgres.changes.snapshot import mark
from onefold.connectors.postgres.changes.standing import standing
from onefold.connectors.postgres.changes.wanted import Wanted, changes_label, columns_wanted, demand_keys
from onefold.connectors.postgres.changes.watch import HeldUp, Watch
from onefold.connectors.postgres.connection import Server, end_sessions_of, psycopg
from onefold.connectors.spooling import OP_COLUMN
from onefold.disk import durable_step
from onefold.errors import (
    NotSupported,
    OnefoldError,
    SchemaError,
    SourceUnavailable,
    check,
)
from onefold.protocols import CheckResult, Clock, Copy, Limit, Read, Reading, SourcePromise
from onefold.types import Binding, PartitionId, Position

__all__ = ["ChangesSource"]

PARTITION = PartitionId("changes")

STEP_BYTES = 16 << 20
"""So much of the log that holds nothing for us is passed before the position moves: the server keeps that much."""

PATIENCE_SECONDS = 300.0
"""How long a server that was there may be gone while the flow runs: it is restarted, or a standby takes over."""

PAUSE_SECONDS = 1.0
"""Between two attempts to reach it."""

NUDGE_SECONDS = 1.0
"""After so long without a word we write a marker, for the server sends only what it has written out."""

CUT = ("08", "57")
"""Classes of SQLSTATE that end a connection."""

LOG = logging.getLogger("onefold")


class ChangesSource:
    """Position: see `place.Place`. One partition: a slot is one stream."""

    def __init__(self, server: Server, wanted: Wanted, clock: Clock | None = None) -> None:
        self._server = server
        self._wanted = wanted
        self._clock: Clock = clock or SystemClock()
        self._flow, self._read = "onefold", "changes"
        self._declared: pa.Schema | None = None
        self._meta: tuple[str, ...] = ()
        self._copies: Sequence[Copy] = ()
        self._known: list[Mapping[str, Any]] = []
        self._told: list[Mapping[str, Any]] = []
        self._is_told = False
        self._tables: tuple[SeenTable, ...] = ()
        self._rows: RowsToArrow | None = None
        self._sql: Any = None
        self._stream: Replication | None = None
        self._cursor: Cursor | None = None
        self._watch: Watch | None = None
        self._at: Position = None
        self._settled = Place()
        self._given = Place()
        self._confirmed = 0
        self._heard_at = self._lost_at = 0.0
        self._has_read = self._is_cut = False
        self._lock = threading.Lock()

    @property
    def memory(self) -> pa.Schema:
        """What was begun: which tables, through which slot."""
        return MEMORY

    @property
    def promise(self) -> SourcePromise:
        """Replayable from what is not settled."""
        return SourcePromise(
            is_replayable=True,
            is_ordered=True,
            payload="rows",
            meta=META,
            gap="the slot is gone, invalid or ahead of us, the server went back in time, or a table was made anew",
            isolation="only committed transactions are in the stream, whole, in the order of their commits",
            conditions=(
                "an upsert whose key a function computes has the table's own key: deletes name that alone",
                "nobody but onefold reads through the slot, or ever takes tables out of the publication",
                "max_slot_wal_keep_size, if it is set, is more than the server logs while the flow stands still",
                "a standby that takes over has the slot and all that was read (else a failover is reported as a loss)",
                "a server that was restored has a new timeline, or ends before what was read when the flow runs next",
            ),
        )

    def told(self, reading: Reading) -> None:
        """Names the slot, and which columns are read. Raises NotSupported, SchemaError."""
        self._flow, self._read = reading.flow, reading.name
        self._declared, self._meta = reading.declared if len(reading.declared) else None, reading.meta
        if self._declared is not None and OP_COLUMN not in self._declared.names:
            raise SchemaError(
                f"{self._label}: without {OP_COLUMN}, nobody can tell a delete from a row.",
                next_step=f'Add "{OP_COLUMN}": "VARCHAR" to the schema; select(…) can drop it later.',
            )
        if len(self._wanted.tables) > 1 and "_table" not in reading.meta:
            raise NotSupported(
                f"{self._label}: without a name, nobody can tell the rows of several tables apart.",
                next_step='Say flow.read(…, meta="_table"), then where("_table = \'…\'").',
            )

    def copied(self, copies: Sequence[Copy]) -> None:
        """They are held against the tables' keys by `open` and `check`."""
        self._copies = tuple(copies)

    def sees(self, target: str) -> bool:
        """Whether this is one of the tables."""
        return any(target == f"postgres:{self._server.target}:{self._wanted.schema}.{name}" for name in self._names)

    def infer_schema(self) -> pa.Schema:
        """The tables' columns together, and `_op`. Raises SourceUnavailable, SourceRefused, SchemaError."""
        with self._answers(), self._server.session(SourceUnavailable) as connection:
            return schema_of(look_at(connection, self._wanted.schema, self._names, self._label))

    def glance(self) -> Glance:
        """The rows that are there: without a slot, there are no others."""
        return Glance(self._server, self._wanted, self._declared, self._meta, self.promise)

    def open(self, remembered: pa.Table | None) -> None:
        """Connect, end what an earlier instance has left open, and look at the tables: do the copies have their keys?

        Raises SourceUnavailable, SourceRefused, SchemaError. If killed inside: nothing happened.
        """
        self.close()
        self._known = remembered.to_pylist() if remembered is not None else []
        self._told = []
        self._is_told = self._has_read = self._is_cut = False
        self._lost_at = 0.0
        self._settled = Place()
        with self._answers():
            self._sql = self._connected()
            end_sessions_of(self._sql, self._called.session)
            self._tables = look_at(self._sql, self._wanted.schema, self._names, self._label)
            columns = columns_wanted(self._wanted, self._tables, self._declared, self._label)
            demand_keys(self._copies, self._tables, self._label)
            self._rows = RowsToArrow(columns, self._meta, self._label)

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """One."""
        return {PARTITION: (Place().position(), None)}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Changes from `start` on. The first read of a new flow makes publication and slot, if they are missing.

        A server that goes away while the flow runs is waited for, PATIENCE_SECONDS. Raises InputLost, SourceError,
        SourceRefused, SourceUnavailable.
        """
        check(partition == PARTITION, "a slot has one partition", found=partition)
        try:
            with self._lock, self._answers():
                cursor = self._seek(start)
            found = self._take(cursor, start, limit, wait_seconds)
        except SourceUnavailable as error:
            self._hang_up()
            if not self._has_patience(error):
                raise
            threading.Event().wait(min(PAUSE_SECONDS, wait_seconds))
            return Read([], start)
        except BaseException:
            self._hang_up()
            raise
        self._has_read, self._lost_at = True, 0.0
        self._at = found.next
        return found

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Let the server forget what is before. An error is none: it is told again, at the latest by the next run."""
        self._settled = Place.of(positions.get(PARTITION, {}))
        if not self._lock.acquire(blocking=False):
            return  # a read is under way, and tells it
        try:
            self._confirm()
        except (OnefoldError, psycopg().Error, OSError) as error:
            LOG.debug("%s: not told what is settled: %s", self._label, self._server.clean(str(error)))
        finally:
            self._lock.release()

    def close(self) -> None:
        """Say what is settled, and hang up."""
        with self._lock, contextlib.suppress(psycopg().Error, OSError):
            self._confirm()
        self._hang_up()

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Does the server log enough, are the tables as they must be, and how far behind is the slot? Writes
        nothing."""
        try:
            with self._answers(), self._server.session(SourceUnavailable) as connection:
                demand_server(connection, self._label)
                self._tables = look_at(connection, self._wanted.schema, self._names, self._label)
                columns_wanted(self._wanted, self._tables, self._declared, self._label)
                demand_keys(self._copies, self._tables, self._label)
                return standing(connection, self._called, self._tables, self._label)
        except OnefoldError as error:
            what = error.summary.removeprefix(f"{self._label}: ")
            text = f"{what} Found: {error.found}" if error.found else what
            return [CheckResult(self._label, "failed", text, error.next_step or "")]

    # ------------------------------------------------------------------------------------------------------- inner

    @property
    def _names(self) -> tuple[str, ...]:
        return self._wanted.tables

    @property
    def _label(self) -> str:
        return changes_label(self._server, self._wanted)

    @property
    def _called(self) -> Names:
        slot = self._wanted.slot or default_name(self._flow, self._read)
        given = self._wanted.publication
        return Names(slot, given or slot, given is None, session_name(self._flow, self._read, slot))

    @contextlib.contextmanager
    def _answers(self) -> Any:
        """The client's errors as ours."""
        try:
            yield
        except psycopg().Error as error:
            self._is_cut = str(error.sqlstate or "08")[:2] in CUT
            failure = explained(error, self._label) or self._server.failure(error, SourceUnavailable)
            raise failure from None

    def _seek(self, start: Position) -> Cursor:
        """The cursor that stands at `start`."""
        if self._cursor is not None and self._at == start:
            return self._cursor
        self._hang_up_stream()
        if self._sql is None:
            self._sql = self._connected()
        stream = self._stream = Replication(self._server, self._called.session)
        what, rows = self._what, self._rows
        check(rows is not None, "a source is opened before it is read")
        found = seek(
            self._sql,
            stream,
            Place.of(start),
            self._called,
            what=what,
            known=[*self._known, *self._told],
            is_read_whole=self._wanted.snapshot,
        )
        self._confirmed = found.confirmed
        self._cursor = Cursor(what, stream, self._sql, place=found.place, started=found.started, losses=found.losses)
        self._watch = Watch(self._cursor, self._sql, self._clock, self._label)
        self._at, self._given = start, found.place
        self._heard_at = self._clock.monotonic()
        return self._cursor

    def _connected(self) -> Any:
        """A session for questions. Policies must not hide rows from it: that is an error instead."""
        connection = self._server.connect(SourceUnavailable, name=self._called.session)
        connection.execute("SET row_security = off")
        demand_server(connection, self._label)
        return connection

    @property
    def _what(self) -> What:
        wanted = self._rows.wanted if self._rows is not None else ()
        tables = {table.name: table for table in self._tables}
        ignores = self._wanted.truncate == "ignore"
        return What(self._label, tables, tuple(wanted), "_before" in self._meta, ignores, self._called.slot)

    def _take(self, cursor: Cursor, start: Position, limit: Limit, wait_seconds: float) -> Read:
        until = None if limit.until is None else Place.of(limit.until)
        rows, is_idle = self._wait(cursor, limit, until, wait_seconds)
        if self._watch is not None:
            with self._answers():
                self._watch.look(is_idle=is_idle)
        place = cursor.place
        remember = self._remember(Place.of(start), place.system, is_moving=bool(rows))
        batches = [self._rows.batch(rows)] if rows and self._rows is not None else []
        if until is not None and place.reaches(until):
            return Read(batches, until.position(), remember, is_idle=not rows)
        has_moved = (place.table, place.after) != (self._given.table, self._given.after)
        has_moved |= (place.lsn or 0) - (self._given.lsn or 0) >= STEP_BYTES
        if not rows and not has_moved:
            return Read([], start, remember, is_idle)
        self._given = place
        return Read(batches, place.position(), remember, is_idle and not rows)

    def _wait(self, cursor: Cursor, limit: Limit, until: Place | None, wait_seconds: float) -> tuple[list[Row], bool]:
        """Rows, and whether there are none at all."""
        deadline = self._clock.monotonic() + wait_seconds
        while True:
            rows = self._taken(cursor, limit, until)
            left = deadline - self._clock.monotonic()
            if rows or left <= 0 or (until is not None and cursor.place.reaches(until)):
                break
            with self._answers():
                cursor.wait(left)
        if rows:
            return rows, False
        with self._answers():
            end = end_of_log(self._sql)
        rows = self._taken(cursor, limit, until)
        is_behind = cursor.is_behind(end)
        if is_behind and self._clock.monotonic() - self._heard_at > NUDGE_SECONDS:
            self._heard_at = self._clock.monotonic()
            with self._answers():
                mark(self._sql, self._called.slot, "")
        return rows, not rows and not is_behind

    def _taken(self, cursor: Cursor, limit: Limit, until: Place | None) -> list[Row]:
        with self._lock, self._answers():
            self._confirm()
            heard = cursor.heard
            rows = cursor.take(limit, until)
            if cursor.heard != heard:
                self._heard_at = self._clock.monotonic()
            return rows

    def _remember(self, start: Place, system: str, *, is_moving: bool) -> pa.RecordBatch | None:
        """What was begun, with the first rows of a beginning; and once, when there are none yet."""
        if start.lsn is not None or any(row["begin"] == start.begin for row in self._known):
            return None
        if self._is_told and not is_moving:
            return None
        self._is_told = True
        remembered = memory_of(start, self._called, self._what, system)
        self._told = remembered.to_pylist()
        return remembered

    def _confirm(self) -> None:
        """Tell the server what is settled, if that is new. The caller holds the lock.

        Of a beginning that was given up, or of another server, places mean nothing here.
        """
        cursor, stream, settled = self._cursor, self._stream, self._settled
        if cursor is None or stream is None or settled.lsn is None or not settled.shares_history(self._given):
            return
        if settled.lsn <= max(cursor.settled, self._confirmed):
            return
        with durable_step("postgres.settle"):
            stream.confirm(settled.lsn)
        cursor.settled = settled.lsn

    def _has_patience(self, error: SourceUnavailable) -> bool:
        """Not for what is wrong from the beginning; but a connection may break at any time, or be ended by a later
        instance: then the journal is to say so."""
        may_pass = self._has_read or self._is_cut or self._lost_at or isinstance(error, HeldByUs)
        if isinstance(error, HeldUp) or not may_pass:
            return False
        now = self._clock.monotonic()
        if not self._lost_at:
            self._lost_at = now
            LOG.warning("%s is waited for: %s %s", self._label, error.summary, error.found)
        return now - self._lost_at < PATIENCE_SECONDS

    def _hang_up_stream(self) -> None:
        self._cursor = self._watch = None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _hang_up(self) -> None:
        with self._lock:
            self._hang_up_stream()
            connection, self._sql = self._sql, None
        if connection is not None:
            with contextlib.suppress(psycopg().Error):
                connection.close()
