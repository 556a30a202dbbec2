"""Arrow types and MySQL's: what a column is declared as, and which columns keep a value exactly.

Source: MySQL's and MariaDB's reference manuals, chapters Data Types and Schema Object Names.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from onefold.errors import SchemaError

__all__ = ["KEY_CHARACTERS", "declared_type", "from_mysql", "keeps_exactly", "key_characters", "quoted"]

NAME_CHARACTERS = 64

KEY_BYTES = 3072
"""What the columns of an InnoDB index may have together."""

KEY_CHARACTERS = 255
"""Of a text or binary column of a key that we declare, unless so many do not fit."""

_CHARACTER_BYTES = 4
_OTHER_KEY_BYTES = 20
"""What a column of a key that is no text takes at most."""

MOST_DIGITS, MOST_SCALE = 65, 30

_DECLARED: tuple[tuple[pa.DataType, str], ...] = (
    (pa.bool_(), "tinyint(1)"),
    (pa.int8(), "tinyint"),
    (pa.int16(), "smallint"),
    (pa.int32(), "int"),
    (pa.int64(), "bigint"),
    (pa.uint8(), "tinyint unsigned"),
    (pa.uint16(), "smallint unsigned"),
    (pa.uint32(), "int unsigned"),
    (pa.uint64(), "bigint unsigned"),
    (pa.float32(), "float"),
    (pa.float64(), "double"),
    (pa.date32(), "date"),
)

_INTEGER = re.compile(r"(tinyint|smallint|mediumint|int|bigint)(?:\(\d+\))?( unsigned)?")
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")
_TEMPORAL = re.compile(r"(datetime|timestamp|time)(?:\((\d)\))?")
_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_DIGITS_OF_SECONDS = {"s": 0, "ms": 3, "us": 6}

_MIDNIGHT = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_TEXTS = re.compile(r"varchar\(\d+\)|tinytext|text|mediumtext|longtext|json")
_BYTES = re.compile(r"varbinary\(\d+\)|tinyblob|blob|mediumblob|longblob")


def declared_type(column: pa.Field, label: str, *, key_characters: int = 0) -> str:
    """The type of a column that keeps the field's values exactly. Raises SchemaError for one without.

    key_characters: how long a text of a key may be; 0: the column is no part of a key.
    """
    kind = column.type
    for arrow, declared in _DECLARED:
        if kind.equals(arrow):
            return declared
    if pa.types.is_timestamp(kind) and kind.unit in _DIGITS_OF_SECONDS:
        return "datetime(6)"
    if pa.types.is_time(kind) and kind.unit in _DIGITS_OF_SECONDS:
        return "time(6)"
    if pa.types.is_decimal128(kind) and 0 <= kind.scale <= MOST_SCALE:
        return f"decimal({max(kind.precision, 1)},{kind.scale})"
    if _is_text(kind):
        return f"varchar({key_characters})" if key_characters else "longtext"
    if _is_bytes(kind):
        return f"varbinary({key_characters})" if key_characters else "longblob"
    raise SchemaError(
        f"{label} cannot keep column {column.name} exactly.",
        found=str(kind),
        expected="a type that MySQL stores without loss",
        next_step="Cast it in select(…), for instance to BIGINT or VARCHAR.",
        column=column.name,
    )


def key_characters(key: Sequence[pa.Field]) -> int:
    """How long each text of a key may be, so that an index holds all its columns."""
    texts = sum(_is_text(field.type) or _is_bytes(field.type) for field in key)
    room = (KEY_BYTES - (len(key) - texts) * _OTHER_KEY_BYTES) // _CHARACTER_BYTES
    return max(1, min(KEY_CHARACTERS, room // max(1, texts)))


def keeps_exactly(kind: pa.DataType, found: str) -> bool:
    """Whether a column of type `found`, as COLUMN_TYPE tells it, keeps every value of an Arrow type or refuses it."""
    if _is_text(kind):
        return _TEXTS.fullmatch(found) is not None
    if _is_bytes(kind):
        return _BYTES.fullmatch(found) is not None
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return _keeps_integer(kind, found)
    if pa.types.is_floating(kind):
        return found == "double" or (found == "float" and kind.equals(pa.float32()))
    if pa.types.is_decimal(kind):
        wide = _DECIMAL.fullmatch(found)
        return wide is not None and int(wide[2]) >= int(kind.scale)
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return _keeps_time(kind, found)
    return bool(pa.types.is_date(kind)) and found == "date"


def quoted(name: str) -> str:
    """An identifier as MySQL reads it back. Raises SchemaError for one that it cannot have."""
    is_possible = 0 < len(name) <= NAME_CHARACTERS and name == name.rstrip(" ")
    if not is_possible or any(not "\0" < sign <= "\uffff" or "\ud800" <= sign <= "\udfff" for sign in name):
        raise SchemaError(
            "MySQL cannot have this name.",
            found=repr(name),
            expected=f"1 to {NAME_CHARACTERS} characters up to U+FFFF, without NUL, without spaces at the end",
        )
    return "`" + name.replace("`", "``") + "`"


def from_mysql(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A column that the client has read."""
    if pa.types.is_boolean(kind):
        values = [None if value is None else bool(value) for value in values]
    elif pa.types.is_time(kind):
        values = [None if value is None else (_MIDNIGHT + value).time() for value in values]
    elif pa.types.is_timestamp(kind) and kind.tz is not None:
        values = [None if value is None else value.replace(tzinfo=dt.UTC) for value in values]
    elif pa.types.is_decimal(kind):
        values = [None if value is None else Decimal(value) for value in values]
    elif pa.types.is_integer(kind):
        values = [None if value is None else int(value) for value in values]
    return pa.array(values, kind)


def _keeps_integer(kind: pa.DataType, found: str) -> bool:
    if _DECIMAL.fullmatch(found):
        return True
    wide = _INTEGER.fullmatch(found)
    if wide is None:
        return False
    bits, is_signed = _BITS[wide[1]], wide[2] is None
    if pa.types.is_boolean(kind):
        return True
    if pa.types.is_unsigned_integer(kind):
        return bits - is_signed >= int(kind.bit_width)
    return is_signed and bits >= int(kind.bit_width)


def _keeps_time(kind: pa.DataType, found: str) -> bool:
    """A TIMESTAMP is a moment, and read in the time zone of who reads it: not for a time without a zone."""
    there = _TEMPORAL.fullmatch(found)
    if there is None or kind.unit not in _DIGITS_OF_SECONDS:
        return False
    if pa.types.is_time(kind):
        wanted: tuple[str, ...] = ("time",)
    else:
        wanted = ("datetime", "timestamp") if kind.tz is not None else ("datetime",)
    return there[1] in wanted and int(there[2] or 0) >= _DIGITS_OF_SECONDS[kind.unit]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
