"""Arrow types and the SQL types they stand for. JSON and UUID are strings with a mark in the field's metadata."""

from __future__ import annotations

import pyarrow as pa

from onefold.errors import SchemaError
from onefold.formats.duck import identifier

__all__ = ["MARK", "is_json", "is_uuid", "marked", "sql_type", "sql_types"]

MARK = b"onefold.type"
"""The key of a field's metadata that tells JSON and UUID from VARCHAR."""


def sql_types(schema: pa.Schema) -> dict[str, str]:
    """The SQL type of every column, by name, in order. Raises SchemaError for a type that has none."""
    return {field.name: sql_type(field) for field in schema}


def marked(name: str, mark: str) -> pa.Field:
    """A string column that stands for JSON or UUID."""
    return pa.field(name, pa.string(), metadata={MARK: mark.encode()})


def is_json(field: pa.Field) -> bool:
    """Whether the column holds JSON as text."""
    return _mark(field) == b"JSON" or getattr(field.type, "extension_name", "") == "arrow.json"


def is_uuid(field: pa.Field) -> bool:
    """Whether the column holds UUIDs as text."""
    return _mark(field) == b"UUID"


def sql_type(field: pa.Field) -> str:
    """The SQL type of one column. Raises SchemaError for a type that has none."""
    mark = _mark(field)
    if mark is not None:
        return mark.decode()
    found = _plain.get(field.type) or _composed(field.type)
    if found is None:
        raise SchemaError(
            f"Column {field.name!r} has the Arrow type {field.type}, which has no SQL type.",
            column=field.name,
            next_step="Cast the column to another type before onefold reads it, or declare it as VARCHAR.",
        )
    return found


_plain: dict[pa.DataType, str] = {
    pa.bool_(): "BOOLEAN", pa.int8(): "TINYINT", pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT", pa.uint16(): "USMALLINT", pa.uint32(): "UINTEGER", pa.uint64(): "UBIGINT",
    pa.float32(): "REAL", pa.float64(): "DOUBLE", pa.string(): "VARCHAR", pa.large_string(): "VARCHAR",
    pa.string_view(): "VARCHAR", pa.binary(): "BLOB", pa.large_binary(): "BLOB", pa.date32(): "DATE",
    pa.time64("us"): "TIME", pa.timestamp("s"): "TIMESTAMP_S", pa.timestamp("ms"): "TIMESTAMP_MS",
    pa.timestamp("us"): "TIMESTAMP", pa.timestamp("ns"): "TIMESTAMP_NS",
}  # fmt: skip


def _composed(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_decimal128(kind):
        return f"DECIMAL({kind.precision},{kind.scale})" if 0 <= kind.scale <= kind.precision else None
    if types.is_timestamp(kind) and kind.unit == "us":
        return "TIMESTAMPTZ"
    if types.is_fixed_size_list(kind):
        return f"{sql_type(kind.value_field)}[{kind.list_size}]"
    if types.is_list(kind) or types.is_large_list(kind):
        return f"{sql_type(kind.value_field)}[]"
    if types.is_struct(kind):
        fields = (kind.field(index) for index in range(kind.num_fields))
        return "STRUCT(" + ", ".join(f"{identifier(field.name)} {sql_type(field)}" for field in fields) + ")"
    if types.is_map(kind):
        return f"MAP({sql_type(kind.key_field)}, {sql_type(kind.item_field)})"
    return None


def _mark(field: pa.Field) -> bytes | None:
    return (field.metadata or {}).get(MARK)
