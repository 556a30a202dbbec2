"""Arrow columns as Avro records, and the Avro schema that holds them exactly. See onefold.formats.avro_types."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pyarrow as pa

from onefold.errors import RowsRefused, SchemaError
from onefold.formats.avro_types import without_null
from onefold.formats.types import is_json, is_uuid, sql_type

__all__ = ["avro_schema", "to_records"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PLAIN: dict[pa.DataType, Any] = {
    pa.bool_(): "boolean", pa.int8(): "int", pa.int16(): "int", pa.int32(): "int", pa.uint8(): "int",
    pa.uint16(): "int", pa.uint32(): "long", pa.int64(): "long", pa.float32(): "float", pa.float64(): "double",
    pa.string(): "string", pa.large_string(): "string", pa.binary(): "bytes", pa.large_binary(): "bytes",
    pa.uint64(): {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0},
    pa.date32(): {"type": "int", "logicalType": "date"},
    pa.time64("us"): {"type": "long", "logicalType": "time-micros"},
    pa.timestamp("s"): {"type": "long", "logicalType": "local-timestamp-millis"},
    pa.timestamp("ms"): {"type": "long", "logicalType": "local-timestamp-millis"},
    pa.timestamp("us"): {"type": "long", "logicalType": "local-timestamp-micros"},
    pa.timestamp("ns"): {"type": "long", "logicalType": "local-timestamp-nanos"},
}  # fmt: skip


def avro_schema(schema: pa.Schema, name: str) -> dict[str, Any]:
    """An Avro record for rows of these columns, all of them nullable with the default null. Raises SchemaError."""
    return _record(list(schema), name if _NAME.fullmatch(name) else f"_{name}")


def _record(fields: list[pa.Field], name: str) -> dict[str, Any]:
    members = []
    for field in fields:
        if not _NAME.fullmatch(field.name):
            raise SchemaError(
                f"Avro has no field of the name {field.name!r}.", column=field.name,
                expected="letters, digits and _", next_step='Rename it in select("*", other="…").',
            )  # fmt: skip
        members.append(
            {"name": field.name, "type": ["null", _avro_type(field, f"{name}_{field.name}")], "default": None}
        )
    return {"type": "record", "name": name, "fields": members}


def _avro_type(field: pa.Field, name: str) -> Any:
    kind, types = field.type, pa.types
    if is_uuid(field):
        return {"type": "string", "logicalType": "uuid"}
    if kind in _PLAIN:
        return _PLAIN[kind]
    if types.is_timestamp(kind) and kind.unit == "us":
        return {"type": "long", "logicalType": "timestamp-micros"}
    if types.is_decimal128(kind) and 0 <= kind.scale <= kind.precision:
        return {"type": "bytes", "logicalType": "decimal", "precision": kind.precision, "scale": kind.scale}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return {"type": "array", "items": ["null", _avro_type(kind.value_field, f"{name}_item")]}
    if types.is_map(kind) and types.is_string(kind.key_type):
        return {"type": "map", "values": ["null", _avro_type(kind.item_field, f"{name}_value")]}
    if types.is_struct(kind):
        return _record([kind.field(place) for place in range(kind.num_fields)], name)
    raise SchemaError(f"Avro has no type for {sql_type(field)}.", column=field.name, next_step="Cast it in select(…).")


def to_records(target: pa.Schema, root: Any, schema: pa.Schema) -> Callable[[pa.Table], list[dict[str, Any]]]:
    """A function from rows of `schema` to what fastavro writes as `root`, a record without logical types.

    target: the Arrow columns of root. Raises SchemaError unless every value fits for certain; the function raises
    RowsRefused for NULL where root has none.
    """
    if not isinstance(root, dict) or root.get("type") != "record":
        raise SchemaError("Rows are written as an Avro record.", found=str(root)[:200])
    members = {member["name"]: member for member in root["fields"]}
    for field in schema:
        if field.name not in members:
            raise SchemaError(f"The Avro schema has no field {field.name}.", column=field.name, expected=list(members))
        is_union = isinstance(without_null(members[field.name]["type"])[0], list)
        if is_union or not _holds(target.field(field.name), field):
            raise SchemaError(
                f"The Avro field {field.name} does not hold every value of the column.", column=field.name,
                found=sql_type(field), expected=str(target.field(field.name).type), next_step="Cast it in select(…).",
            )  # fmt: skip
    absent = [name for name, member in members.items() if name not in schema.names and "default" not in member]
    if absent:
        raise SchemaError("The Avro schema has fields without a default that the rows lack.", found=", ".join(absent))
    defaults = {name: member["default"] for name, member in members.items() if name not in schema.names}

    def convert(rows: pa.Table) -> list[dict[str, Any]]:
        columns = []
        for name in schema.names:
            column = rows.column(name).combine_chunks().cast(target.field(name).type)
            schema_of, may_be_null = without_null(members[name]["type"])
            if column.null_count and not may_be_null:
                raise RowsRefused(f"{column.null_count} rows have no value in a field that needs one.", column=name)
            columns.append(_raw(column, schema_of))
        names = schema.names
        return [{**defaults, **dict(zip(names, values, strict=True))} for values in zip(*columns, strict=True)]

    return convert


def _holds(target: pa.Field, column: pa.Field) -> bool:
    """Whether every value of the column is one of the target's."""
    wide, narrow, types = target.type, column.type, pa.types
    if is_uuid(target) or is_json(target):
        return is_uuid(column) if is_uuid(target) else is_json(column)
    if types.is_nested(wide):
        return _holds_nested(wide, narrow)
    if wide == narrow or (types.is_string(wide) and types.is_large_string(narrow)):
        return True
    if types.is_integer(wide) and types.is_integer(narrow):
        is_wider = wide.bit_width > narrow.bit_width
        return bool(is_wider or (types.is_signed_integer(narrow) and wide.bit_width == narrow.bit_width))
    if types.is_decimal(wide) and types.is_decimal(narrow):
        return bool(wide.scale == narrow.scale and wide.precision >= narrow.precision)
    if types.is_decimal(wide) and types.is_integer(narrow):
        return bool(wide.precision - wide.scale >= len(str(1 << narrow.bit_width)))
    if types.is_float64(wide):
        return bool(types.is_float32(narrow) or (types.is_integer(narrow) and narrow.bit_width <= 32))
    if types.is_binary(wide):
        return bool(types.is_large_binary(narrow))
    return bool(types.is_timestamp(wide) and types.is_timestamp(narrow) and narrow.unit == "s" and wide.unit == "ms")


