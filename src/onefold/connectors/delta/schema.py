"""Arrow types as Delta Lake keeps them, and whether a table takes the rows of a flow."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from onefold.connectors.spooling import stored_schema
from onefold.errors import NotSupported, SchemaError, SinkRefused
from onefold.types import Binding

__all__ = [
    "check_table",
    "kept_schema",
    "refuse_key",
    "refuse_other_partitions",
    "refuse_partitions",
    "required_columns",
]

_EXACT: Sequence[tuple[Callable[[Any], bool], pa.DataType]] = (
    (pa.types.is_uint8, pa.int16()),
    (pa.types.is_uint16, pa.int32()),
    (pa.types.is_uint32, pa.int64()),
    (pa.types.is_float16, pa.float32()),
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_string_view, pa.string()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_binary_view, pa.binary()),
    (pa.types.is_fixed_size_binary, pa.binary()),
)

_AS_THEY_ARE: Sequence[Callable[[Any], bool]] = (
    pa.types.is_boolean,
    pa.types.is_signed_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_string,
    pa.types.is_binary,
    pa.types.is_date32,
)

_MOST_DIGITS = 38
_KEYS = ("boolean", "byte", "short", "integer", "long", "string", "binary", "date", "timestamp", "timestamp_ntz")
_PARTITIONS = ("boolean", "byte", "short", "integer", "long", "string", "date")


def kept_schema(binding: Binding, label: str) -> pa.Schema:
    """The columns as the table's files hold them. Raises SchemaError for a type that would lose something."""
    return pa.schema([pa.field(field.name, _kept(field, field.type, label)) for field in stored_schema(binding)])


def _kept(field: pa.Field, kind: pa.DataType, label: str) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _kept(field, kind.value_type, label)
    if any(is_it(kind) for is_it in _AS_THEY_ARE):
        return kind
    if pa.types.is_decimal(kind) and kind.precision <= _MOST_DIGITS and 0 <= kind.scale <= kind.precision:
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_timestamp(kind) and kind.unit != "ns":
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(part.name, _kept(field, part.type, label)) for part in kind])
    if pa.types.is_map(kind):
        return pa.map_(_kept(field, kind.key_type, label), _kept(field, kind.item_type, label))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(pa.field("element", _kept(field, kind.value_type, label)))
    for is_it, kept in _EXACT:
        if is_it(kind):
            return kept
    raise SchemaError(
        f"Column {field.name} of {label} has a type that Delta Lake cannot keep exactly.",
        found=str(kind),
        expected="numbers up to 64 bits signed, DECIMAL up to 38 digits, texts, bytes, DATE, TIMESTAMP to the "
        "microsecond, or lists, maps and structs of these",
        next_step="Cast it in the flow's select.",
        column=field.name,
    )


def refuse_key(binding: Binding, kept: pa.Schema, label: str) -> None:
    """Raise SchemaError for a key that cannot be compared as everyone expects: NaN and -0.0, or something nested."""
    declared = delta_types(kept)
    for name in binding.key:
        kind = declared[name]
        if not (isinstance(kind, str) and (kind in _KEYS or kind.startswith("decimal"))):
            raise SchemaError(
                f"Column {name} of {label} cannot be a key.",
                found=str(kept.field(name).type),
                expected="whole or decimal numbers, texts, bytes, dates, timestamps",
                next_step="Cast it in the flow's select.",
                column=name,
                sink=binding.sink,
            )


def refuse_partitions(partitions: Sequence[str], kept: pa.Schema, label: str) -> None:
    """Raise SchemaError for partition columns that are not there, or whose values a path cannot say exactly."""
    declared = delta_types(kept)
    for name in partitions:
        if declared.get(name) not in _PARTITIONS:
            raise SchemaError(
                f"{label} cannot be partitioned by {name}.",
                found=str(kept.field(name).type) if name in kept.names else "no such column",
                expected="a column of whole numbers, texts, dates or booleans",
                next_step='Partition by another column, such as day="CAST(paid_at AS DATE)" of a select.',
                column=name,
            )


