"""A look at tables whose changes could be read: their first rows, and nothing is left on the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from onefold.connectors.postgres.changes.catalog import look_at
from onefold.connectors.postgres.changes.rows import RowsToArrow, first_read
from onefold.connectors.postgres.changes.snapshot import first_rows
from onefold.connectors.postgres.changes.wanted import Wanted, changes_label, columns_wanted
from onefold.connectors.postgres.connection import Server, psycopg
from onefold.errors import SourceUnavailable
from onefold.protocols import Limit, Read, SourcePromise
from onefold.types import PartitionId, Position

__all__ = ["Glance"]

MOST_ROWS = 1000

SEEN = {"seen": True}


class Glance:
    """Position: {} before the rows, and {"seen": true} behind them."""

    memory: pa.Schema | None = None

    def __init__(
        self, server: Server, wanted: Wanted, declared: pa.Schema | None, meta: Sequence[str], promise: SourcePromise
    ) -> None:
        self._server = server
        self._wanted = wanted
        self._declared = declared
        self._meta = meta
        self.promise = promise
        self._batches: list[pa.RecordBatch] = []

    def open(self, remembered: pa.Table | None) -> None:
        """Read the rows. Raises SourceUnavailable, SourceRefused, SchemaError."""
        label = changes_label(self._server, self._wanted)
        with self._server.session(SourceUnavailable) as connection:
            try:
                tables = look_at(connection, self._wanted.schema, self._wanted.tables, label)
                columns = columns_wanted(self._wanted, tables, self._declared, label)
                into = RowsToArrow(columns, self._meta, label)
                found = [(table, first_rows(connection, table, MOST_ROWS)) for table in tables]
            except psycopg().Error as error:
                raise self._server.failure(error, SourceUnavailable) from None
        rows = [[*first_read(table, tuple(columns), some, 0)] for table, some in found]
        self._batches = [into.batch(some) for some in rows if some]

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """One."""
        return {PartitionId("changes"): ({}, None)}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """All of them at once."""
        return Read([], start, is_idle=True) if start == SEEN else Read(self._batches, SEEN)

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing is open."""
