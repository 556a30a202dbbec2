"""Negative controls: each takes one safeguard of the outbox out. Rows must be lost, or the tests see nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onefold.connectors.postgres import outbox as sources
from onefold.connectors.postgres import outbox_rows as rows
from onefold.connectors.postgres.outbox import OutboxSource
from onefold.connectors.postgres.outbox_cleaning import Cleaner
from onefold.connectors.postgres.outbox_place import START, Place
from onefold.connectors.postgres.outbox_rows import View
from onefold.connectors.postgres.outbox_table import Layout
from onefold.protocols import Limit, Read
from onefold.types import PartitionId, Position

FAR = 1 << 40


def ordered_by_id_alone() -> None:
    """Rows below the bound, in the order of their ids, from the position's id on."""

    def copy(layout: Layout, place: Place, bound: int, until: Place | None, count: int) -> str:
        selected = ", ".join([*(column.sql for column in layout.columns), "source.transaction_id", "source.id"])
        return (
            f"COPY (SELECT {selected} FROM {layout.rows} AS source WHERE source.id > {place.id or 0} "
            f"AND source.transaction_id < '{bound}' ORDER BY source.id LIMIT {count}) TO STDOUT (FORMAT csv)"
        )

    rows._copy = copy
    Place.is_before = lambda self, other: True  # type: ignore[method-assign]


def without_the_bound() -> None:
    """Rows in the right order, whatever runs."""
    real = rows.look

    def look(connection: Any, layout: Layout) -> View:
        return replace(real(connection, layout), bound=FAR)

    sources.look = look


def cleaned_when_read() -> None:
    """Rows are deleted when they have been read, not when they are settled."""
    real = OutboxSource.read

    def read(self: OutboxSource, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        found = real(self, partition, start, limit, wait_seconds)
        if self._layout is not None and found.next != start:
            Cleaner(self._layout, self._clock).clean(Place.of(found.next))
        return found

    OutboxSource.read = read  # type: ignore[method-assign]


def position_forgotten() -> None:
    """Every opening begins anew, whatever the position says."""
    OutboxSource.partitions = _from_the_beginning  # type: ignore[method-assign]
    real = OutboxSource.read
    begun: set[int] = set()

    def read(self: OutboxSource, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        first = {} if id(self) not in begun else start
        begun.add(id(self))
        return real(self, partition, first, limit, wait_seconds)

    OutboxSource.read = read  # type: ignore[method-assign]


def _from_the_beginning(self: OutboxSource) -> Mapping[PartitionId, tuple[Position, Position | None]]:
    return {PartitionId("0"): (START.position, None)}


def read_before_it_is_on_disk() -> None:
    """What is visible is taken, though a crash of the server may take it back."""
    OutboxSource._survives = lambda self, view: True  # type: ignore[method-assign]
