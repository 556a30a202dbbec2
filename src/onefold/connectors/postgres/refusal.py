"""What an error of the server's means for a sink: rows do not fit, a table was changed, or it is to wait."""

from __future__ import annotations

from typing import Any

from onefold.connectors.postgres.connection import Server, may_pass
from onefold.connectors.postgres.demands import changed
from onefold.connectors.postgres.tables import TableName
from onefold.errors import RowsRefused, SinkRefused, SinkUnavailable

__all__ = ["cannot_prepare", "failure_of", "is_of_rows", "was_rolled_back"]

_ROWS_AT_FAULT = ("21", "22", "23", "38", "39", "44", "54", "P0")
"""Classes of SQLSTATE that say that rows do not fit: an upsert that hits a row twice, data exceptions, violated
constraints, triggers that raised or failed, a view's check, limits of the server such as that of an index entry."""

_NO_ROW_AT_FAULT = ("2200H",)
"""SQLSTATEs of those classes that every row meets: a sequence is exhausted."""


def failure_of(error: Any, server: Server, table: TableName, sink: str | None) -> Exception:
    """What to raise for an error before which nothing has landed."""
    state = str(error.sqlstate or "")
    if is_of_rows(state):
        return RowsRefused(f"{table.label} refuses rows.", found=_said(error), sink=sink)
    failure = server.failure(error, SinkUnavailable, sink=sink)
    if not isinstance(failure, SinkUnavailable) or may_pass(error):
        return failure
    if state[:2] == "42":  # a table or a column that is not there any more
        return changed(table, _said(error), sink)
    return SinkRefused(
        f"{table.label} cannot be written so.",
        found=f"{_said(error)} ({state})",
        next_step="Mend the table, or its triggers.",
        sink=sink,
    )


def was_rolled_back(error: Any) -> bool:
    """Whether the end of a transaction that failed so has surely done nothing: something was checked, or a conflict.

    Not where something is missing (42): that may be a prepared transaction which another session has committed.
    """
    state = str(error.sqlstate or "")
    if may_pass(error):
        return state[:2] == "40" and state != "40003"
    return state[:2] != "42"


def is_of_rows(state: str) -> bool:
    """Whether an SQLSTATE says that rows are refused for good."""
    return state[:2] in _ROWS_AT_FAULT and state not in _NO_ROW_AT_FAULT


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
