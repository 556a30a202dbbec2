"""Arrow's types and Iceberg's: what is stored of a column, and whether a table's columns take it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow

from onefold.connectors.spooling import stored_schema
from onefold.errors import SchemaError
from onefold.types import Binding

__all__ = ["check_columns", "missing_columns", "plain_type", "stored_rows", "stored_types"]

_UTC = ("UTC", "+00:00", "Etc/UTC", "Z")
_DECIMAL_DIGITS = 38


def stored_types(binding: Binding, label: str) -> pa.Schema:
    """The columns as a table keeps them. Raises SchemaError for a type that would not come back as it was."""
    fields = []
    for field in stored_schema(binding):
        kind = plain_type(field.type)
        if kind is None:
            raise SchemaError(
                f"Column {field.name} of {label} has a type that an Iceberg table cannot keep exactly.",
                found=str(field.type),
                expected="integers up to 64 bits with a sign, decimals up to 38 digits, times in microseconds, …",
                next_step="Cast it in the flow's select, to DECIMAL(20,0), TIMESTAMP or VARCHAR, say.",
                sink=binding.sink,
                column=field.name,
            )
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def plain_type(kind: pa.DataType) -> pa.DataType | None:
    """The type of the column in the table that keeps every value of this one; None: there is none."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_nested(kind):
        return _plain_nested(kind)
    if pa.types.is_integer(kind):
        is_wide = kind.bit_width > 32 or kind.equals(pa.uint32())
        return None if kind.equals(pa.uint64()) else (pa.int64() if is_wide else pa.int32())
    if pa.types.is_floating(kind):
        return pa.float64() if kind.equals(pa.float64()) else pa.float32()
    if pa.types.is_decimal(kind):
        is_kept = kind.precision <= _DECIMAL_DIGITS and kind.scale >= 0
        return pa.decimal128(kind.precision, kind.scale) if is_kept else None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_boolean(kind):
        return kind
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return _plain_temporal(kind)


def _plain_temporal(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_date(kind):
        return pa.date32()
    if pa.types.is_timestamp(kind) and kind.unit != "ns":
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_time(kind) and kind.unit != "ns":
        return pa.time64("us")
    return None


def _plain_nested(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_struct(kind):
        inner = [(field.name, plain_type(field.type)) for field in kind]
        return pa.struct(inner) if inner and all(found is not None for _, found in inner) else None
    if pa.types.is_map(kind):
        key, item = plain_type(kind.key_type), plain_type(kind.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        value = plain_type(kind.value_type)
        return None if value is None else pa.list_(value)
    return None


def stored_rows(rows: pa.Table, stored: pa.Schema) -> pa.Table:
    """The rows with the types that the table keeps."""
    columns = [_flat(rows.column(field.name), field.type) for field in stored]
    return pa.table(columns, schema=stored)


def _flat(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(kind)


def check_columns(schema: Any, binding: Binding, stored: pa.Schema, label: str) -> None:
    """Raise SchemaError unless the table's columns take the flow's. schema: pyiceberg's."""
    lacking = missing_columns(schema, stored)
    if lacking:
        raise SchemaError(
            f"{label} lacks columns that the flow writes.",
            found=f"no column {', '.join(lacking)}",
            expected=", ".join(f"{name} {stored.field(name).type}" for name in lacking),
            next_step="Say evolve=True to have them added, add them, or leave them out in the flow's select.",
            sink=binding.sink,
            column=lacking[0],
        )
    found = schema_to_pyarrow(schema, include_field_ids=False)
    for field in stored:
        there = found.field(field.name)
        if not _takes(there.type, field.type):
            raise SchemaError(
                f"Column {field.name} of {label} is not what the flow writes.",
                found=str(plain_type(there.type) or there.type),
                expected=str(field.type),
                next_step="Change the flow's select, or write to another table.",
                sink=binding.sink,
                column=field.name,
            )
    for field in found:
        if not field.nullable and field.name not in stored.names:
            raise SchemaError(
                f"{label} demands a column that the flow does not write.",
                found=f"column {field.name} is required",
                next_step="Write it, or make it optional.",
                sink=binding.sink,
                column=field.name,
            )


def missing_columns(schema: Any, stored: pa.Schema) -> list[str]:
    """Those that the table does not have."""
    there = {field.name for field in schema.fields}
    return [name for name in stored.names if name not in there]


def _takes(there: pa.DataType, ours: pa.DataType) -> bool:
    """Whether a column of the table takes values of ours, each as it is."""
    plain = plain_type(there)
    if plain is None:
        return False
    if plain.equals(ours):
        return True
    wider = ((pa.int32(), pa.int64()), (pa.float32(), pa.float64()))
    if any(ours.equals(narrow) and plain.equals(wide) for narrow, wide in wider):
        return True
    is_decimal = pa.types.is_decimal(ours) and pa.types.is_decimal(plain)
    return bool(is_decimal and ours.scale == plain.scale and ours.precision <= plain.precision)
