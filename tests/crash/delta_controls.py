"""Negative controls: each takes one safeguard of the Delta sink out of a child. The schedules must see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.connectors.delta import committing
from onefold.connectors.delta import sink as sinks
from onefold.connectors.delta.committing import Moving
from onefold.connectors.delta.sink import DeltaSink
from onefold.connectors.delta.table import Table
from onefold.connectors.delta.tokens import Held
from onefold.disk import durable_step
from onefold.types import Receipt, TokenMove


def token_moved_afterwards() -> None:
    """Rows in one commit, the token in the next."""
    commit = DeltaSink.commit

    def in_two(self: DeltaSink, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        commit(self, receipts, None)
        commit(self, [], move)

    DeltaSink.commit = in_two  # type: ignore[method-assign]


def token_not_kept() -> None:
    """A commit holds the rows alone, and nobody misses the token."""
    token_not_compared()
    committing.moves = lambda library, binding, move, *, since, opened: []  # type: ignore[assignment]


def token_not_compared() -> None:
    """Whatever the token is by now."""
    DeltaSink._demand = lambda self, found, move: None  # type: ignore[method-assign]


def handle_taken_anew() -> None:
    """What is committed on is not what the token was read from: the table's address is opened again in between."""
    append = sinks.append

    def on_another(table: Table, handle: Any, *rest: Any, **more: Any) -> None:
        append(table, table.load(), *rest, **more)

    sinks.append = on_another  # type: ignore[assignment]


def opening_not_counted() -> None:
    """An opening leaves no trace in the table, and a commit none of the opening that it was begun under."""
    sinks.fence = lambda table, handle: Held(  # type: ignore[assignment]
        table.token(handle, committing.held_by(handle, table.binding)), 0, 0
    )
    committing.moves = _without_opening(committing.moves)


def _without_opening(moves: Any) -> Any:
    return lambda *rest, **more: moves(*rest, **more)[:-1]


def merge_repeated_blindly() -> None:
    """A merge that lost is made again on a fresh handle, whose token nobody compares."""
    merge = sinks.merge

    def again(table: Table, handle: Any, rows: Any, moving: Moving) -> None:
        try:
            merge(table, handle, rows, moving)
        except committing.Refusal:
            with durable_step("delta.again"):
                merge(table, table.load(), rows, moving)

    sinks.merge = again  # type: ignore[assignment]
