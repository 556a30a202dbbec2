"""An append-only table of PostgreSQL as a stream, without losing rows of transactions that commit out of order.

See `outbox_rows` for the order in which it is read, and `outbox_table` for what the table must be.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from onefold.clock import SystemClock
from onefold.connectors.postgres.columns import columns_of, inferred
from onefold.connectors.postgres.connection import may_pass, psycopg
from onefold.connectors.postgres.outbox_cleaning import Cleaner
from onefold.connectors.postgres.outbox_place import PARTITION, START, Origin, Place, of_another_database, restored
from onefold.connectors.postgres.outbox_rows import (
    ROW_BYTES,
    Room,
    View,
    is_flushed,
    is_standby,
    look,
    newest_below,
    origin_of,
    reading,
    rows_after,
    set_session,
)
from onefold.connectors.postgres.outbox_table import META, Layout, Outbox, demand_layout, from_the_future
from onefold.connectors.postgres.outbox_waiting import Patience, oldest_transaction
from onefold.errors import OnefoldError, SourceError, SourceRefused, SourceUnavailable, check
from onefold.protocols import CheckResult, Clock, Limit, Read, Reading, SourcePromise
from onefold.types import Binding, PartitionId, Position

__all__ = ["OutboxSource"]

LOG = logging.getLogger("onefold")

MEMORY = pa.schema([("begin", pa.string())])

POLL_SECONDS = 0.05
FLUSH_POLL_SECONDS = 0.01

ENDS_SECONDS = 1.0
"""How often the end of the table is asked for."""

RETRY_SECONDS = 0.5

OUTAGE_SECONDS = 900.0
"""How long a server that was there may be away before the flow ends. Running it again goes on."""

_CHANGED = ("42P01", "42703", "42883", "42804")
"""SQLSTATEs of a statement that the table no longer fits."""


class OutboxSource:
    """Position: {"transaction", "id"} of the last row read, and of which database; {} before all rows."""

    def __init__(self, outbox: Outbox, clock: Clock | None = None) -> None:
        self._outbox = outbox
        self._clock = clock or SystemClock()
        self._wanted: tuple[str, ...] = ()
        self._closed = threading.Event()
        self._connection: Any = None
        self._layout: Layout | None = None
        self._origin: Origin | None = None
        self._begin = START
        self._untold: pa.RecordBatch | None = None
        self._end: tuple[float, Place | None] = (float("-inf"), None)
        self._row_bytes = float(ROW_BYTES)
        self._patience = Patience(outbox.label, self._clock)
        self._away_since: float | None = None
        self._retry_at = 0.0
        self._cleaner: Cleaner | None = None
        self._cleaning = threading.Lock()
        self._warned_of: tuple[int, int] | None = None

    @property
    def memory(self) -> pa.Schema | None:
        """Where it was begun, when that is not the beginning: decided once."""
        return None if self._outbox.start == "earliest" else MEMORY

    @property
    def promise(self) -> SourcePromise:
        """Replayable while rows stay, ordered by (transaction, id)."""
        column = self._outbox.transaction
        conditions = [
            f"nobody writes the column {column}: its default alone does, in this database",
            "rows are only inserted, and not deleted before they are read: nobody would notice",
            "no transaction that writes runs for long, in any database of the server: rows wait for all older ones",
            "what is committed survives a crash and a failover: fsync is on, a standby synchronous",
        ]
        if self._outbox.is_cleaned:
            conditions.append("nothing else reads the table: rows are deleted when this flow has settled them")
        return SourcePromise(
            is_replayable=True,
            is_ordered=True,
            payload="rows",
            meta=META,
            gap="the position is ahead of the server's transactions, or of another server or database",
            isolation="rows are read when every transaction as old as theirs has ended",
            conditions=tuple(conditions),
        )

    def told(self, reading: Reading) -> None:
        """Only the columns that the flow declares are read."""
        self._wanted = tuple(reading.declared.names)

    def sees(self, target: str) -> bool:
        """Whether it is this table."""
        return target == f"postgres:{self._outbox.server.target}:{self._outbox.schema}.{self._outbox.name}"

    def open(self, remembered: pa.Table | None) -> None:
        """Connect, look at the table, and decide where to begin.

        Raises SourceRefused with what mends the table, SchemaError, SourceUnavailable, SettingMissing, ExtraMissing.
        """
        self.close()
        self._closed.clear()
        self._away_since = None
        with self._explained():
            self._connect(SourceRefused)
            rows = remembered.to_pylist() if remembered is not None else []
            if rows:
                self._begin = Place.of(json.loads(rows[0]["begin"]))
            elif self._outbox.start == "latest":
                self._begin = newest_below(self._connection, *self._known())
                told = json.dumps(self._begin.position)
                self._untold = pa.RecordBatch.from_pylist([{"begin": told}], MEMORY)

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """One; the latest is the last row that may be read, as of a second ago at most."""
        asked_at, end = self._end
        now = self._clock.monotonic()
        if now - asked_at >= ENDS_SECONDS and self._connection is not None:
            with contextlib.suppress(SourceUnavailable), self._explained():
                end = newest_below(self._connection, *self._known())
            self._end = (now, end)
        return {PARTITION: (self._begin.position, None if end is None else end.position)}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Rows behind the position. A server that is away is waited for, OUTAGE_SECONDS long.

        Raises InputLost when the database went back or is another one, SourceRefused when the table was changed,
        SourceUnavailable, SourceError.
        """
        check(partition == PARTITION, "an outbox has one partition", found=partition)
        place = Place.of(start)
        until = None if limit.until is None else Place.of(limit.until)
        deadline = self._clock.monotonic() + wait_seconds
        if until is not None and not place.is_before(until):
            return Read([], start, is_idle=True)
        while True:
            found = self._once(place, until, limit)
            now = self._clock.monotonic()
            if found is not None and (found.batches or found.next != start):
                break
            if now >= deadline or self._closed.wait(min(POLL_SECONDS, deadline - now)):
                break
        remember, self._untold = self._untold, None
        if found is None:
            return Read([], start, remember)
        return Read(found.batches, found.next, remember, found.is_idle)

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Delete the rows before the position, where that was asked for; some of them may stay until a later call."""
        if not self._outbox.is_cleaned or PARTITION not in positions or self._layout is None:
            return
        with self._cleaning:
            self._cleaner = self._cleaner or Cleaner(self._layout, self._clock)
            self._cleaner.clean(Place.of(positions[PARTITION]))
            if self._closed.is_set():
                self._cleaner.close()

    def close(self) -> None:
        """Hang up, and end a read that waits."""
        self._closed.set()
        self._hang_up()
        with self._cleaning:
            if self._cleaner is not None:
                self._cleaner.close()
                self._cleaner = None

    def infer_schema(self) -> pa.Schema:
        """The table's columns, without the transaction's. Raises what `open` raises."""
        outbox = self._outbox
        with outbox.server.session(SourceUnavailable) as connection, self._explained():
            columns = columns_of(connection, outbox.qualified)
        return inferred([each for name, each in columns.items() if name != outbox.transaction], outbox.label)

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Is the table an outbox, and does anything keep it waiting?"""
        label = self._outbox.label
        try:
            with self._outbox.server.session(SourceUnavailable) as connection, self._explained():
                set_session(connection)
                layout = self._demand(connection, SourceRefused)
                view = look(connection, layout)
                holder = oldest_transaction(connection, view.bound) if view.is_waiting else ""
        except OnefoldError as error:
            return [CheckResult(label, "failed", error.summary, error.next_step or "")]
        if holder:
            return [CheckResult(label, "warning", f"rows wait until this ends: {holder}", "End it.")]
        return [CheckResult(label, "ok", "can be read")]

    # ------------------------------------------------------------------------------------------------------- inner

    def _known(self) -> tuple[Layout, Origin]:
        layout, origin = self._layout, self._origin
        check(layout is not None and origin is not None, "a source is opened before it is read")
        return layout, origin  # type: ignore[return-value]

    def _connect(self, of_standby: type[SourceError]) -> None:
        """of_standby: what a standby is told by. One that is met while reading may be about to be promoted."""
        server = self._outbox.server
        connection = server.connect(SourceUnavailable, name="onefold outbox")
        try:
            set_session(connection)
            self._layout = self._demand(connection, of_standby)
            self._origin = origin_of(connection, psycopg().errors.InsufficientPrivilege)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _demand(self, connection: Any, of_standby: type[SourceError]) -> Layout:
        """Not on a standby: that all below its snapshot's xmin has ended is proven nowhere."""
        if is_standby(connection):
            raise of_standby(
                f"{self._outbox.label} is on a standby, which cannot be read as an outbox.",
                found="a standby",
                expected="the primary",
                next_step="Name the primary; with several hosts in the URL, add target_session_attrs=read-write.",
            )
        return demand_layout(connection, self._outbox, self._wanted)

    def _once(self, place: Place, until: Place | None, limit: Limit) -> Read | None:
        """What is there now; None: nobody knows, because the server is away or its log is not on disk yet."""
        if not self._is_connected():
            return None
        try:
            with self._explained():
                found = self._taken(place, until, limit)
        except SourceUnavailable as error:
            self._went_away(error)
            return None
        if self._away_since is not None:  # it answers; that it lets us in says little
            LOG.warning("%s: the server is back", self._outbox.label)
            self._away_since = None
        return found

    def _taken(self, place: Place, until: Place | None, limit: Limit) -> Read | None:
        layout, origin = self._known()
        with reading(self._connection):
            view = self._looked(place)
            if not view.is_waiting:
                self._patience.over()
            if not place.is_before(view.newest):
                return self._nothing(place, until, view)
            if not self._survives(view):
                return None
            here = Place(place.transaction, place.id, origin)
            rows = max(1, min(limit.rows, int(limit.size_bytes / self._row_bytes)))
            room = Room(rows, limit.size_bytes)
            found = rows_after(self._connection, layout, here, bound=view.bound, until=until, room=room)
            if found is None and view.is_waiting:
                self._patience.waits(self._connection, view.bound)
        if found is None:
            return self._nothing(place, until, view)
        self._row_bytes = max(1.0, found.size_bytes / found.batch.num_rows)
        return Read([found.batch], found.last.position)

    def _nothing(self, place: Place, until: Place | None, view: View) -> Read:
        """It is not idle while rows wait, nor when none is left before an end that is yet to be moved to."""
        if until is not None and until.transaction < view.bound:
            return Read([], until.position, is_idle=True)
        return Read([], place.position, is_idle=not view.is_waiting)

    def _looked(self, place: Place) -> View:
        """Raises when what is seen cannot be read on from the place."""
        layout, origin = self._known()
        view = look(self._connection, layout)
        label = self._outbox.label
        self._demand_unchanged(layout, view)
        if place.origin is not None and not origin.is_same(place.origin):
            end = newest_below(self._connection, layout, origin)
            raise of_another_database(label, place, origin, view.next, end)
        if place.transaction >= view.next:
            raise restored(label, place, view.next, newest_below(self._connection, layout, origin))
        if view.newest.transaction >= view.next:
            raise from_the_future(self._outbox, view.newest, view.next)
        self._warn_of_a_promotion(place, origin)
        return view

    def _demand_unchanged(self, layout: Layout, view: View) -> None:
        for name, kind in layout.watched.items():
            found = view.columns.get(name)
            if found != kind:
                raise SourceRefused(
                    f"{self._outbox.label} was changed: its column {name}.",
                    found=found or "no such column",
                    expected=kind,
                    next_step="Run again: a flow whose schema fits goes on where it was.",
                    partition=PARTITION,
                    column=name,
                )

    def _warn_of_a_promotion(self, place: Place, origin: Origin) -> None:
        if place.origin is None or place.origin.timeline == origin.timeline:
            return
        between = (place.origin.timeline, origin.timeline)
        if between != self._warned_of:
            self._warned_of = between
            LOG.warning(
                "%s: the server went from timeline %d to %d: a standby was promoted, or a backup restored. If "
                "transactions were lost by that, rows of as many new ones may be passed over.",
                self._outbox.label,
                *between,
            )

    def _survives(self, view: View) -> bool:
        """Whether what is visible is on the server's disk: else a crash of the server could take back what we read,
        and give its transaction ids out again."""
        if view.unflushed is None:
            return True
        deadline = self._clock.monotonic() + POLL_SECONDS * 20
        while not is_flushed(self._connection, view.unflushed):
            if self._clock.monotonic() > deadline or self._closed.wait(FLUSH_POLL_SECONDS):
                return False
        return True

    # -------------------------------------------------------------------------------------------------- connection

    def _is_connected(self) -> bool:
        """Connect again when that is due. Raises SourceUnavailable when the server has been away for too long."""
        if self._connection is not None:
            return True
        check(self._layout is not None, "a source is opened before it is read")
        if self._closed.is_set() or self._clock.monotonic() < self._retry_at:
            return False
        try:
            with self._explained():
                self._connect(SourceUnavailable)
        except SourceUnavailable as error:
            self._went_away(error)
            return False
        return True

    def _went_away(self, error: SourceUnavailable) -> None:
        self._hang_up()
        now = self._clock.monotonic()
        self._retry_at = now + RETRY_SECONDS
        if self._away_since is None:
            self._away_since = now
            LOG.warning("%s: the server went away, and is waited for: %s", self._outbox.label, error.found)
        if now - self._away_since > OUTAGE_SECONDS:
            raise error

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg().Error):
                connection.close()

    @contextlib.contextmanager
    def _explained(self) -> Any:
        """The client's errors as ours."""
        try:
            yield
        except psycopg().Error as error:
            state = str(error.sqlstate or "")
            if state in _CHANGED:
                raise SourceRefused(f"{self._outbox.label} was changed, or is not there.", found=_said(error)) from None
            failure = self._outbox.server.failure(error, SourceUnavailable)
            if isinstance(failure, SourceUnavailable) and not may_pass(error):
                raise SourceError(f"{self._outbox.label} cannot be read.", found=_said(error)) from None
            raise failure from None


def _said(error: Any) -> str:
    return str(error).splitlines()[0]
