"""What an error of the server's means for a sink: rows do not fit, a table was changed, or it is to wait."""

from __future__ import annotations

from typing import Any

from onefold.connectors.postgres.connection import Server
from onefold.connectors.postgres.demands import changed
from onefold.connectors.postgres.tables import TableName
from onefold.errors import RowsRefused, SinkRefused, SinkUnavailable

__all__ = ["cannot_prepare", "failure_of", "is_of_rows", "was_rolled_back"]

_ROWS_AT_FAULT = ("22", "23")
"""Classes of SQLSTATE that say that rows do not fit: data exceptions and violated constraints."""

_ROW_AT_FAULT = ("P0001", "44000", "54000")
"""SQLSTATEs that say so: a trigger raised an exception, a view's check, a row too large for an index."""


def failure_of(error: Any, server: Server, table: TableName, sink: str | None) -> Exception:
    """What to raise for an error before which nothing has landed."""
    state = str(error.sqlstate or "")
    if is_of_rows(state):
        return RowsRefused(f"{table.label} refuses rows.", found=_said(error), sink=sink)
    if state[:2] == "42" and state != "42501":  # a table or a column that is not there any more
        return changed(table, _said(error), sink)
    return server.failure(error, SinkUnavailable, sink=sink)


def was_rolled_back(error: Any) -> bool:
    """Whether a COMMIT that failed so has surely done nothing: a constraint was checked at the end, or a conflict."""
    state = str(error.sqlstate or "")
    return is_of_rows(state) or (state[:2] == "40" and state != "40003")


def is_of_rows(state: str) -> bool:
    """Whether an SQLSTATE says that rows are refused for good."""
    return state[:2] in _ROWS_AT_FAULT or state in _ROW_AT_FAULT


def cannot_prepare(table: TableName, sink: str) -> SinkRefused:
    """The error of a server that keeps no prepared transactions."""
    return SinkRefused(
        f'{table.label} cannot join commit="together".',
        found="max_prepared_transactions = 0",
        next_step="Set it above the number of flows that use the server at once, and restart that.",
        sink=sink,
    )


def _said(error: Any) -> str:
    """The server's words: what, and which row."""
    about = error.diag
    return "; ".join(text for text in (about.message_primary, about.message_detail, about.context) if text) or str(
        error
    )
