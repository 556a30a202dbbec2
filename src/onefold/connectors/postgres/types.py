"""Arrow types and PostgreSQL's: what a column is declared as, and which columns keep a value exactly.

Source: PostgreSQL's documentation, chapter Data Types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from onefold.errors import RowsRefused, SchemaError

__all__ = ["EXPLICIT", "declared_type", "from_postgres", "keeps_exactly", "quoted", "refuse_cut", "sendable"]

NAME_BYTES = 63
"""PostgreSQL cuts longer names off, so two could become one."""

_DECLARED: tuple[tuple[pa.DataType, str], ...] = (
    (pa.bool_(), "boolean"),
    (pa.int8(), "smallint"),
    (pa.int16(), "smallint"),
    (pa.uint8(), "smallint"),
    (pa.int32(), "integer"),
    (pa.uint16(), "integer"),
    (pa.int64(), "bigint"),
    (pa.uint32(), "bigint"),
    (pa.uint64(), "numeric(20,0)"),
    (pa.float32(), "real"),
    (pa.float64(), "double precision"),
    (pa.string(), "text"),
    (pa.large_string(), "text"),
    (pa.string_view(), "text"),
    (pa.binary(), "bytea"),
    (pa.large_binary(), "bytea"),
    (pa.date32(), "date"),
    (pa.timestamp("s"), "timestamp without time zone"),
    (pa.timestamp("ms"), "timestamp without time zone"),
    (pa.timestamp("us"), "timestamp without time zone"),
    (pa.time32("s"), "time without time zone"),
    (pa.time32("ms"), "time without time zone"),
    (pa.time64("us"), "time without time zone"),
)

_WIDER = {
    "smallint": ("integer", "bigint", "numeric"),
    "integer": ("bigint", "numeric"),
    "bigint": ("numeric",),
    "real": ("double precision",),
    "text": ("character varying", "json", "jsonb", "uuid", "xml", "citext"),
    "date": (),
    "timestamp without time zone": (),
    "timestamp with time zone": (),
}
"""What else keeps every value of a declared type, or refuses it; but none that changes one silently."""

EXPLICIT = ("json", "jsonb", "uuid", "xml")
"""Types that a text becomes only when it is told to. Not those with a length: such a cast would cut the text off."""

_SHORT_TEXT = re.compile(r"character varying\((\d+)\)")
_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")


def declared_type(column: pa.Field, label: str) -> str:
    """The type of a column that keeps the field's values exactly. Raises SchemaError for one without."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None and kind.unit != "ns":
        return "timestamp with time zone"
    if pa.types.is_decimal128(kind) and kind.scale >= 0:
        return f"numeric({max(kind.precision, 1)},{kind.scale})"
    if _is_list(kind) and not _is_list(kind.value_type):
        return declared_type(column.with_type(kind.value_type), label) + "[]"
    for arrow, declared in _DECLARED:
        if kind.equals(arrow):
            return declared
    raise _refusal(column, label)


def keeps_exactly(declared: str, found: str) -> bool:
    """Whether a column of type `found`, as format_type tells it, keeps every value of type `declared` or refuses it."""
    if found == declared:
        return True
    if declared.endswith("[]") or found.endswith("[]"):
        is_list = declared.endswith("[]") and found.endswith("[]") and not _SHORT_TEXT.search(found)
        return is_list and keeps_exactly(declared[:-2], found[:-2])
    wide, narrow = _NUMERIC.fullmatch(found), _NUMERIC.fullmatch(declared)
    if narrow is not None:
        if found == "numeric":
            return True
        return wide is not None and int(wide[2]) >= int(narrow[2])
    plain = _SHORT_TEXT.sub("character varying", found)
    if wide is not None:
        return declared in ("smallint", "integer", "bigint") and int(wide[2]) >= 0
    return plain in _WIDER.get(declared, ())


def quoted(name: str) -> str:
    """An identifier as PostgreSQL reads it back. Raises SchemaError for one that it cannot have."""
    if not name or "\0" in name or len(name.encode("utf8", "surrogatepass")) > NAME_BYTES:
        raise SchemaError(
            "PostgreSQL cannot have this name.", found=repr(name), expected=f"1 to {NAME_BYTES} bytes without NUL"
        )
    return '"' + name.replace('"', '""') + '"'


def refuse_cut(rows: pa.Table, differing: Mapping[str, str], label: str, sink: str) -> None:
    """Raise RowsRefused for a text that is longer than its column: PostgreSQL cuts one off that ends in spaces."""
    for name, kind in differing.items():
        short = _SHORT_TEXT.fullmatch(kind)
        if short is None:
            continue
        is_long = pc.greater(pc.utf8_length(rows.column(name)), int(short[1]))
        if pc.any(is_long).as_py():
            text = rows.column(name).filter(is_long)[0].as_py()
            raise RowsRefused(f"{label} refuses rows.", found=f"{name} = {text!r}", expected=kind, sink=sink)


def sendable(rows: pa.Table) -> pa.Table:
    """The rows in the types that binary COPY is encoded from: microseconds for all times, plain lists."""
    fields = [field.with_type(_sent(field.type)) for field in rows.schema]
    return rows.cast(pa.schema(fields))


def from_postgres(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A column that the client has read."""
    if pa.types.is_integer(kind):
        values = [None if value is None else int(value) for value in values]
    return pa.array(values, kind)


def _sent(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time(kind):
        return pa.time64("us")
    if _is_list(kind):
        return pa.list_(_sent(kind.value_type))
    return kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _refusal(column: pa.Field, label: str) -> SchemaError:
    return SchemaError(
        f"{label} cannot keep column {column.name} exactly.",
        found=str(column.type),
        expected="a type that PostgreSQL stores without loss",
        next_step="Cast it in select(…), for instance to BIGINT or VARCHAR.",
        column=column.name,
    )
