"""One commit of a table: built on metadata that was just loaded, refused by the catalog if that is no longer current.

Every commit of ours makes a snapshot, and demands that `main` still is the snapshot on which the token was compared. So
of two that compared the same token one is refused, at whatever moment the other was stopped: before it built its
snapshot, with the snapshot built, or with everything sent but the catalog's own compare-and-set. What a refused commit
wrote is left for `maintain`.
Source: the Iceberg specification, Optimistic Concurrency; pyiceberg 0.12, Transaction.commit_transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Transaction
from pyiceberg.table.update import AssertTableUUID

from onefold.connectors.iceberg.catalog import sync_catalog
from onefold.connectors.iceberg.failure import nothing_written, unknown_outcome
from onefold.disk import durable_step
from onefold.errors import SinkUnavailable

__all__ = ["Place", "commit", "load"]

MOST_TRIES = 12
"""Others commit as well: so often a commit is built anew, then the sink is unavailable for a while."""

RETRY_SECONDS = 0.05


@dataclass(frozen=True)
class Place:
    """A table in a connected catalog. label, sink: for errors."""

    catalog: Any
    names: tuple[str, ...]
    label: str
    sink: str


Build = Callable[[Any, Any], int]
"""(table, transaction) -> the snapshot that it stages. May raise what pyiceberg raises: nothing is sent yet."""


def load(place: Place) -> Any:
    """The table as it is now. Raises SinkUnavailable, SinkRefused."""
    with nothing_written(place.label, place.sink):
        return place.catalog.load_table(place.names)


def commit(place: Place, demand: Callable[[Any], None], build: Build) -> Any:
    """Commit what `build` stages, and return the table when that is durable.

    demand: given the table on which the commit will be built; raises if it may not be.
    Raises what `demand` raises, SinkUnavailable and SinkRefused (nothing written), OutcomeUnknown.
    """
    tried: int | None = None
    pause = threading.Event()
    for attempt in range(MOST_TRIES + 1):
        table = load(place) if tried is None else _look_again(place)
        if tried is not None and table.metadata.snapshot_by_id(tried) is not None:
            return _lasting(place, table)  # it had landed, and a request that was sent twice was refused
        demand(table)
        if attempt == MOST_TRIES:
            break
        with nothing_written(place.label, place.sink):
            transaction = _Transaction(table)
            tried = build(table, transaction)
        try:
            with durable_step("iceberg.commit"), unknown_outcome(place.label, place.sink):
                done = _send(table, transaction)
        except CommitFailedException:
            pause.wait(RETRY_SECONDS * attempt)
            continue
        return _lasting(place, done)
    raise SinkUnavailable(f"Others commit to {place.label} all the time.", found=f"{MOST_TRIES} tries", sink=place.sink)


def _look_again(place: Place) -> Any:
    """After a refusal, which may be that of a repeated request. Raises OutcomeUnknown."""
    with unknown_outcome(place.label, place.sink):
        return place.catalog.load_table(place.names)


def _lasting(place: Place, table: Any) -> Any:
    with unknown_outcome(place.label, place.sink):
        sync_catalog(place.catalog)
    return table


def _send(table: Any, transaction: Any) -> Any:
    """Ask the catalog once. Not `commit_transaction`: that tries again on top of what others wrote, and when a commit
    is refused it removes the manifests, which breaks the table if the refused request was the repetition of one that
    had landed.
    """
    same = AssertTableUUID(uuid=table.metadata.table_uuid)
    table._do_commit(updates=transaction._updates, requirements=(*transaction._requirements, same))
    return table


class _Transaction(Transaction):  # type: ignore[misc]
    """pyiceberg's, which copies all of the table's metadata each of the 15 times that a commit looks at it."""

    _seen: tuple[Any, Any] | None = None

    @property
    def table_metadata(self) -> Any:
        """The table's metadata with what is staged; nobody changes it in place."""
        if not self._updates:
            return self._table.metadata
        if self._seen is None or self._seen[0] is not self._updates:
            self._seen = self._updates, super().table_metadata
        return self._seen[1]
