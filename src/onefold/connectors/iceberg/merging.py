"""Upserts by copy on write: files that hold a key of the new rows are written anew without it, in the same snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    GreaterThanOrEqual,
    In,
    IsNull,
    LessThanOrEqual,
    Or,
)
from pyiceberg.io.pyarrow import ArrowScan

from onefold.connectors.iceberg.types import stored_rows
from onefold.connectors.spooling import OP_COLUMN

__all__ = ["kept_parts", "split_changes"]

MOST_VALUES = 200
"""pyiceberg looks only at bounds for longer lists of values."""

OUTPUT_BYTES = 128 << 20
"""So many bytes of rows that stay are gathered into one file."""


def split_changes(rows: pa.Table, key: Sequence[str], stored: pa.Schema) -> tuple[pa.Table, pa.Table]:
    """(all keys, rows that are there afterwards), of rows that have one row a key."""
    keys = stored_rows(rows.select(list(key)), pa.schema([stored.field(name) for name in key]))
    if OP_COLUMN in rows.column_names:
        rows = rows.filter(pc.not_equal(rows.column(OP_COLUMN), "delete"))
    return keys, stored_rows(rows.select(stored.names), stored)


def kept_parts(table: Any, keys: pa.Table, replaced: list[Any]) -> Iterator[pa.Table]:
    """What stays of the files that hold one of these keys, in bounded pieces; adds those files to `replaced`."""
    gathered: list[pa.Table] = []
    for task in table.scan(row_filter=_near(keys)).plan_files():
        columns = table.schema().select(*keys.column_names)
        places = _places_without(_read(table, task, columns), keys)
        if places is None:
            continue
        replaced.append(task.file)
        if len(places):
            gathered.append(_read(table, task, table.schema()).take(places))
        if sum(part.nbytes for part in gathered) > OUTPUT_BYTES:
            yield pa.concat_tables(gathered)
            gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def _read(table: Any, task: Any, schema: Any) -> pa.Table:
    scan = ArrowScan(table.metadata, table.io, projected_schema=schema, row_filter=AlwaysTrue())
    return scan.to_table([task])


def _places_without(found: pa.Table, keys: pa.Table) -> pa.Array | None:
    """Where rows stand that have none of the keys, in order; None: they all do. NULL is a key like any other."""
    names = [f"k{number}" for number in range(keys.num_columns)]
    places = pa.array(range(found.num_rows), pa.int64())
    there = pa.table([*found.select(keys.column_names).columns, places], [*names, "place"])
    gone = keys.rename_columns(names)
    same = " AND ".join(f"there.{name} IS NOT DISTINCT FROM gone.{name}" for name in names)
    with duckdb.connect() as connection:
        connection.register("there", there)
        connection.register("gone", gone)
        query = f"SELECT place FROM there WHERE NOT EXISTS (SELECT 1 FROM gone WHERE {same}) ORDER BY place"
        kept = connection.sql(query).to_arrow_table().column("place").combine_chunks()
    return None if len(kept) == found.num_rows else kept


def _near(keys: pa.Table) -> BooleanExpression:
    """A condition that every row with one of the keys fulfils, by which files are left out."""
    near: BooleanExpression = AlwaysTrue()
    for name in keys.column_names:
        near = And(near, _near_in(name, keys.column(name)))
    return near


def _near_in(name: str, column: pa.ChunkedArray) -> BooleanExpression:
    kind = column.type
    is_ordered = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date(kind)
    if not is_ordered or "." in name or not column.length():
        return AlwaysTrue()
    values = pc.unique(column.drop_null())
    if not len(values):
        return IsNull(name)
    if len(values) <= MOST_VALUES:
        found: BooleanExpression = In(name, _literals(values))
    else:
        least, most = _literals(pa.array([pc.min(values).as_py(), pc.max(values).as_py()], kind))
        found = And(GreaterThanOrEqual(name, least), LessThanOrEqual(name, most))
    return Or(found, IsNull(name)) if column.null_count else found


def _literals(values: Any) -> list[Any]:
    """As pyiceberg takes them: dates as text."""
    return [value.isoformat() if hasattr(value, "isoformat") else value for value in values.to_pylist()]
