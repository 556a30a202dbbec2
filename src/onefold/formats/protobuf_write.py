"""Arrow columns as Protobuf messages, and fields that hold them exactly. See onefold.formats.protobuf_types.

TIMESTAMP of any kind becomes google.protobuf.Timestamp; DECIMAL, DATE, TIME, UUID and JSON become strings, which read
back exactly. A NULL list or map cannot be told from an empty one, so such rows are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from onefold.errors import RowsRefused, SchemaError
from onefold.formats.protobuf_types import TIMESTAMP, is_map, is_repeated
from onefold.formats.types import sql_type

__all__ = ["add_fields", "values_for"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_WORDS: dict[pa.DataType, str] = {
    pa.int8(): "INT32", pa.int16(): "INT32", pa.int32(): "INT32", pa.uint8(): "UINT32", pa.uint16(): "UINT32",
    pa.uint32(): "UINT32", pa.int64(): "INT64", pa.uint64(): "UINT64", pa.float32(): "FLOAT", pa.float64(): "DOUBLE",
    pa.bool_(): "BOOL", pa.string(): "STRING", pa.large_string(): "STRING", pa.binary(): "BYTES",
    pa.large_binary(): "BYTES", pa.date32(): "STRING", pa.time64("us"): "STRING",
}  # fmt: skip
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WIDENING = {
    "INT32": {"INT32", "SINT32", "SFIXED32", "INT64", "SINT64", "SFIXED64", "DOUBLE"},
    "UINT32": {"UINT32", "FIXED32", "UINT64", "FIXED64", "INT64", "SINT64", "SFIXED64", "DOUBLE"},
    "INT64": {"INT64", "SINT64", "SFIXED64"},
    "UINT64": {"UINT64", "FIXED64"},
    "FLOAT": {"FLOAT", "DOUBLE"},
}


def add_fields(message: Any, fields: list[pa.Field]) -> bool:
    """Fields that a message (a DescriptorProto) lacks, under numbers that were never used; whether there were any.

    Raises SchemaError for a column that has no Protobuf type.
    """
    known = {each.name: each for each in message.field}
    taken = [each.number for each in message.field] + [span.end - 1 for span in message.reserved_range]
    number, has_changed = max(taken, default=0), False
    for field in fields:
        if field.name in known:
            continue
        if not _NAME.fullmatch(field.name):
            raise SchemaError(
                f"Protobuf has no field of the name {field.name!r}.", column=field.name,
                expected="a letter, then letters, digits and _", next_step='Rename it in select("*", other="…").',
            )  # fmt: skip
        number += 1
        if 19_000 <= number < 20_000:  # reserved by Protobuf itself
            number = 20_000
        _add(message, field, number)
        has_changed = True
    return has_changed


def _add(message: Any, field: pa.Field, number: int) -> None:
    kind, types = field.type, pa.types
    added = message.field.add(name=field.name, number=number, label=1)
    if types.is_map(kind):
        entry = message.nested_type.add(name="".join(w.capitalize() for w in field.name.split("_")) + "Entry")
        entry.options.map_entry = True
        _typed(entry, entry.field.add(name="key", number=1, label=1), kind.key_field)
        _typed(entry, entry.field.add(name="value", number=2, label=1), kind.item_field)
        added.label, added.type, added.type_name = 3, 11, entry.name
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        added.label = 3
        _typed(message, added, kind.value_field)
    else:
        _typed(message, added, field)
        added.proto3_optional = True
        added.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{field.name}")


def _typed(message: Any, added: Any, field: pa.Field) -> None:
    kind, types = field.type, pa.types
    if types.is_timestamp(kind):
        added.type, added.type_name = 11, f".{TIMESTAMP}"
    elif types.is_struct(kind):
        nested = message.nested_type.add(name=f"{added.name}_type")
        add_fields(nested, [kind.field(place) for place in range(kind.num_fields)])
        added.type, added.type_name = 11, nested.name
    else:
        word = "STRING" if types.is_decimal(kind) else _WORDS.get(kind)
        if word is None:
            raise SchemaError(
                f"Protobuf has no type for {sql_type(field)} there.",
                column=field.name,
                next_step="Cast it in select(…).",
            )
        added.type = getattr(added, f"TYPE_{word}")


def values_for(descriptor: Any, schema: pa.Schema) -> Callable[[pa.Table], list[dict[str, Any]]]:
    """A function from rows to keyword arguments of the message. Raises SchemaError unless all columns have a place."""
    fields = dict(descriptor.fields_by_name.items())
    for column in schema:
        if column.name not in fields:
            raise SchemaError(f"The message {descriptor.full_name} has no field {column.name}.", column=column.name)
        _check(fields[column.name], column)
    lacking = [name for name, each in fields.items() if _is_required(each) and name not in schema.names]
    if lacking:
        raise SchemaError("The message has required fields that the rows lack.", found=", ".join(lacking))

    def convert(rows: pa.Table) -> list[dict[str, Any]]:
        columns = []
        for name in schema.names:
            array = rows.column(name).combine_chunks()
            if array.null_count and not fields[name].has_presence:
                raise RowsRefused(
                    f"{array.null_count} rows are NULL in a field that cannot say so.", column=name,
                    next_step="Fill it with coalesce(…) in select(…), or write a message with an optional field.",
                )  # fmt: skip
            columns.append(_values(array, fields[name]))
        names = schema.names
        rows_of = zip(*columns, strict=True)
        return [{k: v for k, v in zip(names, row, strict=True) if v is not None} for row in rows_of]

    return convert


def _is_required(field: Any) -> bool:
    known = getattr(field, "is_required", None)
    return bool(field.label == field.LABEL_REQUIRED) if known is None else bool(known)


def _check(target: Any, column: pa.Field) -> None:
    kind, types = column.type, pa.types
    if types.is_map(kind):
        holds = is_map(target)
        if holds:
            _check_single(target.message_type.fields_by_name["key"], kind.key_field)
            _check_single(target.message_type.fields_by_name["value"], kind.item_field)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        holds = is_repeated(target) and not is_map(target)
        if holds:
            _check_single(target, kind.value_field)
    else:
        holds = not is_repeated(target)
        if holds:
            _check_single(target, column)
    if not holds:
        raise _mismatch(target, column)


def _check_single(target: Any, column: pa.Field) -> None:
    kind, types = column.type, pa.types
    message = target.message_type
    if types.is_timestamp(kind):
        if message is None or message.full_name != TIMESTAMP:
            raise _mismatch(target, column)
    elif types.is_struct(kind):
        members = {kind.field(place).name: kind.field(place) for place in range(kind.num_fields)}
        if message is None or not set(members) <= set(message.fields_by_name):
            raise _mismatch(target, column)
        for name, member in members.items():
            _check(message.fields_by_name[name], member)
    else:
        word = "STRING" if types.is_decimal(kind) else _WORDS.get(kind, "")
        allowed = _WIDENING.get(word, {word})
        if message is not None or target.type not in {getattr(target, f"TYPE_{each}") for each in allowed if each}:
            raise _mismatch(target, column)


def _mismatch(target: Any, column: pa.Field) -> SchemaError:
    return SchemaError(
        f"The Protobuf field {target.name} does not hold every value of the column.", column=column.name,
        found=sql_type(column), next_step="Cast it in select(…).",
    )  # fmt: skip


def _values(array: pa.Array, field: Any) -> list[Any]:
    """Of one column, as the message's constructor takes them."""
    kind, types = array.type, pa.types
    if types.is_fixed_size_list(kind):
        array = array.cast(pa.list_(kind.value_field))
        kind = array.type
    if types.is_map(kind):
        _refuse_null_inside(array.items, field)
        value = field.message_type.fields_by_name["value"]
        keys, items = array.keys.to_pylist(), _singles(array.items, value)
        bounds = array.offsets.to_pylist()
        return [dict(zip(keys[a:b], items[a:b], strict=True)) for a, b in pairwise(bounds)]
    if types.is_list(kind) or types.is_large_list(kind):
        _refuse_null_inside(array.values, field)
        items, bounds = _singles(array.values, field), array.offsets.to_pylist()
        return [items[a:b] for a, b in pairwise(bounds)]
    return _singles(array, field)


