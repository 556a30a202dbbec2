"""One reading of the stream from a place on: messages in, rows out, and the place behind the last of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from onefold.connectors.postgres.changes.catalog import SeenTable, look_at, numbers_of
from onefold.connectors.postgres.changes.lost import ForLoss, truncated, unlogged_value
from onefold.connectors.postgres.changes.pgoutput import (
    Begin,
    Change,
    Commit,
    Keepalive,
    Message,
    Relation,
    Truncate,
    parse,
)
from onefold.connectors.postgres.changes.place import Place, lsn_text
from onefold.connectors.postgres.changes.replication import Replication
from onefold.connectors.postgres.changes.rows import Row, first_read
from onefold.connectors.postgres.changes.shape import Shape, Unlogged, changed, shape_of
from onefold.connectors.postgres.changes.snapshot import (
    FIRST_ROWS,
    MOST_ROWS,
    PIECE_BYTES,
    Piece,
    SchemaChanged,
    Seen,
    mark,
    read_piece,
)
from onefold.connectors.postgres.connection import psycopg
from onefold.errors import OnefoldError, check
from onefold.protocols import Limit

__all__ = ["Cursor", "What"]

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class What:
    """What is read. tables: by name, in order. wanted: columns. marks: names our markers in the log."""

    label: str
    tables: Mapping[str, SeenTable]
    wanted: tuple[str, ...]
    keeps_before: bool
    ignores_truncate: bool
    marks: str


class Cursor:
    """Reads on from `place` with a stream that was started there. Used by one thread.

    sql: a connection of its own beside the stream. started: see `snapshot.read_piece`.
    """

    def __init__(
        self, what: What, stream: Replication, sql: Any, *, place: Place, started: int, losses: ForLoss
    ) -> None:
        check(place.lsn is not None, "a cursor begins at a place in the log")
        self._what = what
        self._stream = stream
        self._sql = sql
        self._losses = losses
        self._place = place
        self._lsn: int = place.lsn or 0
        self._commit, self._done = place.commit, place.done
        self._expected = place.commit
        self._transaction: Begin | None = None
        self._count = 0
        self._shapes: dict[int, Shape] = {}
        self._pending: deque[Row] = deque()
        self._failure: Exception | None = None
        self._table, self._after = place.table, place.after
        self._started = started
        self._given: set[int] = set()
        self._piece: Piece | None = None
        self._piece_rows = FIRST_ROWS
        self._is_marked = False
        self._may_begin_piece = False
        self.is_held_up = False
        """Whether the next piece waits for transactions that are still open."""
        self.settled = 0
        """What the server is told when it asks."""
        self.heard = 0
        """How many messages have come."""

    @property
    def place(self) -> Place:
        """Behind the last row that was taken."""
        return replace(
            self._place, lsn=self._lsn, commit=self._commit, done=self._done, table=self._table, after=self._after
        )

    def take(self, limit: Limit, until: Place | None) -> list[Row]:
        """The rows that are there, within the limit. Raises InputLost, SourceError, and the client's errors: when the
        rows before the fault have been taken."""
        if self._failure is not None:
            raise self._failure
        rows: list[Row] = []
        size = 0
        self._may_begin_piece = True
        try:
            while len(rows) < limit.rows and (not rows or size < limit.size_bytes):
                if until is not None and self._ends_at(until):
                    break
                if self._pending:
                    row = self._pending.popleft()
                    rows.append(row)
                    size += row.size
                    self._pass(row)
                elif not self._advance():
                    break
            while self._transaction is not None and not self._pending and self._advance():
                """Its end may be there too: then the place is behind all of it."""
        except (OnefoldError, psycopg().Error) as error:
            if not rows:
                raise
            self._failure = error
        return rows

    def is_behind(self, end: int) -> bool:
        """Whether something may be missing of what was committed before `end`."""
        is_at_rest = self._transaction is None and not self._pending and self._failure is None
        return not (is_at_rest and self._table is None and not self._expected and self._lsn >= end)

    def wait(self, seconds: float) -> None:
        """Until something comes, at most so long; and not long where a table can be read as soon as others end."""
        is_waiting = self._table is not None and self._piece is None
        self._stream.wait(min(seconds, POLL_SECONDS) if is_waiting else seconds)

    def demand_same_tables(self) -> None:
        """Raises InputLost when a name now names another table, whose changes are not in the stream."""
        tables = self._what.tables
        for name, number in numbers_of(self._sql, next(iter(tables.values())).schema, list(tables)):
            if number != tables[name].number:
                raise self._losses.table_remade(name)

    # ------------------------------------------------------------------------------------------------------ the place

    def _ends_at(self, until: Place) -> bool:
        if not self._pending:
            return self._transaction is None and self._table is None and self.place.reaches(until)
        row = self._pending[0]
        if row.xid is None:
            return False
        return replace(self._place, lsn=self._lsn, commit=row.lsn, done=row.offset).reaches(until)

    def _pass(self, row: Row) -> None:
        if row.xid is not None:
            self._commit, self._done = row.lsn, row.offset + 1
            return
        self._after = _texts(row.key)
        if not self._pending:
            self._end_piece()

    def _end_piece(self) -> None:
        piece, self._piece = self._piece, None
        check(piece is not None and self._table is not None, "a piece ends that was begun")
        if piece is not None and not piece.is_last:
            self._after = _texts(piece.end or ())
            return
        names = list(self._what.tables)
        following = names[names.index(self._table or "") + 1 :]
        self._table, self._after = following[0] if following else None, None

    # ------------------------------------------------------------------------------------------------------- messages

    def _advance(self) -> bool:
        """One message further. False: there is none."""
        if self._table is not None and self._piece is None and self._transaction is None and self._may_begin_piece:
            self._may_begin_piece = False
            self._begin_piece(self._what.tables[self._table])
        try:
            raw = self._stream.take()
        except psycopg().errors.UndefinedObject as error:
            raise self._losses.publication_gone(str(error).strip()) from None
        if raw is None:
            return False
        self.heard += 1
        message = parse(raw)
        if isinstance(message, Change):
            self._change(message)
        elif isinstance(message, Begin):
            self._transaction, self._count = message, 0
        elif isinstance(message, Commit):
            self._end(message)
        elif isinstance(message, Keepalive):
            if self._transaction is None:
                self._lsn = max(self._lsn, message.end)
            if message.asks:
                self._stream.confirm(self.settled)
        elif isinstance(message, Relation):
            self._relation(message)
        elif isinstance(message, Truncate):
            self._truncate(message)
        elif isinstance(message, Message) and message.prefix == self._what.marks:
            self._is_marked |= self._piece is not None and message.content == self._piece.mark.encode()
        return True

    def _now(self) -> Begin:
        check(self._transaction is not None, "changes come in transactions")
        return self._transaction  # type: ignore[return-value]

    def _is_new(self) -> bool:
        """Whether the next change of the transaction was not taken yet; counts it."""
        commit = self._now().commit
        offset, self._count = self._count, self._count + 1
        if not self._expected:
            return True
        if commit != self._expected:
            raise self._losses.other_transaction(f"one that was committed at {lsn_text(commit)}")
        return offset >= self._place.done

    def _change(self, change: Change) -> None:
        shape = self._shapes.get(change.relation)
        if shape is None:
            return
        now = self._now()
        try:
            made = list(shape.rows(change))
        except Unlogged as error:
            if self._is_new():
                texts = ", ".join(_texts(error.key))
                raise unlogged_value(
                    self._what.label, error.column, shape.table.qualified, self._behind(), texts
                ) from None
            return
        piece = self._piece
        if piece is not None and (piece.table != shape.table.name or piece.seen.holds(now.xid)):
            piece = None
        for op, values, before, key in made:
            offset = self._count
            if piece is not None:
                piece.touched.add(key)
            if self._is_new():
                self._pending.append(
                    Row(op, shape.table.name, values, before, now.commit, offset, now.xid, now.micros, key, change.size)
                )

    def _behind(self) -> Place:
        return replace(self.place, commit=self._now().commit, done=self._count)

    def _end(self, commit: Commit) -> None:
        now = self._now()
        if self._expected == now.commit:
            if self._count < self._place.done:
                raise self._losses.other_transaction(f"{self._count} changes instead of {self._place.done} or more")
            self._expected = 0
        if not self._expected:
            self._commit = self._done = 0
        if self._table is not None and self._count:
            self._given.add(now.xid)
        self._lsn = max(self._lsn, commit.end)
        self._transaction = None
        if self._is_marked:
            self._is_marked = False
            self._give_piece(now)

    def _relation(self, relation: Relation) -> None:
        what = self._what
        table = next((table for table in what.tables.values() if table.number == relation.number), None)
        if table is None:
            known = what.tables.get(relation.name)
            is_before = self._now().commit < self._place.begin  # a loss that was accepted was of this one
            if known is not None and known.schema == relation.schema and not is_before:
                raise self._losses.table_remade(relation.name)
            self._shapes.pop(relation.number, None)
            return
        known_names = {column.name for column in table.columns}
        added: Mapping[str, Any] = {}
        if not {column.name for column in relation.columns} <= known_names:
            now = look_at(self._sql, table.schema, [table.name], what.label)[0]
            added = {column.name: column for column in now.columns if column.name not in known_names}
        self._shapes[relation.number] = shape_of(
            relation, table, what.wanted, keeps_before=what.keeps_before, added=added
        )

    def _truncate(self, message: Truncate) -> None:
        for number in message.relations:
            shape = self._shapes.get(number)
            if shape is not None and self._is_new() and not self._what.ignores_truncate:
                raise truncated(self._what.label, shape.table.name, self._behind())

    # --------------------------------------------------------------------------------------------------------- pieces

    def _begin_piece(self, table: SeenTable) -> None:
        try:
            piece = read_piece(
                self._sql, table, self._after, rows=self._piece_rows, started=self._started, given=self._given
            )
        except SchemaChanged as error:
            if error.found.number != table.number:
                raise self._losses.table_remade(table.name) from None
            raise changed(table, "other columns, or another key", "those that it had when reading began") from None
        self.is_held_up = isinstance(piece, Seen)
        if isinstance(piece, Seen):
            self._given = {xid for xid in self._given if not piece.holds(xid)}
            return
        self._given.clear()
        mark(self._sql, self._what.marks, piece.mark)
        self._piece = piece
        size = sum(len(value) for _, values in piece.rows for value in values if value is not None)
        mean = max(1, size // max(1, len(piece.rows)))
        self._piece_rows = max(1, min(MOST_ROWS, PIECE_BYTES // mean))

    def _give_piece(self, now: Begin) -> None:
        piece = self._piece
        if piece is None:
            return
        self._pending.extend(first_read(self._what.tables[piece.table], self._what.wanted, piece.left(), now.commit))
        if not self._pending:
            self._end_piece()


def _texts(key: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(each.decode("utf8", "replace") if isinstance(each, bytes) else "" for each in key)
