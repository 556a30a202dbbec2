"""Negative controls: each takes one safeguard of the change stream out of a child. The schedules must see it."""

from __future__ import annotations

import threading
from typing import Any

from onefold.connectors.postgres.changes import cursor, seeking
from onefold.connectors.postgres.changes.snapshot import Piece
from onefold.connectors.postgres.changes.source import ChangesSource


def confirmed_when_read() -> None:
    """The server may forget what was read, sealed or not; and nobody compares the slot with the place."""
    take = ChangesSource._take

    def taken(self: ChangesSource, *args: Any) -> Any:
        found = take(self, *args)
        if self._cursor is not None:
            self._settled = self._cursor.place
            self._confirm()
        return found

    ChangesSource._take = taken  # type: ignore[method-assign]
    seeking._demand_not_ahead = lambda confirmed, lsn, losses: None


def late_marks() -> None:
    """Time for the writers between a piece and its marker: this is no safeguard."""
    mark = cursor.mark

    def marked(*args: Any) -> None:
        threading.Event().wait(0.03)
        mark(*args)

    cursor.mark = marked


def touched_rows_given() -> None:
    """Rows of the first reading are given although the stream has given newer ones."""
    Piece.left = lambda self: self.rows  # type: ignore[method-assign]


def read_at_once() -> None:
    """Pieces are given when they are read, wherever the stream is."""
    begin = cursor.Cursor._begin_piece

    def begun(self: Any, table: Any) -> None:
        begin(self, table)
        if self._piece is not None:
            self._give_piece(cursor.Begin(self._lsn, 0, 0))

    cursor.Cursor._begin_piece = begun  # type: ignore[method-assign]
