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
        """Add the rows of a delta. Each delta is applied once, in order."""
        self._batches += batches

    def load(self, batches: Iterable[pa.RecordBatch], *, rows: int = 0) -> None:
        """Fill an empty log from a snapshot."""
        self.apply_delta(batches)

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
