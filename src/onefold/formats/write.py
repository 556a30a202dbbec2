"""Rows as JSON lines, such that onefold.formats.json reads back the same values.

Decimals are numbers with all their digits, timestamps ISO 8601 (with Z when they have a zone), bytes base64, UUIDs
text, JSON as it is. NaN and the infinities, which JSON does not have, are the strings "NaN", "Infinity" and
"-Infinity", as in the JSON mapping of Protocol Buffers. NULL is null; every column is written in every row.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onefold.errors import SchemaError
from onefold.formats.duck import connection, identifier, in_order, literal, row_numbers, run
from onefold.formats.types import is_json, sql_type

__all__ = ["json_lines", "json_values", "refuse_inexact"]


def json_lines(rows: pa.Table | pa.RecordBatch) -> bytes:
    """The rows in order, one JSON object each, every one with a line end. Raises SchemaError for unknown types."""
    values = _objects(rows, "|| chr(10)")
    return b"".join(_octets(chunk) for chunk in values.chunks)


def json_values(rows: pa.Table | pa.RecordBatch) -> pa.LargeBinaryArray:
    """The rows in order, each the bytes of one JSON object without a line end. Raises SchemaError."""
    return pc.cast(_objects(rows, ""), pa.large_binary()).combine_chunks()


def refuse_inexact(encode: Callable[[pa.Table], object], schema: pa.Schema, label: str, expected: str) -> None:
    """Raise SchemaError for a column that a sink's encoding cannot keep."""
    with contextlib.suppress(SchemaError, pa.ArrowException):  # if it fails, find out for which column
        encode(pa.Table.from_arrays([pa.nulls(1, column.type) for column in schema], schema=schema))
        return
    for column in schema:
        try:
            encode(pa.table({column.name: pa.nulls(1, column.type)}))
        except (SchemaError, pa.ArrowException) as error:
            raise SchemaError(
                f"{label} cannot keep column {column.name}.",
                found=str(column.type),
                expected=expected,
                next_step="Cast it in select(…).",
                column=column.name,
            ) from error


def _objects(rows: pa.Table | pa.RecordBatch, end: str) -> pa.ChunkedArray:
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    if not len(table):
        return pa.chunked_array([], pa.string())
    nested = [column for column in table.columns if pa.types.is_nested(column.type)]
    if any(chunk.offset for column in nested for chunk in column.chunks):  # DuckDB refuses slices of structs
        table = table.take(pa.array(range(len(table)), pa.int64()))
    numbers = row_numbers(len(table))
    names = [*(f"c{place}" for place in range(table.num_columns)), "i"]
    renamed = pa.table([*table.columns, pa.array(np.arange(numbers.start, numbers.stop))], names)
    found = run(_query(table.schema.serialize().to_pybytes(), end), renamed)
    line: pa.ChunkedArray = in_order(found, numbers).column("line")
    return line


@functools.lru_cache(256)
def _query(schema: bytes, end: str) -> str:
    """Of rows whose columns are named c0, c1, … and numbered by i."""
    parts = [
        f"{literal(_key(field.name, first=place == 0))} || {_value(field, identifier(f'c{place}'))}"
        for place, field in enumerate(pa.ipc.read_schema(pa.py_buffer(schema)))
    ]
    line = " || ".join([*parts, "'}'"]) if parts else "'{}'"
    return f"SELECT {line} {end} AS line, i FROM _input"


@functools.lru_cache(1024)
def _key(name: str, *, first: bool) -> str:
    quoted = connection().execute("SELECT CAST(to_json(?::VARCHAR) AS VARCHAR)", [name]).fetchall()[0][0]
    return ("{" if first else ",") + f"{quoted}:"


def _value(field: pa.Field, column: str, depth: int = 0) -> str:
    """An SQL expression of the value's JSON text; never NULL."""
    kind, types = field.type, pa.types
    name = f"x{depth}"
    if is_json(field) or types.is_boolean(kind) or types.is_integer(kind) or types.is_decimal(kind):
        text = f"CAST({column} AS VARCHAR)"
    elif types.is_floating(kind):
        text = (
            f"CASE WHEN isnan({column}) THEN '\"NaN\"' WHEN isinf({column}) THEN "
            f"(CASE WHEN {column} > 0 THEN '\"Infinity\"' ELSE '\"-Infinity\"' END) ELSE CAST({column} AS VARCHAR) END"
        )
    elif types.is_binary(kind) or types.is_large_binary(kind):
        text = f"'\"' || to_base64({column}) || '\"'"
    elif types.is_timestamp(kind):
        plain = column if kind.tz is None else f"({column} AT TIME ZONE 'UTC')"
        text = f"'\"' || replace(CAST({plain} AS VARCHAR), ' ', 'T') || '{'Z' if kind.tz else ''}\"'"
    elif types.is_date(kind) or types.is_time(kind):
        text = f"'\"' || CAST({column} AS VARCHAR) || '\"'"
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _value(kind.value_field, name, depth + 1)
        listed = column if not types.is_fixed_size_list(kind) else f"CAST({column} AS {sql_type(kind.value_field)}[])"
        text = f"'[' || array_to_string(list_transform({listed}, lambda {name}: {inner}), ',') || ']'"
    elif types.is_struct(kind):
        text = _struct(kind, column, depth)
    elif types.is_map(kind):
        text = _map(kind, column, depth)
    else:
        sql_type(field)
        text = f"CAST(to_json(CAST({column} AS VARCHAR)) AS VARCHAR)"
    return f"coalesce({text}, 'null')"


def _struct(kind: pa.DataType, column: str, depth: int) -> str:
    fields = [kind.field(place) for place in range(kind.num_fields)]
    parts = [
        f"{literal(_key(field.name, first=place == 0))} || "
        + _value(field, f"struct_extract({column}, {literal(field.name)})", depth)
        for place, field in enumerate(fields)
    ]
    return f"CASE WHEN {column} IS NOT NULL THEN {' || '.join(parts)} || '}}' END"


def _map(kind: pa.DataType, column: str, depth: int) -> str:
    name = f"x{depth}"
    key = f"CAST(to_json(CAST({name}.key AS VARCHAR)) AS VARCHAR)"
    entry = f"{key} || ':' || {_value(kind.item_field, f'{name}.value', depth + 1)}"
    return f"'{{' || array_to_string(list_transform(map_entries({column}), lambda {name}: {entry}), ',') || '}}'"


def _octets(chunk: pa.Array) -> bytes:
    """The bytes of all strings of a chunk, one after another."""
    joined = pc.binary_join(pa.array([chunk.to_pylist()], pa.list_(chunk.type)), "")
    text: str = joined[0].as_py()
    return text.encode()
