"""Dates and timestamps as binary COPY has them: numbers from 2000 on, in the server's range, infinity among them.

Infinity is to Arrow what DuckDB makes of it: the largest number, or its negative.
Source: PostgreSQL's src/include/datatype/timestamp.h; the page Date/Time Types; DuckDB's page Timestamp Types.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from onefold.errors import RowsRefused

__all__ = ["as_numbers", "demand_moments"]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}

_DAYS_TO_2000 = 10_957
_FIRST_DAY, _LAST_DAY = -2_440_588, 2_145_042_905
"""24 November 4714 BC and 3 June 5874898, in days of 1970."""

_LAST_STAMP_DAY = 106_741_034
"""Timestamps end with the year 294276; this is the last day of it."""


def demand_moments(rows: pa.RecordBatch, label: str, sink: str | None) -> pa.RecordBatch:
    """The rows. Raises RowsRefused for a moment that PostgreSQL does not have."""
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        values, parents = column, None
        if _is_list(column.type):
            values, parents = pc.list_flatten(column), pc.list_parent_indices(column)
        if not _is_moment(values.type):
            continue
        first, end, last = _bounds(values.type)
        number = values.cast(_number(values.type))
        is_there = pc.and_(pc.greater_equal(number, first), pc.less(number, end))
        if parents is None:
            is_there = pc.or_(is_there, pc.is_in(number, pa.array([last, -last], number.type)))
        place = pc.index(pc.fill_null(is_there, True), False).as_py()
        if place >= 0:
            days = number[place].as_py() // _per_day(values.type)
            raise RowsRefused(
                f"{label} cannot keep a date.",
                found=f"{number[place].as_py()}, which is about the year {1970 + int(days / 365.2425)}",
                expected="4714 BC or later, and outside of lists infinity",
                next_step="Leave such rows out or change them with where(…) or select(…), then run again.",
                sink=sink,
                column=name,
                row=place if parents is None else parents[place].as_py(),
            )
    return rows


def as_numbers(rows: pa.Table) -> pa.Table:
    """The moments in them as the server's numbers, except in lists, whose elements name their type. They must be such
    as it has."""
    for place, field in enumerate(rows.schema):
        if _is_moment(field.type):
            number = _number(field.type)
            column = pa.chunked_array([_of(chunk) for chunk in rows.column(place).chunks], number)
            rows = rows.set_column(place, field.with_type(number), column)
    return rows


def _of(column: pa.Array) -> pa.Array:
    """Infinity stays what it is to the server: the largest number, and the smallest, not its negative."""
    number = column.cast(_number(column.type))
    _, _, last = _bounds(column.type)
    counted = pc.subtract(number, pa.scalar(_DAYS_TO_2000 * _per_day(column.type), number.type))
    if pa.types.is_timestamp(column.type):
        counted = pc.multiply(counted, pa.scalar(1_000_000 // _PER_SECOND[column.type.unit], number.type))
    counted = pc.if_else(pc.equal(number, last), pa.scalar(last, number.type), counted)
    return pc.if_else(pc.equal(number, -last), pa.scalar(-last - 1, number.type), counted)


def _bounds(kind: pa.DataType) -> tuple[int, int, int]:
    """The first number; the one behind the last; infinity."""
    if pa.types.is_date(kind):
        return _FIRST_DAY, _LAST_DAY + 1, 2**31 - 1
    return _FIRST_DAY * _per_day(kind), min((_LAST_STAMP_DAY + 1) * _per_day(kind), 2**63 - 1), 2**63 - 1


def _per_day(kind: pa.DataType) -> int:
    return 1 if pa.types.is_date(kind) else 86_400 * _PER_SECOND[kind.unit]


def _number(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if pa.types.is_date(kind) else pa.int64()


def _is_moment(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date32(kind) or (pa.types.is_timestamp(kind) and kind.unit in _PER_SECOND))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
