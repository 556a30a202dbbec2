"""Rows on their way to Hudi: their Avro schema, record keys and partitions, and the Parquet file that Java reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onefold.connectors.spooling import OP_COLUMN, stored_schema
from onefold.errors import SchemaError
from onefold.types import Binding

__all__ = ["Layout", "avro_schema", "columns_of", "handover", "name_of", "stored_columns", "stored_type"]

EMPTY, NULL = "__empty__", "__null__"
"""What Hudi's key generators write for an empty and for a missing part of a key."""

NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_UNSAFE = re.compile(r"[\x00-\x1f\"#%'*/:=?\\{\[\]^\x7f]")
"""What Hudi encodes in the name of a partition."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY_DIGITS = 12
_SIMPLE: Mapping[str, tuple[str, pa.DataType]] = {
    "bool": ("boolean", pa.bool_()),
    "int8": ("int", pa.int32()),
    "int16": ("int", pa.int32()),
    "int32": ("int", pa.int32()),
    "int64": ("long", pa.int64()),
    "uint8": ("int", pa.int32()),
    "uint16": ("int", pa.int32()),
    "uint32": ("long", pa.int64()),
    "float": ("float", pa.float32()),
    "double": ("double", pa.float64()),
    "string": ("string", pa.string()),
    "large_string": ("string", pa.string()),
    "string_view": ("string", pa.string()),
    "binary": ("bytes", pa.binary()),
    "large_binary": ("bytes", pa.binary()),
    "binary_view": ("bytes", pa.binary()),
}


_FROM_AVRO: Mapping[str, pa.DataType] = {
    **dict(_SIMPLE.values()),
    "date": pa.date32(),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-micros": pa.timestamp("us"),
}


class Layout:
    """How rows of a flow lie in the table.

    Args:
        binding: whose rows. columns: all of the table, with their Arrow types; those that the flow does not write are
            NULL. partition_by: columns whose values name the folders.
    """

    def __init__(self, binding: Binding, columns: pa.Schema, partition_by: Sequence[str]) -> None:
        self.binding = binding
        self.columns = columns
        self.partition_by = tuple(partition_by)


# --------------------------------------------------------------------------------------------------------------- types


def stored_type(kind: pa.DataType) -> pa.DataType | None:
    """The type that Hudi gives back for a type of ours, when every value survives; None: there is none."""
    known = _SIMPLE.get(str(kind))
    if known is not None:
        return known[1]
    if pa.types.is_dictionary(kind):
        return stored_type(kind.value_type)
    if pa.types.is_date32(kind) or pa.types.is_decimal128(kind):
        return kind
    if pa.types.is_timestamp(kind) and kind.unit != "ns":
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_struct(kind) and kind.num_fields and all(_WORD.fullmatch(field.name) for field in kind):
        fields = [(field.name, stored_type(field.type)) for field in kind]
        return None if any(inner is None for _, inner in fields) else pa.struct(fields)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = stored_type(kind.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_map(kind) and stored_type(kind.key_type) == pa.string():
        inner = stored_type(kind.item_type)
        return None if inner is None else pa.map_(pa.string(), inner)
    return None


def stored_columns(binding: Binding) -> pa.Schema:
    """The columns that the table keeps, as it keeps them. Raises SchemaError for what Hudi cannot keep exactly."""
    columns = []
    for column in stored_schema(binding):
        if not _WORD.fullmatch(column.name) or column.name.startswith("_hoodie_"):
            raise SchemaError(
                f"Column {column.name!r} cannot be stored: Hudi takes letters, digits and _ only.",
                sink=binding.sink,
                column=column.name,
                next_step='Give it another name: select("*", plain_name=…).',
            )
        kind = stored_type(column.type)
        if kind is None:
            raise SchemaError(
                f"Column {column.name} cannot be stored exactly: Hudi has no type for it.",
                found=str(column.type),
                sink=binding.sink,
                column=column.name,
                next_step="Cast it in select(…), to VARCHAR for instance.",
            )
        columns.append(pa.field(column.name, kind))
    return pa.schema(columns)


def avro_schema(columns: pa.Schema, table: str) -> str:
    """The Avro schema of stored columns, as Hudi's Spark writer would name it."""
    space = f"hoodie.{name_of(table)}"
    record = f"{name_of(table)}_record"
    return json.dumps(_record(columns, record, space))


