"""Rows as Parquet files of a table: cut by partition, with the statistics that let readers pass over a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onefold.connectors.staging import encoded
from onefold.errors import RowsRefused

__all__ = ["Piece", "in_pieces", "refuse_rows"]

STATISTICS_COLUMNS = 32
"""As many columns have statistics as is usual (delta.dataSkippingNumIndexedCols)."""

_LONGEST_TEXT = 32
"""A longer text is no bound: readers would read it with every file."""

Partition = Mapping[str, str | None]
Piece = tuple[pa.Buffer, pq.FileMetaData, Partition, str]
"""The bytes of a file, its footer, its partition's values as text, its statistics as JSON."""


def in_pieces(rows: pa.Table, partitions: Sequence[str]) -> Iterator[Piece]:
    """The files that hold these rows, in order within each partition. No rows: no file."""
    if not rows.num_rows:
        return
    for partition, part in _by_partition(rows, partitions):
        body, footer = encoded(part, compression="snappy", store_schema=False, use_dictionary=_texts_of(part))
        yield body, footer, partition, _statistics(part)


def _texts_of(rows: pa.Table) -> list[str]:
    """The columns that a dictionary is tried for: of numbers it seldom pays."""
    is_text = (pa.types.is_string, pa.types.is_binary)
    return [field.name for field in rows.schema if any(kind(field.type) for kind in is_text)]


def refuse_rows(rows: pa.Table, partitions: Sequence[str], required: Sequence[str], **where: Any) -> None:
    """Raise RowsRefused for values that the table would take for others, or does not take."""
    for name in required:
        if rows.column(name).null_count:
            raise RowsRefused(f"Column {name} of a table must have a value.", column=name, found="NULL", **where)
    for name in partitions:
        column = rows.column(name)
        if pa.types.is_string(column.type) and pc.any(pc.equal(column, "")).as_py():
            raise RowsRefused(
                f"Partition column {name} holds an empty text, which Delta Lake takes for NULL.",
                column=name,
                next_step=f"Write another text for it, such as coalesce(nullif({name}, ''), '-').",
                **where,
            )


def _by_partition(rows: pa.Table, partitions: Sequence[str]) -> Iterator[tuple[Partition, pa.Table]]:
    if not partitions:
        yield {}, rows
        return
    keys = rows.select(partitions).append_column("row", pa.array(range(rows.num_rows), pa.int64()))
    groups = keys.group_by(list(partitions)).aggregate([("row", "list")]).to_pylist()
    rest = [name for name in rows.schema.names if name not in partitions]
    for group in sorted(groups, key=lambda group: group["row_list"][0]):
        part = rows.select(rest).take(pa.array(sorted(group["row_list"]), pa.int64()))
        yield {name: _text(group[name]) for name in partitions}, part


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _statistics(rows: pa.Table) -> str:
    """Counts and bounds. Only bounds that JSON says exactly and every reader compares alike."""
    least: dict[str, Any] = {}
    most: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name in rows.schema.names[:STATISTICS_COLUMNS]:
        column = rows.column(name)
        if pa.types.is_nested(column.type):
            continue
        nulls[name] = column.null_count
        low, high = _bounds(column)
        if low is not None and high is not None:
            least[name], most[name] = low, high
    found = {"numRecords": rows.num_rows, "minValues": least, "maxValues": most, "nullCount": nulls}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any]:
    kind = column.type
    if pa.types.is_integer(kind):
        found = pc.min_max(column).as_py()
        return found["min"], found["max"]
    if pa.types.is_date(kind):
        found = pc.min_max(column).as_py()
        return (found["min"] and found["min"].isoformat()), (found["max"] and found["max"].isoformat())
    if pa.types.is_timestamp(kind) and column.null_count < len(column):
        low, high = pc.strftime(_ends(column), format="%Y-%m-%dT%H:%M:%S").to_pylist()
        zone = "Z" if kind.tz else ""
        return f"{low}{zone}", f"{high}{zone}"
    if pa.types.is_string(kind):
        found = pc.min_max(column).as_py()
        if found["min"] is not None and max(len(found["min"]), len(found["max"])) <= _LONGEST_TEXT:
            return found["min"], found["max"]
    return None, None


def _ends(column: pa.ChunkedArray) -> pa.Array:
    """The least and the most of timestamps."""
    found = pc.min_max(column)
    return pa.array([found["min"], found["max"]], column.type)
