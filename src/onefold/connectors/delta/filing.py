"""Rows as files in the table's folder that no version names yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from onefold.connectors.delta.committing import Added
from onefold.connectors.delta.rows import in_pieces, refuse_rows
from onefold.connectors.delta.table import Table, nothing_written
from onefold.connectors.staging import encoded
from onefold.errors import SinkUnavailable
from onefold.types import EpochHead, EpochNumber, Receipt, SealId

__all__ = ["NothingStaged", "chunks", "put", "stage"]


class NothingStaged(Exception):
    """The table's store does not take files now. rows: the first, which were taken from whoever gave them."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        super().__init__("nothing staged")


def put(
    table: Table, epoch: EpochNumber, seal: SealId, rows: pa.Table, first: int, *, is_joined: bool
) -> Iterator[Added]:
    """Stage rows as files with numbers from `first` on. Raises RowsRefused, DiskError, SinkUnavailable."""
    binding = table.binding
    kept = rows.select(table.kept.names).cast(table.kept)
    refuse_rows(kept, table.partitions, table.required, sink=binding.sink, epoch=epoch)
    for number, (body, footer, partition, statistics) in enumerate(in_pieces(kept, table.partitions), first):
        with nothing_written(table.location, binding.sink):
            staged = table.area.stage(epoch, seal, number, body, footer, is_joined=is_joined)
        yield Added(staged.path, staged.size_bytes, partition, statistics)


def stage(table: Table, epoch: EpochHead, tables: Iterable[pa.Table]) -> Receipt:
    """A file for each of these tables; for none, one that says so and that no version will name.

    Raises what `put` does; NothingStaged when the first cannot be written.
    """
    files: list[list[Any]] = []
    count = 0
    for rows in tables:
        count += rows.num_rows
        try:
            for one in put(table, epoch.number, epoch.seal, rows, len(files), is_joined=False):
                files.append([one.path, one.size_bytes, dict(one.partition), one.statistics])  # noqa: PERF401
        except SinkUnavailable as error:
            if files:
                raise
            raise NothingStaged(rows) from error
    if not files:
        with nothing_written(table.location, table.binding.sink):
            staged = table.area.stage(epoch.number, epoch.seal, 0, *encoded(table.kept.empty_table()))
        files = [[staged.path, staged.size_bytes, {}, ""]]
    size = sum(int(one[1]) for one in files)
    return Receipt(epoch.number, "native", count, size, {"files": files})


def chunks(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file_bytes: int) -> Iterator[pa.Table]:
    """Rows as tables of about so many bytes."""
    taken: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        taken.append(batch)
        size += batch.nbytes
        if size >= file_bytes:
            yield pa.Table.from_batches(taken, schema)
            taken, size = [], 0
    if taken:
        yield pa.Table.from_batches(taken, schema)
