"""Safeguards of the sinks of database servers, to be taken out of one of them; which, the others say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.connectors.databases import bound
from onefold.types import Binding, Receipt, TokenMove


def token_moved_afterwards(kind: Any) -> None:
    """Rows in one transaction, the token in the next."""
    whole = kind.commit

    def commit(self: Any, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        whole(self, receipts, None)
        whole(self, [], move)

    kind.commit = commit


def token_not_compared(sinks: Any) -> None:
    """The token is set, whatever it was, and nobody hangs up on who might do so."""

    def move(connection: Any, table: Any, binding: Binding, move: TokenMove) -> None:
        connection.execute(
            f"UPDATE {bound(table.tokens)} SET epoch = %s, seal = %s, ends = %s WHERE flow = %s AND sink = %s",
            [move.new.epoch, move.new.seal, move.new.to_json(), binding.flow, binding.sink],
        )

    sinks.move_token = move
    sessions_left_alone(sinks)


def sessions_left_alone(sinks: Any) -> None:
    """The compare-and-set alone has to keep a zombie away."""
    sinks.end_sessions_of = lambda connection, *names: None


def refused_rows_forgotten(kind: Any) -> None:
    """What is left out is told nobody."""
    kind.refused = lambda self: ()
