"""Negative controls: each takes one safeguard of Hudi tables in a store out of a child. The schedules must see it."""

from __future__ import annotations

from typing import Any

from onefold.connectors.hudi.deciding import Record, StoreTable
from onefold.disk import durable_step


def decided_uncompared() -> None:
    """Whoever decides last is right."""
    replace = Record.replace

    def uncompared(self: Record, tag: str | None, decided: Any) -> bool:
        return replace(self, self.read()[0], decided)

    Record.replace = uncompared  # type: ignore[method-assign]


def decided_not_completed() -> None:
    """What another has decided is left to it."""

    def left(self: StoreTable, decided: Any) -> bool:
        return decided is not None

    def complete(self: StoreTable, instant: str, **given: Any) -> Any:
        answer = commit(self, instant, **given)
        body = self._record.read()[1]["decided"]
        if answer[0] == "done":
            with durable_step("hudi.complete"):
                self._table.complete(body["instant"], body["completion"], body["metadata"])
        return answer

    commit = StoreTable.commit
    StoreTable._complete, StoreTable.commit = left, complete  # type: ignore[method-assign]