def delta_types(schema: pa.Schema) -> dict[str, Any]:
    """By column, the type in the words of Delta Lake."""
    from deltalake import Schema

    return types_of(Schema.from_arrow(schema))


def types_of(schema: Any) -> dict[str, Any]:
    """The same of a deltalake.Schema. Strings, or JSON objects for what is nested."""
    return {field["name"]: _bare(field["type"]) for field in json.loads(schema.to_json())["fields"]}


def _bare(kind: Any) -> Any:
    """Without comments and other metadata."""
    if isinstance(kind, dict):
        return {name: _bare(value) for name, value in kind.items() if name != "metadata"}
    return [_bare(one) for one in kind] if isinstance(kind, list) else kind


def check_table(table: Any, kept: pa.Schema, binding: Binding, label: str, *, evolves: bool) -> list[str]:
    """The columns that the table lacks, when it may get them. Raises SchemaError, SinkRefused, NotSupported."""
    _refuse_unwritable(table, binding, label)
    found, wanted = types_of(table.schema()), delta_types(kept)
    by_case = {name.lower(): name for name in found}
    missing = []
    for name, kind in wanted.items():
        if name not in found and by_case.get(name.lower()) is None and evolves:
            missing.append(name)
        elif found.get(name) != kind:
            raise SchemaError(
                f"Column {name} of {label} is not what the flow writes.",
                found=_words(found[name]) if name in found else "no such column",
                expected=_words(kind),
                next_step="Change the flow's select, or alter the table."
                if name in found or not found
                else "Say evolve=True to have it added, or change the flow's select.",
                sink=binding.sink,
                column=name,
            )
    fields = {field["name"]: field for field in json.loads(table.schema().to_json())["fields"]}
    for name in found.keys() - wanted.keys():
        if not fields[name]["nullable"]:
            raise SchemaError(
                f"Column {name} of {label} must have a value, and the flow does not write it.",
                found="no such column in the flow",
                expected=_words(found[name]),
                next_step="Add it to the flow's select, or let the column be NULL.",
                sink=binding.sink,
                column=name,
            )
    return missing


def required_columns(table: Any, kept: pa.Schema) -> list[str]:
    """The columns of ours that may not be NULL in the table."""
    fields = json.loads(table.schema().to_json())["fields"]
    return [field["name"] for field in fields if not field["nullable"] and field["name"] in kept.names]


def _refuse_unwritable(table: Any, binding: Binding, label: str) -> None:
    """What a commit of finished files would get past unchecked, or what the library does not write rightly."""
    settings = table.metadata().configuration
    why = ""
    if settings.get("delta.columnMapping.mode", "none") != "none":
        why = "its columns are mapped (delta.columnMapping.mode)"
    elif "delta.setTransactionRetentionDuration" in settings:
        why = "it forgets tokens after a while (delta.setTransactionRetentionDuration)"
    elif binding.mode == "upsert" and settings.get("delta.appendOnly", "false").lower() == "true":
        why = "it takes appended rows only (delta.appendOnly)"
    elif any(name.startswith("delta.constraints.") for name in settings):
        why = "it has constraints, which are not checked for rows that come as finished files (delta.constraints)"
    for field in json.loads(table.schema().to_json())["fields"]:
        special = [name for name in field["metadata"] if name.startswith(("delta.generat", "delta.identity"))]
        special += [name for name in field["metadata"] if name == "delta.invariants"]
        if special and not why:
            why = f"column {field['name']} is computed or checked by the table ({special[0]})"
    if why:
        raise SinkRefused(
            f"{label} cannot be written: {why}.",
            next_step="Drop that from the table, or write to another table.",
            sink=binding.sink,
        )


def refuse_other_partitions(table: Any, wanted: Sequence[str], label: str) -> None:
    """Raise NotSupported when the table is there and is partitioned otherwise than the flow says."""
    found = list(table.metadata().partition_columns)
    if wanted and found != list(wanted):
        raise NotSupported(
            f"{label} is partitioned otherwise.",
            found=", ".join(found) or "not at all",
            expected=", ".join(wanted),
            next_step="Say the same as the table, or nothing.",
        )


def _words(kind: Any) -> str:
    return kind if isinstance(kind, str) else json.dumps(kind)
