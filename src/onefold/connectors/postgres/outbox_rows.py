"""SQL of the outbox: how far it may be read, and the rows up to there. Writes nothing.

A snapshot's xmin is the oldest transaction that runs. What is below it has ended: its rows are all there, and none
will come. So rows below it are read, in the order of (transaction, id), and the position is the last one's place. The
id alone would not do, even below xmin: id 6 of transaction 99 would move the position past id 5 of transaction 100,
which still runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.connectors import databases
from onefold.connectors.postgres.columns import decoded
from onefold.connectors.postgres.outbox_place import START, Origin, Place
from onefold.connectors.postgres.outbox_table import META, Layout
from onefold.connectors.postgres.types import quoted
from onefold.errors import SourceError

__all__ = [
    "META",
    "View",
    "is_flushed",
    "is_standby",
    "look",
    "newest_below",
    "origin_of",
    "reading",
    "rows_after",
    "set_session",
]

ROW_BYTES = 200
"""What a row is taken to have in the beginning, to ask for as many as there is room for."""


@dataclass(frozen=True)
class View:
    """What one snapshot shows.

    bound: the oldest transaction that runs: rows below it are complete. next: the transaction to come. newest: the
    last row that is there, however far it may be read. unflushed: how far the log must reach before what is visible
    survives a crash of the server; None: it does. columns: those that are watched, with their types.
    """

    bound: int
    next: int
    newest: Place
    unflushed: str | None
    columns: dict[str, str]

    @property
    def is_waiting(self) -> bool:
        """Whether rows are there that may not be read before a transaction ends."""
        return self.newest.transaction >= self.bound


def set_session(connection: Any) -> None:
    """Nothing is written, and rows come through the index whatever the planner believes of the table."""
    connection.execute(
        "SET default_transaction_read_only TO on; SET enable_seqscan TO off; SET enable_bitmapscan TO off; "
        "SET enable_sort TO off; SET max_parallel_workers_per_gather TO 0; SET jit TO off"
    )


def is_standby(connection: Any) -> bool:
    """Whether the server replays another one's log."""
    return bool(connection.execute("SELECT pg_is_in_recovery()").fetchone()[0])


