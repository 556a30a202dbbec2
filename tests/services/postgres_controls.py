"""Negative controls: each takes one safeguard of the PostgreSQL sink out of a child. The schedules must see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.connectors.postgres import sink as sinks
from onefold.connectors.postgres.sink import PostgresSink
from onefold.connectors.postgres.tables import TableName
from onefold.types import Binding, Receipt, Token, TokenMove


def token_moved_afterwards() -> None:
    """Rows in one transaction, the token in the next."""
    whole = PostgresSink.commit

    def commit(self: PostgresSink, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        whole(self, receipts, None)
        whole(self, [], move)

    PostgresSink.commit = commit  # type: ignore[method-assign]


def token_not_compared() -> None:
    """The token is set, whatever it was, and nobody hangs up on who might do so."""

    def move(connection: Any, table: TableName, binding: Binding, move: TokenMove) -> None:
        connection.execute(
            f"UPDATE {table.tokens} SET epoch = %s, seal = %s, ends = %s WHERE flow = %s AND sink = %s",
            [move.new.epoch, move.new.seal, move.new.to_json(), binding.flow, binding.sink],
        )

    sinks.move_token = move
    sessions_left_alone()


def sessions_left_alone() -> None:
    """The compare-and-set alone has to keep a zombie away."""
    sinks.end_sessions_of = lambda connection, name: None


def shown_before_the_decision() -> None:
    """What should only be prepared is committed at once."""
    sinks.prepare = lambda connection, name: connection.execute("COMMIT")
    sinks.commit_prepared = lambda connection, name: None


def token_moved_after_the_handle() -> None:
    """The prepared transaction holds the rows alone; the token follows in one of its own."""
    begin, commit = PostgresSink._begin_and_write, PostgresSink.commit

    def write(self: PostgresSink, rows: Any, move: TokenMove | None, *, prepared_as: str | None = None) -> None:
        begin(self, rows, None if prepared_as else move, prepared_as=prepared_as)

    def decide(self: PostgresSink, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        commit(self, receipts, move)
        if any(receipt.kind == "native" for receipt in receipts):
            commit(self, [], move)

    PostgresSink._begin_and_write = write  # type: ignore[method-assign]
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
