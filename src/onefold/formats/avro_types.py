"""Avro types and the Arrow types that hold their values exactly.

Values are read without Avro's logical types, as whole numbers and bytes, so that nothing passes through Python's clock
types. Source: Apache Avro 1.12, Specification: Complex Types, Logical Types.

| Avro | Arrow |
|---|---|
| int, date, time-millis | int32, date32, time64[us] |
| long, time-micros | int64, time64[us] |
| timestamp-millis, -micros | timestamp[us, UTC]; -nanos: timestamp[ns], which has no zone in SQL |
| local-timestamp-millis, -micros, -nanos | timestamp[ms], [us], [ns] |
| bytes and fixed with decimal(p, s) | decimal128(p, s); more than 38 digits: text |
| string with uuid, fixed(16) with uuid | UUID |
| enum | string |
| a union with null | the other type |
| any other union | text: a scalar as it is, others as JSON |
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from onefold.errors import SchemaError
from onefold.formats.exact import Unfit
from onefold.formats.types import marked

__all__ = ["Named", "Shape", "names_of", "plain", "shape_of", "without_null"]

Convert = Callable[[Any], Any]
Named = dict[str, Mapping[str, Any]]
"""The definitions of records, enums and fixeds by full name."""

_exactly = Context(prec=100_000)
_SIMPLE: dict[str, pa.DataType] = {
    "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(), "double": pa.float64(),
    "bytes": pa.binary(), "string": pa.string(), "null": pa.null(),
}  # fmt: skip
_TIMES: dict[tuple[str, str], tuple[pa.DataType, int]] = {
    ("int", "date"): (pa.date32(), 1),
    ("int", "time-millis"): (pa.time64("us"), 1000),
    ("long", "time-micros"): (pa.time64("us"), 1),
    ("long", "timestamp-millis"): (pa.timestamp("us", "UTC"), 1000),
    ("long", "timestamp-micros"): (pa.timestamp("us", "UTC"), 1),
    ("long", "timestamp-nanos"): (pa.timestamp("ns"), 1),
    ("long", "local-timestamp-millis"): (pa.timestamp("ms"), 1),
    ("long", "local-timestamp-micros"): (pa.timestamp("us"), 1),
    ("long", "local-timestamp-nanos"): (pa.timestamp("ns"), 1),
}
"""Arrow type, and how many of its ticks one of Avro's is."""

_MOST_DIGITS = 38
_DAY_MICROS = 86_400_000_000


@dataclass(frozen=True)
class Shape:
    """field: the Arrow field of a value. convert: from what fastavro gives to what pyarrow.array takes; None: as it is.

    It raises Unfit, and is not asked for None.
    """

    field: pa.Field
    convert: Convert | None = None