def origin_of(connection: Any, refused: type[Exception]) -> Origin:
    """Which database this is. refused: the client's error for what is not allowed."""
    server = ""
    with contextlib.suppress(refused):
        server = str(connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()[0])
    database, segment = connection.execute(
        "SELECT oid, pg_walfile_name(pg_current_wal_insert_lsn()) FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    return Origin(server, int(database), int(segment[:8], 16))


@contextlib.contextmanager
def reading(connection: Any) -> Iterator[None]:
    """A transaction that keeps the table's columns as they are. Each statement sees what was committed before it."""
    connection.execute("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK")


def look(connection: Any, layout: Layout) -> View:
    """Inside a transaction the table stays as it is seen. Raises the client's errors.

    All of it is of one snapshot, except how far the log is, which is asked later: so it covers what is visible.
    """
    outbox = layout.outbox
    row = connection.execute(
        f"""
        SELECT pg_snapshot_xmin(now)::text, pg_snapshot_xmax(now)::text, newest.transaction, newest.id,
               CASE WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()::text END,
               (SELECT json_object_agg(attname, format_type(atttypid, atttypmod) || CASE WHEN attname = %s
                    THEN coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), '') ELSE '' END)
                FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
                WHERE attrelid = %s::regclass AND attname::text = ANY (%s) AND NOT attisdropped)
        FROM pg_current_snapshot() AS now LEFT JOIN LATERAL ({databases.bound(_last(layout, "TRUE"))}) AS newest ON TRUE
        """,
        [outbox.transaction, outbox.qualified, list(layout.watched)],
    ).fetchone()
    return View(int(row[0]), int(row[1]), _place(layout, row[2], row[3], None), row[4], row[5] or {})


def is_flushed(connection: Any, log_position: str) -> bool:
    """Whether the log up to there survives a crash."""
    return bool(connection.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", [log_position]).fetchone()[0])


def newest_below(connection: Any, layout: Layout, origin: Origin) -> Place:
    """The last row that may be read now; of an empty table, its beginning."""
    bound = connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()[0]
    row = connection.execute(_last(layout, f"{_keys(layout)[0]} < '{bound}'::xid8")).fetchone()
    return START if row is None else _place(layout, row[0], row[1], origin)


@dataclass(frozen=True)
class Room:
    """How much may be taken at once."""

    rows: int
    size_bytes: int


@dataclass(frozen=True)
class Rows:
    """Rows in order, where the last one stands, and their size as they were sent."""

    batch: pa.RecordBatch
    last: Place
    size_bytes: int


def rows_after(
    connection: Any, layout: Layout, place: Place, *, bound: int, until: Place | None, room: Room
) -> Rows | None:
    """Rows behind a place whose transactions are below `bound`, as many as there is room for, but one at least.

    bound: of a snapshot that is not newer than this statement's: else rows that were committed between the two would
    be missed. Raises SourceError for what Arrow cannot read, and the client's errors.
    """
    text = _sent(connection, _copy(layout, place, bound, until, room.rows), room.size_bytes)
    if not text:
        return None
    kinds = {str(number): column.travels for number, column in enumerate(layout.columns)}
    try:
        batch = decoded(text, {**kinds, **{name: META.field(name).type for name in META.names}})
    except pa.ArrowInvalid as error:
        raise SourceError(
            f"{layout.outbox.label} gave what Arrow cannot read.", found=str(error).splitlines()[0], position=str(place)
        ) from error
    batch = pa.RecordBatch.from_arrays(batch.columns, [*(column.name for column in layout.columns), *META.names])
    transaction, number = (batch.column(name)[-1].as_py() for name in META.names)
    return Rows(batch, _place(layout, transaction, number, place.origin), len(text))


class _Enough(Exception):
    """Leaves a COPY that is under way: the client cancels it, over a connection of its own."""


def _sent(connection: Any, copy: str, limit_bytes: int) -> bytes:
    """The rows of a COPY that fit. The server sends each as a message of its own, and the client gives it so."""
    taken: list[bytes] = []
    size = surplus = 0
    with contextlib.suppress(_Enough), connection.cursor().copy(copy) as rows:
        for row in rows:
            if surplus or (taken and size + len(row) > limit_bytes):
                surplus += len(row)
                if surplus > limit_bytes:
                    raise _Enough
            else:
                taken.append(bytes(row))
                size += len(row)
    return b"".join(taken)


def _copy(layout: Layout, place: Place, bound: int, until: Place | None, rows: int) -> str:
    transaction, _ = _keys(layout)
    order = ", ".join(_keys(layout))
    conditions = [f"{transaction} < '{bound}'::xid8"]
    if place.transaction:
        conditions.append(f"({order}) > {layout.key(place.transaction, place.id)}")
    if until is not None:
        conditions.append(f"({order}) <= {layout.key(until.transaction, until.id)}")
    selected = ", ".join([*(column.sql for column in layout.columns), order])
    return (
        f"COPY (SELECT {selected} FROM {layout.rows} AS source WHERE {' AND '.join(conditions)} "
        f"ORDER BY {order} LIMIT {rows}) TO STDOUT (FORMAT csv)"
    )


def _last(layout: Layout, condition: str) -> str:
    transaction, number = _keys(layout)
    return (
        f"SELECT {transaction}::text AS transaction, {number}::text AS id FROM {layout.rows} AS source "
        f"WHERE {condition} ORDER BY {transaction} DESC, {number} DESC LIMIT 1"
    )


def _keys(layout: Layout) -> tuple[str, str]:
    """Not the bare names: ORDER BY takes those for what is selected under them, which is text."""
    return f"source.{quoted(layout.outbox.transaction)}", f"source.{quoted(layout.outbox.id)}"


def _place(layout: Layout, transaction: object, number: object, origin: Origin | None) -> Place:
    if transaction is None:
        return Place(origin=origin)
    text = str(number)
    return Place(int(str(transaction)), text if layout.id_kind == "uuid" else int(text), origin)
