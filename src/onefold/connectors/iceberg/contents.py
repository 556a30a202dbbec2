"""What one commit puts into a table: files of the receipts' rows, and for upserts the files that they replace."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from onefold.connectors.databases import last_of_each_key
from onefold.connectors.iceberg.merging import kept_parts, split_changes
from onefold.connectors.iceberg.staged import staged_files, staged_rows
from onefold.connectors.iceberg.types import stored_rows
from onefold.connectors.iceberg.writing import write_parts
from onefold.connectors.spooling import rows_of
from onefold.types import Binding, Receipt

__all__ = ["JOINED", "Contents", "append_to"]

JOINED = "onefold-"
"""How the names of our files in the table's folder `data` begin."""


class Contents:
    """The rows of receipts, for as many tries as their commit takes: what does not depend on the snapshot stays."""

    def __init__(self, binding: Binding, receipts: Sequence[Receipt], stored: pa.Schema) -> None:
        self._binding = binding
        self._receipts = receipts
        self._stored = stored
        self._files: list[Any] = []
        self._written_for: tuple[int, int] | None = None
        self._rows: pa.Table | None = None

    def put(self, table: Any, transaction: Any, summary: Mapping[str, str]) -> int:
        """Stage a snapshot with them; gives its id. Raises FileCorrupt, RowsRefused, what pyiceberg raises."""
        if self._binding.mode == "upsert":
            return self._merge(table, transaction, summary)
        return append_to(table, transaction, summary, lambda name: self._appended(table, name))

    def _appended(self, table: Any, name: Callable[[int], str]) -> list[Any]:
        wanted = (table.metadata.current_schema_id, table.metadata.default_spec_id)
        if self._written_for != wanted:
            numbers = itertools.count()
            self._files = [file for group in self._grouped(table, name, numbers) for file in group]
            self._written_for = wanted
        return self._files

    def _grouped(self, table: Any, name: Callable[[int], str], numbers: Iterator[int]) -> Iterator[list[Any]]:
        """Files in the order of epochs: neighbours from the spool share theirs."""
        for kind, group in itertools.groupby(self._receipts, key=lambda receipt: receipt.kind):
            together = list(group)
            if kind == "spool":
                rows = stored_rows(rows_of(self._binding, together), self._stored)
                yield write_parts(table, rows, name, numbers)
                continue
            for receipt in together:
                found = staged_files(table, self._binding, receipt)
                if found is None:
                    found = write_parts(table, staged_rows(table, self._binding, receipt), name, numbers)
                yield found

    def _merge(self, table: Any, transaction: Any, summary: Mapping[str, str]) -> int:
        if self._rows is None:
            self._rows = last_of_each_key(rows_of(self._binding, self._receipts), self._binding.key)
        keys, rows = split_changes(self._rows, self._binding.key, self._stored)
        if not keys.num_rows:
            return append_to(table, transaction, summary, lambda _: [])
        replaced: list[Any] = []
        overwrite = transaction.update_snapshot(snapshot_properties=dict(summary)).overwrite()
        name, numbers = _named(overwrite), itertools.count()
        written = []
        for part in kept_parts(table, keys, replaced):
            written += write_parts(table, part, name, numbers)
        written += write_parts(table, rows, name, numbers)
        if not replaced:
            return append_to(table, transaction, summary, lambda _: written)
        with overwrite:
            for file in replaced:
                overwrite.delete_data_file(file)
            for file in written:
                overwrite.append_data_file(file)
        return int(overwrite.snapshot_id)


def append_to(
    table: Any, transaction: Any, summary: Mapping[str, str], files: Callable[[Callable[[int], str]], list[Any]]
) -> int:
    """Stage a snapshot with more files, or with none; gives its id."""
    is_merged = table.metadata.properties.get("commit.manifest-merge.enabled") == "true"
    update = transaction.update_snapshot(snapshot_properties=dict(summary))
    append = update.merge_append() if is_merged else update.fast_append()
    for file in files(_named(append)):
        append.append_data_file(file)
    with append:
        return int(append.snapshot_id)


def _named(snapshot: Any) -> Callable[[int], str]:
    """Names of files that nobody else writes: an older process must not write over what a newer one has committed."""
    return lambda number: f"data/{JOINED}{snapshot.commit_uuid}-{number:05d}.parquet"
