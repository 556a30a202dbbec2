"""Rows as messages and back: JSON objects, and keys."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.spooling import OP_COLUMN, stored_schema
from onefold.errors import RowsRefused
from onefold.formats.json import JsonLines
from onefold.formats.write import json_values
from onefold.types import Binding

__all__ = ["messages_of", "rows_from"]


def messages_of(
    rows: pa.Table, binding: Binding, key: Sequence[str], label: str
) -> tuple[pa.LargeBinaryArray, pa.LargeBinaryArray | None]:
    """Values, NULL for a delete, and keys, if there are any. Raises RowsRefused for an upsert of a row without one."""
    stored = rows.select(stored_schema(binding).names)
    values = json_values(stored)
    if OP_COLUMN in rows.column_names:
        is_delete = pc.equal(rows.column(OP_COLUMN), "delete").combine_chunks()
        values = pc.if_else(is_delete, pa.scalar(None, pa.large_binary()), values)
    if not key:
        return values, None
    keys = _keys(stored, key)
    if binding.mode == "upsert" and keys.null_count:
        raise RowsRefused(
            f"{label} is written by key, and {keys.null_count} rows have none.",
            sink=binding.sink,
            column=", ".join(key),
        )
    return values, keys


def rows_from(values: pa.ChunkedArray, keys: pa.ChunkedArray, binding: Binding) -> pa.Table:
    """The inverse; of an upsert the newest of each key."""
    if binding.mode == "upsert":
        newest = {key: place for place, key in enumerate(keys.to_pylist())}
        values = values.take(pa.array(sorted(newest.values()), pa.int64())).drop_null()
    return JsonLines().decode(values, stored_schema(binding), is_lenient=False).rows


def _keys(rows: pa.Table, key: Sequence[str]) -> pa.LargeBinaryArray:
    if len(key) == 1:
        column = rows.column(key[0])
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            return pc.cast(column, pa.large_binary()).combine_chunks()
    return json_values(rows.select(list(key)))
