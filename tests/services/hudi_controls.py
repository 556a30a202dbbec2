"""Negative controls: each takes one safeguard of the Hudi sink out of a child. The schedules must see it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from onefold.connectors.hudi import sink as sinks
from onefold.connectors.hudi.jvm import SHARED, HudiTable
from onefold.connectors.hudi.sink import HudiSink
from onefold.disk import durable_step
from onefold.types import Receipt, TokenMove


def own_machine() -> None:
    """No control: a Java process of its own, which dies with its parent."""
    os.environ.pop(SHARED, None)


def token_moved_afterwards() -> None:
    """Rows in one commit, the token in the next."""
    commit = HudiSink.commit

    def late(self: HudiSink, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        if move is not None and any(receipt.rows for receipt in receipts):
            commit(self, receipts, None)
        with durable_step("hudi.between"):
            commit(self, [], move)

    HudiSink.commit = late  # type: ignore[method-assign]


def token_not_compared() -> None:
    """The token is set, whatever it was, and nothing that is pending is rolled back."""
    write, commit = HudiTable.write, HudiTable.commit

    def unasked(self: HudiTable, *arguments: Any, owner: str, expected: str | None) -> Sequence[str]:
        return write(self, *arguments, owner=owner, expected=None)

    def uncompared(
        self: HudiTable, instant: str, *, owner: str, expected: str | None, new: str | None
    ) -> Sequence[str]:
        return commit(self, instant, owner=owner, expected=None, new=new)

    HudiTable.write, HudiTable.commit = unasked, uncompared  # type: ignore[method-assign, assignment]


def token_not_compared_at_the_end() -> None:
    """Only asked before rows are written: check, then write. What is pending is left alone."""
    commit = HudiTable.commit
    sinks.DEFAULTS = {**sinks.DEFAULTS, "hoodie.clean.failed.writes.policy": "LAZY"}

    def uncompared(
        self: HudiTable, instant: str, *, owner: str, expected: str | None, new: str | None
    ) -> Sequence[str]:
        return commit(self, instant, owner=owner, expected=None, new=new)

    HudiTable.open = HudiTable.look  # type: ignore[method-assign]
    HudiTable.commit = uncompared  # type: ignore[method-assign]
