"""Negative controls: each takes one safeguard of the Iceberg sink out of a child. The schedules must see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.connectors.iceberg import commits, sink
from onefold.connectors.iceberg.commits import Place
from onefold.connectors.iceberg.sink import IcebergSink
from onefold.connectors.staging import StagingArea
from onefold.disk import durable_step
from onefold.types import Receipt, TokenMove
from tests.services import database_controls as common


def token_moved_afterwards() -> None:
    """Rows in one snapshot, the token in the next."""
    common.token_moved_afterwards(IcebergSink)


def token_not_compared() -> None:
    """The token is set, whatever it was, and whoever has opened the table."""
    IcebergSink._demand_token = lambda *_: None  # type: ignore[method-assign]


def built_anew_without_asking() -> None:
    """A refused commit is put on top of what is there now, as pyiceberg does by itself."""
    commits._send = lambda table, transaction: transaction.commit_transaction()


def token_in_a_commit_without_rows() -> None:
    """The token moves by changed properties alone: the catalog compares nothing then."""
    whole = IcebergSink.commit

    def commit(self: IcebergSink, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        if move is None:
            whole(self, receipts, move)
            return
        whole(self, receipts, None)
        place, _ = self._opened()
        table: Any = commits.load(place)
        self._demand_token(move, table)
        from onefold.connectors.iceberg.owners import token_properties

        with table.transaction() as transaction:
            transaction.set_properties(token_properties(self.binding, move.new))

    IcebergSink.commit = commit  # type: ignore[method-assign]


def staged_files_not_listed() -> None:
    """Every epoch is staged, and nobody is told."""
    sink.NATIVE_BYTES = 0
    IcebergSink.handles = lambda self: []  # type: ignore[method-assign]


def opening_leaves_no_snapshot() -> None:
    """An instance that opens the table leaves nothing in it, and nobody asks who opened it since. The step stays."""
    whole = sink.commit

    def commit(place: Place, demand: Any, build: Any) -> Any:
        if getattr(build, "__func__", None) is not IcebergSink._open_table:
            return whole(place, demand, build)
        with durable_step("iceberg.commit"):
            return sink.load(place)

    sink.commit = commit
    sink.opened_by = lambda table, binding: 0  # type: ignore[assignment]


def staged_files_not_demanded() -> None:
    """What is committed is whatever lies there by now."""
    StagingArea.demand = lambda *_: None  # type: ignore[method-assign]
