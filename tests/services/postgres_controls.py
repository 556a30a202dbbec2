"""Negative controls: each takes one safeguard of the PostgreSQL sink out of a child. The schedules must see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onefold.connectors.databases import session_name
from onefold.connectors.postgres import sink as sinks
from onefold.connectors.postgres.connection import Server
from onefold.connectors.postgres.sessions import Session, Share
from onefold.connectors.postgres.sink import PostgresSink
from onefold.connectors.postgres.tables import TableName
from onefold.types import Binding, Receipt, Token, TokenMove
from tests.services import database_controls as common


def token_moved_afterwards() -> None:
    """Rows in one transaction, the token in the next."""
    common.token_moved_afterwards(PostgresSink)


def token_not_compared() -> None:
    """The token is set, whatever it was, and nobody hangs up on who might do so."""
    common.token_not_compared(sinks)


def sessions_left_alone() -> None:
    """The compare-and-set alone has to keep a zombie away."""
    common.sessions_left_alone(sinks)


def shown_before_the_decision() -> None:
    """What should only be prepared is committed at once."""
    sinks.prepare = lambda connection, name: connection.execute("COMMIT")
    sinks.commit_prepared = lambda connection, name: None


def sessions_not_shared() -> None:
    """Every sink prepares a transaction of its own."""

    def alone(server: Server, table: TableName, binding: Binding) -> Session:
        return Session(session_name(table, binding))

    sinks.session_of = alone


def token_moved_after_the_handle() -> None:
    """The prepared transaction holds the rows alone; the token follows in one of its own."""
    share, commit = PostgresSink._share, PostgresSink.commit

    def of_rows(self: PostgresSink, rows: Any, move: TokenMove, name: str) -> Share:
        return replace(share(self, rows, move, name), move=lambda: None)

    def decide(self: PostgresSink, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        commit(self, receipts, move)
        if any(receipt.kind == "native" for receipt in receipts):
            commit(self, [], move)

    PostgresSink._share = of_rows  # type: ignore[method-assign]
    PostgresSink.commit = decide  # type: ignore[method-assign]


def unknown_taken_for_failed() -> None:
    """A commit without an answer is sent again: the token is not read back, nor compared."""
    token_not_compared()
    move_on, find = sinks.move_token, sinks.ensure_token_row
    believed: dict[str, Token | None] = {}

    def move(connection: Any, table: TableName, binding: Binding, move: TokenMove) -> None:
        believed[binding.sink] = move.expected
        move_on(connection, table, binding, move)

    def found(connection: Any, table: TableName, binding: Binding, *, is_locked: bool) -> Token | None:
        token = find(connection, table, binding, is_locked=is_locked)
        return believed.pop(binding.sink, token)

    sinks.move_token, sinks.ensure_token_row = move, found


def refused_rows_forgotten() -> None:
    """What is left out is told nobody."""
    common.refused_rows_forgotten(PostgresSink)
