"""Negative controls: each takes one safeguard of the MySQL sink out of a child. The schedules must see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.connectors.databases import bound
from onefold.connectors.mysql import sink as sinks
from onefold.connectors.mysql.sink import MysqlSink
from onefold.connectors.mysql.tables import TableName
from onefold.types import Binding, Receipt, TokenMove


def token_moved_afterwards() -> None:
    """Rows in one transaction, the token in the next."""
    whole = MysqlSink.commit

    def commit(self: MysqlSink, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        whole(self, receipts, None)
        whole(self, [], move)

    MysqlSink.commit = commit  # type: ignore[method-assign]


def token_not_compared() -> None:
    """The token is set, whatever it was, and nobody hangs up on who might do so."""

    def move(connection: Any, table: TableName, binding: Binding, move: TokenMove) -> None:
        connection.execute(
            f"UPDATE {bound(table.tokens)} SET epoch = %s, seal = %s, ends = %s WHERE flow = %s AND sink = %s",
            [move.new.epoch, move.new.seal, move.new.to_json(), binding.flow, binding.sink],
        )

    sinks.move_token = move
    sessions_left_alone()


def sessions_left_alone() -> None:
    """The compare-and-set alone has to keep a zombie away."""
    sinks.end_sessions_of = lambda connection, name: None
