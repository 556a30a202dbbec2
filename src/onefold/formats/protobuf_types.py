"""Protobuf fields and the Arrow types that hold their values exactly.

| Protobuf | Arrow |
|---|---|
| int32, sint32, sfixed32; uint32, fixed32; the same of 64 bits | int32, uint32, int64, uint64 |
| float, double, bool, string, bytes | the same |
| enum | string: the name, or the number where the schema has no name for it |
| repeated, map, message | list, map, struct |
| google.protobuf.Timestamp | timestamp[us, UTC]; as a column of its own all nanoseconds are kept for TIMESTAMP_NS |
| google.protobuf.…Value (wrappers) | the wrapped type; absent is NULL |
| google.protobuf.Struct, Value, ListValue | JSON |
| confluent.type.Decimal | text with all digits, which fits DECIMAL |

A field that tracks presence (optional, oneof, message) is NULL when it is absent; any other then has its default.
Sources: Protocol Buffers, Language Guide (proto 3), Application Note: Field Presence; ProtoJSON Format.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa

from onefold.errors import SchemaError
from onefold.formats.exact import Unfit
from onefold.formats.types import marked

__all__ = ["Cell", "cell_of", "is_map", "is_repeated"]

_SCALARS: dict[str, pa.DataType] = {
    "INT32": pa.int32(), "SINT32": pa.int32(), "SFIXED32": pa.int32(), "UINT32": pa.uint32(), "FIXED32": pa.uint32(),
    "INT64": pa.int64(), "SINT64": pa.int64(), "SFIXED64": pa.int64(), "UINT64": pa.uint64(), "FIXED64": pa.uint64(),
    "FLOAT": pa.float32(), "DOUBLE": pa.float64(), "BOOL": pa.bool_(), "STRING": pa.string(), "BYTES": pa.binary(),
}  # fmt: skip
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_AS_JSON = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
_DECIMALS = frozenset({"confluent.type.Decimal", "confluent.types.Decimal"})
TIMESTAMP = "google.protobuf.Timestamp"
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - written with Z behind it
_exactly = Context(prec=100_000)


@dataclass(frozen=True)
class Cell:
    """field: of the Arrow column as it is read; inferred: as it is best declared. value: of a message; raises Unfit."""

    field: pa.Field
    inferred: pa.Field
    value: Callable[[Any], Any]


def cell_of(field: Any, *, is_column: bool = True, above: tuple[str, ...] = ()) -> Cell:
    """How a field's value becomes Arrow's. field: a FieldDescriptor. Raises SchemaError for one that holds itself."""
    name = str(field.name)
    if is_map(field):
        key, item = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        keys, items = _single(key, is_column=False, above=above), _single(item, is_column=False, above=above)
        kind = pa.field(name, pa.map_(keys[0].type, items[0].with_name("value")))
        convert_key, convert_item = keys[1], items[1]
        return Cell(
            kind,
            kind,
            lambda m: [(convert_key(k), convert_item(v)) for k, v in sorted(getattr(m, name).items(), key=_key)],
        )
    if is_repeated(field):
        inner, convert = _single(field, is_column=False, above=above)
        kind = pa.field(name, pa.list_(inner.with_name("item")))
        return Cell(kind, kind, lambda m: [convert(v) for v in getattr(m, name)])
    own, convert = _single(field, is_column=is_column, above=above)
    best = own
    if field.message_type is not None and field.message_type.full_name == TIMESTAMP:
        best = pa.field(name, pa.timestamp("us", "UTC"))
    if field.has_presence:
        return Cell(own, best, lambda m: convert(getattr(m, name)) if m.HasField(name) else None)
    return Cell(own, best, lambda m: convert(getattr(m, name)))


def is_repeated(field: Any) -> bool:
    """Whether it may stand several times."""
    known = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED) if known is None else bool(known)


def is_map(field: Any) -> bool:
    """Whether it is a map: a repeated message of a kind of its own."""
    message = field.message_type
    return bool(is_repeated(field) and message is not None and message.GetOptions().map_entry)


def _single(field: Any, *, is_column: bool, above: tuple[str, ...]) -> tuple[pa.Field, Callable[[Any], Any]]:
    name, message = str(field.name), field.message_type
    if message is None:
        if field.enum_type is not None:
            numbers = {value.number: str(value.name) for value in field.enum_type.values}
            return pa.field(name, pa.string()), lambda number: numbers.get(number, str(number))
        return pa.field(name, _SCALARS[_type_word(field)]), _same
    full = str(message.full_name)
    if full == TIMESTAMP:
        return (pa.field(name, pa.string()), _instant) if is_column else (
            pa.field(name, pa.timestamp("us", "UTC")), _micros
        )  # fmt: skip
    if full in _WRAPPERS:
        return pa.field(name, _SCALARS[_type_word(message.fields_by_name["value"])]), lambda wrapped: wrapped.value
    if full in _AS_JSON:
        return marked(name, "JSON"), _json
    if full in _DECIMALS:
        return pa.field(name, pa.string()), _decimal
    if full in above:
        raise SchemaError(f"The type {full} holds itself, which no column can.", column=name)
    members = [cell_of(inner, is_column=False, above=(*above, full)) for inner in message.fields]
    if not members:
        return pa.field(name, pa.bool_()), lambda _: True  # an empty message: whether it is there
    kind = pa.struct([each.field for each in members])
    return pa.field(name, kind), lambda value: {each.field.name: each.value(value) for each in members}


def _type_word(field: Any) -> str:
    words = {getattr(field, f"TYPE_{word}"): word for word in _SCALARS}
    return words[field.type]


def _key(entry: tuple[Any, Any]) -> Any:
    """Maps have no order in Protobuf; in ours the keys stand in theirs, so that decoding again gives the same."""
    return entry[0]


def _same(value: Any) -> Any:
    return value


def _checked(value: Any) -> tuple[int, int]:
    seconds, nanos = int(value.seconds), int(value.nanos)
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND or not 0 <= nanos < 10**9:
        raise Unfit(f"{seconds} seconds and {nanos} nanoseconds are no Timestamp")
    return seconds, nanos


def _instant(value: Any) -> str:
    seconds, nanos = _checked(value)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()}{fraction}Z"


def _micros(value: Any) -> int:
    seconds, nanos = _checked(value)
    if nanos % 1000:
        raise Unfit("a Timestamp inside another value is finer than microseconds")
    return seconds * 10**6 + nanos // 1000


def _json(value: Any) -> str:
    from google.protobuf import json_format

    return json.dumps(json_format.MessageToDict(value), ensure_ascii=False)


def _decimal(value: Any) -> str:
    whole = Decimal(int.from_bytes(value.value, "big", signed=True))
    if abs(value.scale) > 1000:
        raise Unfit(f"a decimal has the scale {value.scale}")
    return f"{_exactly.scaleb(whole, -value.scale):f}"