def name_of(text: str) -> str:
    """A name that Avro takes."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return plain if _WORD.fullmatch(plain) else f"_{plain}"


def _record(fields: Any, name: str, space: str) -> dict[str, Any]:
    inner = f"{space}.{name}"
    found = [{"name": one.name, "type": ["null", _avro(one.type, one.name, inner)], "default": None} for one in fields]
    return {"type": "record", "name": name, "namespace": space, "fields": found}


def _avro(kind: pa.DataType, name: str, space: str) -> Any:
    known = _SIMPLE.get(str(kind))
    if known is not None:
        return known[0]
    if pa.types.is_date32(kind):
        return {"type": "int", "logicalType": "date"}
    if pa.types.is_timestamp(kind):
        return {"type": "long", "logicalType": "timestamp-micros" if kind.tz else "local-timestamp-micros"}
    if pa.types.is_decimal(kind):
        size = _decimal_bytes(kind.precision)
        logical = {"logicalType": "decimal", "precision": kind.precision, "scale": kind.scale}
        return {"type": "fixed", "name": "fixed", "namespace": f"{space}.{name}", "size": size, **logical}
    if pa.types.is_struct(kind):
        return _record(kind, name, space)
    if pa.types.is_map(kind):
        return {"type": "map", "values": ["null", _avro(kind.item_type, name, space)]}
    return {"type": "array", "items": ["null", _avro(kind.value_type, name, space)]}


def columns_of(avro: str) -> pa.Schema:
    """The stored columns that an Avro schema names. Types that are none of ours are pa.null()."""
    return pa.schema([(one["name"], _arrow(one["type"])) for one in json.loads(avro)["fields"]])


def _arrow(kind: Any) -> pa.DataType:
    if isinstance(kind, list):
        inner = [one for one in kind if one != "null"]
        return _arrow(inner[0]) if len(inner) == 1 else pa.null()
    if isinstance(kind, str):
        return _FROM_AVRO.get(kind, pa.null())
    logical = kind.get("logicalType")
    if logical == "decimal":
        return pa.decimal128(kind["precision"], kind.get("scale", 0))
    if logical is not None:
        return _FROM_AVRO.get(logical, pa.null())
    if kind["type"] == "record":
        return pa.struct([(one["name"], _arrow(one["type"])) for one in kind["fields"]])
    if kind["type"] == "array":
        return pa.list_(_arrow(kind["items"]))
    if kind["type"] == "map":
        return pa.map_(pa.string(), _arrow(kind["values"]))
    return _arrow(kind["type"])


def _decimal_bytes(precision: int) -> int:
    """The fewest bytes that hold every number of so many digits."""
    size = 1
    while 2 ** (8 * size - 1) - 1 < 10**precision - 1:
        size += 1
    return size


# ---------------------------------------------------------------------------------------------------------------- rows


def handover(rows: pa.Table, layout: Layout, seal: str, where: Any) -> None:
    """Write a Parquet file of (key, partition, row), in order; the row of a delete is NULL.

    seal: names appended rows, that are told apart by it and by their place. where: a path.
    """
    binding = layout.binding
    stored = _as_stored(rows, layout.columns)
    columns = [column.combine_chunks() for column in stored.columns]
    body = pa.StructArray.from_arrays(columns, fields=list(layout.columns)) if rows.num_rows else None
    if body is None:
        body = pa.array([], pa.struct(list(layout.columns)))
    if binding.mode == "upsert":
        keys = _keys(rows, binding.key)
        if OP_COLUMN in rows.schema.names:
            gone = pc.equal(rows.column(OP_COLUMN), "delete").combine_chunks()
            body = pc.if_else(gone, pa.scalar(None, body.type), body)
    else:
        keys = [f"{seal}-{place:0{_KEY_DIGITS}d}" for place in range(rows.num_rows)]
    table = pa.table({"key": pa.array(keys, pa.string()), "partition": _partitions(rows, layout), "row": body})
    pq.write_table(table, where, compression="none", store_schema=False, use_dictionary=False)


def _as_stored(rows: pa.Table, columns: pa.Schema) -> pa.Table:
    found = []
    for column in columns:
        if column.name in rows.schema.names:
            found.append(rows.column(column.name).cast(column.type))
        else:
            found.append(pa.chunked_array([pa.nulls(rows.num_rows, column.type)]))
    return pa.table(found, schema=columns)


def _keys(rows: pa.Table, key: Sequence[str]) -> list[str]:
    """Record keys as Hudi's key generators write them, and where those would be ambiguous, so that they are not."""
    parts = [[None if value is None else _text(value) for value in rows.column(name).to_pylist()] for name in key]
    if len(key) == 1:
        return [_single(value) for value in parts[0]]
    marked = [[f"{name}:{_part(value)}" for value in column] for name, column in zip(key, parts, strict=True)]
    return [",".join(row) for row in zip(*marked, strict=True)]


def _single(value: str | None) -> str:
    if value is None:
        return NULL
    if value in (NULL, EMPTY) or value.startswith("%"):
        return f"%{ord(value[0]):02X}{value[1:]}"
    return value or EMPTY


def _part(value: str | None) -> str:
    if value in (NULL, EMPTY):
        return f"%5F{value[1:]}" if value else ""
    if value is None:
        return NULL
    return value.replace("%", "%25").replace(",", "%2C") or EMPTY


def _text(value: Any) -> str:
    """A key's part as Hudi's key generators write it; floats as they are told apart here."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return "NaN" if value != value else repr(value + 0.0)
    return str(value)


def _partitions(rows: pa.Table, layout: Layout) -> pa.Array:
    """The folder of each row, in the style of Hive."""
    if not layout.partition_by:
        return pa.array([""] * rows.num_rows, pa.string())
    names = [[f"{name}={_folder(value)}" for value in rows.column(name).to_pylist()] for name in layout.partition_by]
    return pa.array(["/".join(row) for row in zip(*names, strict=True)], pa.string())


def _folder(value: Any) -> str:
    if value is None or value == "":
        return NO_PARTITION
    if isinstance(value, bool):
        return str(value).lower()
    text = value.isoformat() if isinstance(value, date) else str(value)
    return _UNSAFE.sub(lambda sign: f"%{ord(sign[0]):02X}", text)
