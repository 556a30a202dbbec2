"""Arrow values in SQLite, exactly.

    bool                          INTEGER 0 or 1
    int8 … int64, uint8 … uint32  INTEGER
    float32, float64              REAL (NaN, which SQLite would turn into NULL, is refused)
    decimal                       TEXT with all its digits: SQLite's numbers would round them
    string                        TEXT
    binary                        BLOB
    date                          TEXT 2024-01-31
    time                          TEXT 23:59:59.999999
    timestamp                     TEXT 2024-01-31 23:59:59.999999, of fixed width, so that text order is time order;
                                  with a time zone: in UTC, with Z
Other types are refused when the sink is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from onefold.errors import RowsRefused, SchemaError

_LAST_YEAR = 9999

__all__ = ["affinity", "columns_of", "declared_type", "from_sqlite"]


def declared_type(column: pa.Field, label: str) -> str:
    """What a column is declared as. Raises SchemaError for types that SQLite cannot keep."""
    kind = column.type
    if pa.types.is_boolean(kind) or (pa.types.is_integer(kind) and not pa.types.is_uint64(kind)):
        return "INTEGER"
    if pa.types.is_floating(kind) and not pa.types.is_float16(kind):
        return "REAL"
    if _is_bytes(kind):
        return "BLOB"
    is_text = _is_string(kind) or pa.types.is_decimal(kind) or pa.types.is_date32(kind)
    if is_text or pa.types.is_time(kind) or pa.types.is_timestamp(kind):
        return "TEXT"
    raise SchemaError(
        f"{label} cannot keep column {column.name}.",
        found=str(kind),
        expected="numbers, text, bytes, dates, times",
        next_step="Cast it in select(…), for instance to VARCHAR (nested values: to_json) or DECIMAL(20,0).",
        column=column.name,
    )


def affinity(declared: str) -> str:
    """SQLite's rules from a declared type to INTEGER, TEXT, BLOB, REAL or NUMERIC (sqlite.org/datatype3.html, 3.1)."""
    text = declared.upper()
    if "INT" in text:
        return "INTEGER"
    if any(part in text for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in text or not text:
        return "BLOB"
    return "REAL" if any(part in text for part in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def columns_of(rows: pa.Table) -> list[list[Any]]:
    """Each column as the values that SQLite is given. Raises RowsRefused for NaN."""
    return [_values(rows.column(name), name) for name in rows.schema.names]


def from_sqlite(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The inverse, for one column. Raises pyarrow.ArrowInvalid for what was not written by `columns_of`."""
    if pa.types.is_boolean(kind):
        return pa.array([None if value is None else bool(value) for value in values], kind)
    if pa.types.is_time(kind):
        moments = pa.array([None if value is None else f"1970-01-01 {value}" for value in values], pa.string())
        return moments.cast(pa.timestamp(kind.unit)).cast(kind)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        texts = pa.array([value and value.removesuffix("Z") for value in values], pa.string())
        return pc.assume_timezone(texts.cast(pa.timestamp(kind.unit)), "UTC").cast(kind)
    is_text = pa.types.is_decimal(kind) or pa.types.is_temporal(kind)
    return pa.array(values, pa.string() if is_text else None).cast(kind)


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    is_variable = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return bool(is_variable or pa.types.is_fixed_size_binary(kind))


def _values(column: pa.ChunkedArray, name: str) -> list[Any]:
    kind = column.type
    if pa.types.is_floating(kind) and pc.any(pc.is_nan(column)).as_py():
        raise RowsRefused("SQLite cannot keep NaN.", column=name, next_step="Turn it into NULL in select(…).")
    if pa.types.is_decimal(kind):  # Arrow would write 1E-10
        return [None if value is None else format(value, "f") for value in column.to_pylist()]
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _moments(column, name)
    return list((column.cast(pa.string()) if pa.types.is_time(kind) else column).to_pylist())


def _moments(column: pa.ChunkedArray, name: str) -> list[Any]:
    kind = column.type
    has_zone = pa.types.is_timestamp(kind) and kind.tz is not None
    plain = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit)) if has_zone else column
    years = pc.min_max(pc.year(plain)).as_py()
    if years["min"] is not None and not 0 <= years["min"] <= years["max"] <= _LAST_YEAR:
        raise RowsRefused("SQLite keeps dates as text, in order from year 0 to 9999.", found=years, column=name)
    texts = plain.cast(pa.string()).to_pylist()
    return [text and f"{text}Z" for text in texts] if has_zone else list(texts)
