"""Negative controls: each takes one safeguard of the MySQL sink out of a child. The schedules must see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.connectors.mysql import sink as sinks
from onefold.connectors.mysql.sink import MysqlSink
from onefold.connectors.mysql.tables import TableName
from onefold.types import Binding, Receipt, Token, TokenMove
from tests.services import database_controls as common


def token_moved_afterwards() -> None:
    """Rows in one transaction, the token in the next."""
    common.token_moved_afterwards(MysqlSink)


def token_not_compared() -> None:
    """The token is set, whatever it was, and nobody hangs up on who might do so."""
    common.token_not_compared(sinks)


def sessions_left_alone() -> None:
    """The compare-and-set alone has to keep a zombie away."""
    common.sessions_left_alone(sinks)


def shown_before_the_decision() -> None:
    """What should only be prepared is committed at once."""
    sinks.begin = lambda session, name: session.execute("START TRANSACTION")
    sinks.end = lambda session, name: None
    sinks.forget = lambda session, name: session.execute("ROLLBACK")
    sinks.prepare = lambda session, name: session.execute("COMMIT")
    sinks.commit_prepared = lambda session, name: None


def token_moved_after_the_handle() -> None:
    """The prepared transaction holds the rows alone; the token follows in one of its own."""
    begin, commit = MysqlSink._begin_and_write, MysqlSink.commit

    def write(self: MysqlSink, rows: Any, move: TokenMove | None, *, prepared_as: str | None = None) -> Any:
        return begin(self, rows, None if prepared_as else move, prepared_as=prepared_as)

    def decide(self: MysqlSink, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        commit(self, receipts, move)
        if any(receipt.kind == "native" for receipt in receipts):
            commit(self, [], move)

    MysqlSink._begin_and_write = write  # type: ignore[method-assign]
    MysqlSink.commit = decide  # type: ignore[method-assign]


def unknown_taken_for_failed() -> None:
    """A commit without an answer is sent again: the token is not read back, nor compared."""
    token_not_compared()
    move_on, open_it = sinks.move_token, MysqlSink.open
    believed: dict[str, Token | None] = {}

    def move(connection: Any, table: TableName, binding: Binding, move: TokenMove) -> None:
        believed[binding.sink] = move.expected
        move_on(connection, table, binding, move)

    def opened(self: MysqlSink, binding: Binding) -> Token | None:
        token = open_it(self, binding)
        return believed.pop(binding.sink, token)

    sinks.move_token, MysqlSink.open = move, opened  # type: ignore[method-assign]


def refused_rows_forgotten() -> None:
    """What is left out is told nobody."""
    common.refused_rows_forgotten(MysqlSink)