def plain(schema: Any) -> Any:
    """The schema without logical types."""
    if isinstance(schema, list):
        return [plain(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("logicalType", "precision", "scale")}
    if "fields" in kept:
        kept["fields"] = [{**member, "type": plain(member["type"])} for member in kept["fields"]]
    for part in ("items", "values"):
        if part in kept:
            kept[part] = plain(kept[part])
    if isinstance(kept.get("type"), dict | list):
        kept["type"] = plain(kept["type"])
    return kept


def names_of(schema: Any, into: Named, space: str = "") -> Named:
    """Every definition in a schema, by full name."""
    if isinstance(schema, list):
        for branch in schema:
            names_of(branch, into, space)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if kind in ("record", "error", "enum", "fixed"):
            full = full_name(str(schema["name"]), str(schema.get("namespace", space)))
            into[full] = {**schema, "namespace": full.rpartition(".")[0]}
            for member in schema.get("fields", ()):
                names_of(member["type"], into, full.rpartition(".")[0])
        else:
            for part in (schema.get("items"), schema.get("values"), kind):
                names_of(part, into, space)
    return into


def full_name(name: str, space: str) -> str:
    """A name with its namespace."""
    return name if "." in name or not space else f"{space}.{name}"


def without_null(schema: Any) -> tuple[Any, bool]:
    """(the other branch of a union with null, True), or (the schema, whether null is one of its branches)."""
    if not isinstance(schema, list):
        return schema, schema == "null"
    others = [branch for branch in schema if branch not in ("null", {"type": "null"})]
    if len(others) == 1:
        return others[0], len(others) < len(schema)
    return others, len(others) < len(schema)


def shape_of(
    name: str, schema: Any, named: Named, *, as_json: bool = False, space: str = "", above: tuple[str, ...] = ()
) -> Shape:
    """How values of an Avro type become Arrow's. as_json: unions as JSON text. Raises SchemaError."""
    schema, _ = without_null(schema)
    if isinstance(schema, list):
        return _union(name, schema, named, as_json, space)
    if isinstance(schema, str):
        if schema in _SIMPLE:
            return Shape(pa.field(name, _SIMPLE[schema]))
        full = full_name(schema, space) if full_name(schema, space) in named else schema
        if full in above:
            raise SchemaError(f"The type {full} holds itself, which no column can.", column=name)
        if full not in named:
            raise SchemaError(f"The type {full} is not defined.", column=name)
        return shape_of(name, named[full], named, as_json=as_json, above=above)
    kind = schema.get("type")
    if isinstance(kind, dict | list):
        return shape_of(name, kind, named, as_json=as_json, space=space, above=above)
    logical = _logical(name, schema, str(kind))
    if logical is not None:
        return logical
    if kind in ("record", "error"):
        return _record(name, schema, named, space, above)
    if kind == "array":
        item = shape_of("item", schema["items"], named, space=space, above=above)
        return Shape(pa.field(name, pa.list_(item.field)), _each(item))
    if kind == "map":
        item = shape_of("value", schema["values"], named, space=space, above=above)
        return Shape(pa.field(name, pa.map_(pa.string(), item.field)), _each_value(item))
    if kind == "enum":
        return Shape(pa.field(name, pa.string()))
    if kind == "fixed":
        return Shape(pa.field(name, pa.binary()))
    return shape_of(name, str(kind), named, as_json=as_json, space=space, above=above)


def _logical(name: str, schema: Mapping[str, Any], kind: str) -> Shape | None:
    logical = schema.get("logicalType")
    if logical == "decimal" and kind in ("bytes", "fixed"):
        return _decimal(name, int(schema.get("precision", 0)), int(schema.get("scale", 0)))
    if logical == "uuid" and kind == "string":
        return Shape(marked(name, "UUID"))
    if logical == "uuid" and kind == "fixed" and schema.get("size") == 16:
        return Shape(marked(name, "UUID"), lambda value: str(UUID(bytes=value)))
    if (kind, str(logical)) in _TIMES:
        arrow, ticks = _TIMES[kind, str(logical)]
        return Shape(pa.field(name, arrow), _ticks(arrow, ticks))
    return None


def _decimal(name: str, precision: int, scale: int) -> Shape | None:
    if not precision > 0 or not 0 <= scale <= precision:
        return None  # not a valid decimal, so the type below it counts

    def convert(value: bytes) -> Decimal:
        whole = int.from_bytes(value, "big", signed=True)
        if not -(10**precision) < whole < 10**precision:
            raise Unfit(f"a number has more than the {precision} digits of its own schema")
        return _exactly.scaleb(Decimal(whole), -scale)

    if precision > _MOST_DIGITS:
        return Shape(pa.field(name, pa.string()), lambda value: f"{convert(value):f}")
    return Shape(pa.field(name, pa.decimal128(precision, scale)), convert)


def _ticks(arrow: pa.DataType, ticks: int) -> Convert:
    if pa.types.is_time64(arrow):
        low, high = 0, _DAY_MICROS - 1
    else:  # DuckDB has infinities at the ends
        bits = 31 if pa.types.is_date32(arrow) else 63
        low, high = -(1 << bits) + 2, (1 << bits) - 2

    def convert(value: int) -> int:
        if not low <= value * ticks <= high:
            raise Unfit(f"{value} is out of the range of {arrow}")
        return value * ticks

    return convert


def _record(name: str, schema: Mapping[str, Any], named: Named, space: str, above: tuple[str, ...]) -> Shape:
    full = full_name(str(schema["name"]), str(schema.get("namespace", space)))
    if full in above:
        raise SchemaError(f"The type {full} holds itself, which no column can.", column=name)
    inner = full.rpartition(".")[0]
    members = [
        shape_of(member["name"], member["type"], named, space=inner, above=(*above, full))
        for member in schema["fields"]
    ]
    converted = [(each.field.name, each.convert) for each in members if each.convert]

    def convert(value: dict[str, Any]) -> dict[str, Any]:
        for key, own in converted:
            if value[key] is not None:
                value[key] = own(value[key])
        return value

    return Shape(pa.field(name, pa.struct([each.field for each in members])), convert if converted else None)


def _each(item: Shape) -> Convert | None:
    own = item.convert
    return None if own is None else lambda values: [None if value is None else own(value) for value in values]


def _each_value(item: Shape) -> Convert:
    own = item.convert or (lambda value: value)
    return lambda entries: [(key, None if value is None else own(value)) for key, value in entries.items()]


def _union(name: str, branches: list[Any], named: Named, as_json: bool, space: str) -> Shape:
    for branch in branches:
        shape = shape_of(name, branch, named, space=space)
        if shape.convert is not None or shape.field.metadata:
            raise SchemaError(f"A union of {shape.field.type} and others has no exact type in a column.", column=name)

    def as_text(value: Any) -> str:
        return value if isinstance(value, str) else _json(value)

    kind = marked(name, "JSON") if as_json else pa.field(name, pa.string())
    return Shape(kind, _json if as_json else as_text)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_base64)


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode("ascii")