def _singles(array: pa.Array, field: Any) -> list[Any]:
    kind, types = array.type, pa.types
    if types.is_timestamp(kind):
        ticks = _TICKS[kind.unit]
        return [None if tick is None else _instant(tick, ticks) for tick in array.cast(pa.int64()).to_pylist()]
    if types.is_struct(kind):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        inner = field.message_type.fields_by_name
        there = array.is_valid()
        for name, child in zip(names, array.flatten(), strict=True):
            if not inner[name].has_presence and pc.any(pc.and_(child.is_null(), there)).as_py():
                raise RowsRefused("A field inside a value is NULL and cannot say so.", column=f"{field.name}.{name}")
        present = array.filter(there)
        columns = [_values(child, inner[name]) for name, child in zip(names, present.flatten(), strict=True)]
        made = iter(zip(*columns, strict=True)) if columns else iter([()] * len(present))
        rows = [next(made) if is_there else None for is_there in there.to_pylist()]
        return [
            None if row is None else {k: v for k, v in zip(names, row, strict=True) if v is not None} for row in rows
        ]
    if types.is_decimal(kind):
        return [None if value is None else f"{value:f}" for value in array.to_pylist()]
    if types.is_date(kind) or types.is_time(kind):
        return [None if value is None else value.isoformat() for value in array.to_pylist()]
    plain: list[Any] = array.to_pylist()
    return plain


def _instant(tick: int, ticks: int) -> dict[str, int]:
    seconds, rest = divmod(tick, ticks)
    if not -62_135_596_800 <= seconds <= 253_402_300_799:
        raise RowsRefused("A time is outside the years 1 to 9999, which a Protobuf Timestamp ends at.")
    return {"seconds": seconds, "nanos": rest * (10**9 // ticks)}


def _refuse_null_inside(values: pa.Array, field: Any) -> None:
    if values.null_count:
        raise RowsRefused("Protobuf has no NULL inside a list or a map.", column=field.name)
