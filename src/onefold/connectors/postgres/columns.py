"""Columns of PostgreSQL as they are read: by COPY in CSV, decoded by Arrow, with nothing rounded on the way.

What CSV and Arrow carry exactly comes typed: truth values, integers, floating point, text, bytes. The others travel as
the server's text, and the flow's schema judges each value: numeric (which may be NaN, or without a precision), dates
and times (which may be infinite, or before Christ) fit it exactly or are dead letters. Arrays and composite values
travel as JSON. Times with a zone travel in UTC.
Source: PostgreSQL's documentation, chapters Data Types and COPY.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import csv

from onefold.connectors.postgres.types import quoted
from onefold.errors import SchemaError
from onefold.formats.types import marked

__all__ = ["Column", "columns_of", "decoded", "inferred"]

_LARGEST_BLOCK = 2**31 - 1
_MOST_DIGITS = 38

_TYPED: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "oid": pa.uint32(),
    "xid8": pa.uint64(),
    "bytea": pa.binary(),
}
_OF_TEXT: dict[str, pa.DataType] = {
    "text": pa.string(),
    "name": pa.string(),
    "citext": pa.string(),
    "xml": pa.string(),
    "interval": pa.string(),
    "inet": pa.string(),
    "cidr": pa.string(),
    "macaddr": pa.string(),
    "date": pa.date32(),
    "time without time zone": pa.time64("us"),
    "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
}
_MARKED = {"uuid": "UUID", "json": "JSON", "jsonb": "JSON"}
_WITH_LENGTH = re.compile(r"(character varying|character|bit varying|bit)(\(\d+\))?")
_WITH_DIGITS = re.compile(r"(time|timestamp|interval)\(\d\)")
_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")

_COLUMNS = """
    WITH RECURSIVE base AS (
        SELECT attnum, attname, atttypid AS kind, atttypmod AS modifier, format_type(atttypid, atttypmod) AS declared
        FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT attnum, attname, typbasetype, typtypmod, declared FROM base JOIN pg_type ON oid = kind
        WHERE typtype = 'd'
    )
    SELECT attname::text, declared, format_type(kind, modifier), typtype::text, typcategory = 'A'
    FROM base JOIN pg_type ON oid = kind WHERE typtype <> 'd' ORDER BY attnum
"""
"""A domain counts as the type that it is made of."""


@dataclass(frozen=True)
class Column:
    """A column, and how it travels.

    declared: its type, as the server writes it. sql: what is selected. travels: the type that Arrow decodes it to.
    field: what it is when the flow declares nothing; None: the flow has to.
    """

    name: str
    declared: str
    sql: str
    travels: pa.DataType
    field: pa.Field | None


def columns_of(connection: Any, table: str) -> dict[str, Column]:
    """The columns of a table in order. table: quoted. Raises the client's errors."""
    rows = connection.execute(_COLUMNS, [table]).fetchall()
    return {row[0]: _column(*row) for row in rows}


def inferred(columns: Sequence[Column], label: str) -> pa.Schema:
    """What the columns are when the flow declares nothing. Raises SchemaError for one that has no exact type."""
    fields = []
    for column in columns:
        if column.field is None:
            raise SchemaError(
                f"Column {column.name} of {label} has a type that no type of onefold keeps by itself.",
                found=column.declared,
                expected="a type such as bigint, numeric(18,2), text, timestamptz",
                next_step="Declare the columns that you read in schema=…, this one as DECIMAL(p,s) or VARCHAR.",
                column=column.name,
            )
        fields.append(column.field)
    return pa.schema(fields)


def decoded(text: bytes, kinds: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Rows of COPY … (FORMAT csv) as a batch. kinds: the columns in order. Raises pyarrow.ArrowInvalid."""
    sent = {name: pa.string() if pa.types.is_binary(kind) else kind for name, kind in kinds.items()}
    names = [str(place) for place in range(len(kinds))]
    table = csv.read_csv(
        pa.BufferReader(text),
        read_options=csv.ReadOptions(
            column_names=names, block_size=min(len(text) + 1, _LARGEST_BLOCK), use_threads=False
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types=dict(zip(names, sent.values(), strict=True)),
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    ).combine_chunks()
    arrays = [_unpacked(column.combine_chunks(), kind) for column, kind in zip(table, kinds.values(), strict=True)]
    return pa.RecordBatch.from_arrays(arrays, list(kinds))


def _unpacked(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_binary(kind):
        return column
    return pa.array([None if value is None else bytes.fromhex(value) for value in column.to_pylist()], kind)


def _column(name: str, declared: str, base: str, sort: str, is_array: bool) -> Column:
    quoted_name = quoted(name)
    plain = _WITH_DIGITS.sub(r"\1", base)
    typed, of_text = _TYPED.get(plain), _OF_TEXT.get(plain)
    if plain == "bytea":
        return Column(name, declared, f"encode({quoted_name}, 'hex')", pa.binary(), pa.field(name, pa.binary()))
    if typed is not None:
        return Column(name, declared, quoted_name, typed, pa.field(name, typed))
    if plain == "timestamp with time zone":
        return Column(name, declared, f"{quoted_name} AT TIME ZONE 'UTC'", pa.string(), pa.field(name, of_text))
    if is_array or sort == "c":
        return Column(name, declared, f"to_json({quoted_name})", pa.string(), _list(name, base) if is_array else None)
    if of_text is None and (sort == "e" or _WITH_LENGTH.fullmatch(plain)):
        of_text = pa.string()
    field = marked(name, _MARKED[plain]) if plain in _MARKED else _decimal(name, base) or _plain(name, of_text)
    return Column(name, declared, quoted_name, pa.string(), field)


def _plain(name: str, kind: pa.DataType | None) -> pa.Field | None:
    return None if kind is None else pa.field(name, kind)


def _decimal(name: str, base: str) -> pa.Field | None:
    match = _NUMERIC.fullmatch(base)
    if match is None or not 0 <= int(match[2]) <= int(match[1]) <= _MOST_DIGITS:
        return None
    return pa.field(name, pa.decimal128(int(match[1]), int(match[2])))


def _list(name: str, base: str) -> pa.Field | None:
    """Of members that JSON carries exactly; not bytes, which it has in hexadecimal digits."""
    member = _WITH_DIGITS.sub(r"\1", base.removesuffix("[]"))
    kind = _OF_TEXT.get(member) or _TYPED.get(member)
    if kind is None and _WITH_LENGTH.fullmatch(member):
        kind = pa.string()
    if kind is None:
        found = _decimal(name, member)
        kind = None if found is None else found.type
    return None if kind is None or pa.types.is_binary(kind) else pa.field(name, pa.list_(kind))
