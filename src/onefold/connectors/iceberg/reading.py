"""Rows of tables as Arrow, with the flow's types."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask

__all__ = ["as_given", "read_rows", "rows_of_file", "rows_of_task"]


def read_rows(table: Any, schema: pa.Schema) -> pa.Table:
    """All rows of the current snapshot, with these columns and types."""
    there = {field.name for field in table.schema().fields}
    wanted = [name for name in schema.names if name in there]
    found = table.scan(selected_fields=tuple(wanted)).to_arrow() if wanted else None
    if found is None:
        return schema.empty_table()
    columns = [
        as_given(found.column(field.name), field.type) if field.name in wanted else pa.nulls(len(found), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def as_given(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A column as the flow has it."""
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type).dictionary_encode()
    return column.cast(kind)


def rows_of_file(table: Any, file: Any) -> pa.Table:
    """The rows of one of pyiceberg's data files, with the table's columns."""
    return rows_of_task(table, FileScanTask(file))


def rows_of_task(table: Any, task: Any) -> pa.Table:
    """The rows of one of pyiceberg's tasks, in their order."""
    scan = ArrowScan(table.metadata, table.io, projected_schema=table.schema(), row_filter=AlwaysTrue())
    return scan.to_table([task])