def _holds_nested(wide: pa.DataType, narrow: pa.DataType) -> bool:
    types = pa.types
    if types.is_list(wide):
        is_list = types.is_list(narrow) or types.is_large_list(narrow) or types.is_fixed_size_list(narrow)
        return is_list and _holds(wide.value_field, narrow.value_field)
    if types.is_map(wide):
        return types.is_map(narrow) and types.is_string(narrow.key_type) and _holds(wide.item_field, narrow.item_field)
    if not types.is_struct(narrow):
        return False
    own = {narrow.field(place).name: narrow.field(place) for place in range(narrow.num_fields)}
    theirs = {wide.field(place).name: wide.field(place) for place in range(wide.num_fields)}
    return list(own) == list(theirs) and all(_holds(theirs[name], field) for name, field in own.items())


def _raw(array: pa.Array, schema: Any) -> list[Any]:
    """What fastavro writes when it knows no logical types."""
    kind, types = array.type, pa.types
    schema, _ = without_null(schema)
    if isinstance(schema, dict) and isinstance(schema.get("type"), dict | list):
        return _raw(array, schema["type"])
    if types.is_timestamp(kind) or types.is_time64(kind):
        millis = isinstance(schema, Mapping) and str(schema.get("logicalType", "")).endswith("-millis")
        divisor = 1000 if millis and kind.unit == "us" else 1
        ticks = array.cast(pa.int64()).to_pylist()
        if any(tick is not None and tick % divisor for tick in ticks):
            raise RowsRefused("A time is finer than the milliseconds of its Avro field.")
        return [None if tick is None else tick // divisor for tick in ticks]
    if types.is_date32(kind):
        found: list[Any] = array.cast(pa.int32()).to_pylist()
        return found
    if types.is_decimal(kind):
        size = schema.get("size") if schema.get("type") == "fixed" else None
        return [None if value is None else _unscaled(value, kind.scale, size) for value in array.to_pylist()]
    if isinstance(schema, Mapping) and schema.get("type") == "fixed":
        is_uuid_ = schema.get("logicalType") == "uuid"
        return [None if v is None else UUID(v).bytes if is_uuid_ else v for v in array.to_pylist()]
    if types.is_struct(kind):
        parts = {member["name"]: member["type"] for member in schema["fields"]}
        names = [kind.field(place).name for place in range(kind.num_fields)]
        columns = [_raw(child, parts[name]) for name, child in zip(names, array.flatten(), strict=True)]
        rows = zip(*columns, strict=True) if columns else iter([()] * len(array))
        there = array.is_valid().to_pylist()
        return [
            dict(zip(names, row, strict=True)) if is_there else None for row, is_there in zip(rows, there, strict=True)
        ]
    if types.is_list(kind) or types.is_map(kind):
        return _many(array, schema)
    plain: list[Any] = array.to_pylist()
    return plain


def _many(array: pa.Array, schema: Any) -> list[Any]:
    bounds = array.offsets.to_pylist()
    there = array.is_valid().to_pylist()
    spans = [slice(bounds[place], bounds[place + 1]) if there[place] else None for place in range(len(array))]
    if pa.types.is_list(array.type):
        items = _raw(array.values, schema["items"])
        return [None if span is None else items[span] for span in spans]
    keys, values = array.keys.to_pylist(), _raw(array.items, schema["values"])
    return [None if span is None else dict(zip(keys[span], values[span], strict=True)) for span in spans]


def _unscaled(value: Any, scale: int, size: int | None) -> bytes:
    sign, digits, exponent = value.as_tuple()
    whole = int("".join(map(str, digits))) * 10 ** (scale + exponent) * (-1 if sign else 1)
    length = size or (whole.bit_length() + 8) // 8
    encoded: bytes = whole.to_bytes(length, "big", signed=True)
    return encoded
