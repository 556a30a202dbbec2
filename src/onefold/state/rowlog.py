"""Rows that are only ever added: what a source must remember (admitted files, say)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

__all__ = ["FrozenRowLog", "RowLog"]


class RowLog:
    """An append-only list of rows with the verbs of every state table."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._fresh: list[pa.RecordBatch] = []

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self._batches)

    def append(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Add rows; they are part of the next delta."""
        self._batches += batches
        self._fresh += batches

    def table(self) -> pa.Table:
        """All rows, oldest first."""
        return pa.Table.from_batches(self._batches, schema=self.schema)

    def take_delta(self) -> list[pa.RecordBatch]:
        """Rows added since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def apply_delta(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Add the rows of a delta. Each delta is applied once, in order. A column that was added since is NULL."""
        self._batches += [self._fitted(batch) for batch in batches]

    def load(self, batches: Iterable[pa.RecordBatch], *, rows: int = 0) -> None:
        """Fill an empty log from a snapshot."""
        self.apply_delta(batches)

    def _fitted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.schema.names == self.schema.names:
            return batch
        columns = [
            batch.column(field.name) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
            for field in self.schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def freeze(self) -> FrozenRowLog:
        """The log as it is now."""
        return FrozenRowLog(self.schema, list(self._batches))


class FrozenRowLog:
    """A RowLog at one moment."""

    def __init__(self, schema: pa.Schema, batches: list[pa.RecordBatch]) -> None:
        self.schema = schema
        self._batches = batches

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """Its rows."""
        yield from self._batches

    def close(self) -> None:
        """Let go of it unread."""
        self._batches = []
