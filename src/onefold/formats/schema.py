"""What the user declares as a schema, as a pyarrow.Schema: a dict of SQL types, a schema, or an annotated dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import duckdb
import pyarrow as pa

from onefold.errors import SchemaError
from onefold.formats.duck import connection
from onefold.formats.types import MARK, marked, sql_type, sql_types

__all__ = ["sql_types", "to_schema"]


def to_schema(spec: object) -> pa.Schema:
    """The Arrow schema of a declaration.

    Args:
        spec: {"name": "SQL type", …} in DuckDB's dialect (DECIMAL(18,2), STRUCT(a INT, b VARCHAR[]), JSON, …);
            or a pyarrow.Schema; or a dataclass whose annotations are int (BIGINT), float (DOUBLE), str, bool, bytes,
            date, time, datetime (TIMESTAMP), UUID, list[…], another dataclass, any of these with | None, and
            Annotated[…, "SQL type"], which Decimal needs: Annotated[Decimal, "DECIMAL(18,2)"].

    Raises SchemaError: an unknown type, with the nearest ones; two equal names; a name that starts with "_".
    """
    if isinstance(spec, pa.Schema):
        fields = [_checked(field) for field in spec]
    elif isinstance(spec, type) and dataclasses.is_dataclass(spec):
        fields = _dataclass_fields(spec)
    elif isinstance(spec, Mapping):
        fields = [_sql_field(name, text) for name, text in spec.items()]
    else:
        raise SchemaError(
            "This is no schema.",
            found=type(spec).__name__,
            expected="a dict of SQL types, a pyarrow.Schema, or a dataclass",
        )
    _check_names([field.name for field in fields])
    return pa.schema(fields)


def _check_names(names: list[str]) -> None:
    if not names:
        raise SchemaError("A schema needs at least one column.")
    seen: dict[str, str] = {}
    for name in names:
        if not name or name.startswith("_"):
            raise SchemaError(
                f"The column name {name!r} is reserved.",
                column=name,
                next_step='Choose a name that is not empty and does not start with "_": those are onefold\'s own.',
            )
        if name.casefold() in seen:
            raise SchemaError(
                "Two columns have one name; SQL does not tell upper from lower case.",
                found=f"{seen[name.casefold()]} and {name}",
            )
        seen[name.casefold()] = name


def _checked(field: pa.Field) -> pa.Field:
    sql_type(field)
    return field.remove_metadata().with_metadata(
        {MARK: field.metadata[MARK]} if field.metadata and MARK in field.metadata else None
    )


def _sql_field(name: object, text: object) -> pa.Field:
    if not isinstance(name, str) or not isinstance(text, str):
        raise SchemaError(
            "A schema maps names to SQL types, both strings.",
            found=f"{name!r}: {text!r}",
            expected='such as {"id": "BIGINT"}',
        )
    try:
        kind = connection().sqltype(text)
    except duckdb.Error as error:
        raise SchemaError(
            f"Column {name!r}: {text!r} is no SQL type.",
            column=name, found=text, next_step=_nearest_types(text, str(error)),
        ) from None  # fmt: skip
    return _field(name, kind, text)


_SIMPLE: dict[str, pa.DataType] = {
    "boolean": pa.bool_(), "tinyint": pa.int8(), "smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64(),
    "utinyint": pa.uint8(), "usmallint": pa.uint16(), "uinteger": pa.uint32(), "ubigint": pa.uint64(),
    "hugeint": pa.decimal128(38, 0), "float": pa.float32(), "double": pa.float64(), "varchar": pa.string(),
    "blob": pa.binary(), "date": pa.date32(), "time": pa.time64("us"), "timestamp": pa.timestamp("us"),
    "timestamp_s": pa.timestamp("s"), "timestamp_ms": pa.timestamp("ms"), "timestamp_ns": pa.timestamp("ns"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
}  # fmt: skip


def _field(name: str, kind: Any, text: str) -> pa.Field:
    """The Arrow field of a DuckDB type. HUGEINT is DECIMAL(38,0), the largest integer that Arrow has."""
    if str(kind) in ("JSON", "UUID"):
        return marked(name, str(kind))
    if kind.id in _SIMPLE:
        return pa.field(name, _SIMPLE[kind.id])
    if kind.id == "decimal":
        parts = dict(kind.children)
        return pa.field(name, pa.decimal128(parts["precision"], parts["scale"]))
    if kind.id == "list":
        return pa.field(name, pa.list_(_field("item", kind.children[0][1], text)))
    if kind.id == "array":
        parts = dict(kind.children)
        return pa.field(name, pa.list_(_field("item", parts["child"], text), parts["size"]))
    if kind.id == "struct":
        return pa.field(name, pa.struct([_field(child, inner, text) for child, inner in kind.children]))
    if kind.id == "map":
        parts = dict(kind.children)
        key = _field("key", parts["key"], text).with_nullable(False)
        return pa.field(name, pa.map_(key, _field("value", parts["value"], text)))
    raise SchemaError(
        f"Column {name!r}: onefold cannot carry {kind} exactly.",
        column=name,
        found=text,
        next_step="Declare it as VARCHAR and cast it in an expression.",
    )


def _nearest_types(text: str, complaint: str) -> str:
    names = sorted({str(row[0]).upper() for row in connection().sql("SELECT type_name FROM duckdb_types()").fetchall()})
    near: list[str] = []
    for word in re.findall(r"[A-Za-z_][A-Za-z_0-9]*", text):
        if word.upper() not in names:
            near += [name for name in difflib.get_close_matches(word.upper(), names, n=3) if name not in near]
    advice = f"Did you mean {' or '.join(near[:3])}? " if near else ""
    return f"{advice}DuckDB says: {complaint.splitlines()[0]}"


_PYTHON_TYPES: dict[object, pa.DataType] = {
    int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_(), bytes: pa.binary(),
    date: pa.date32(), time: pa.time64("us"), datetime: pa.timestamp("us"),
}  # fmt: skip


def _dataclass_fields(spec: type) -> list[pa.Field]:
    try:
        hints = typing.get_type_hints(spec, include_extras=True)
    except NameError as error:
        raise SchemaError(f"An annotation of {spec.__name__} cannot be read: {error}.") from None
    return [_python_field(member.name, hints[member.name]) for member in dataclasses.fields(spec)]


def _python_field(name: str, hint: Any) -> pa.Field:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        texts = [extra for extra in arguments[1:] if isinstance(extra, str)]
        return _sql_field(name, texts[0]) if texts else _python_field(name, arguments[0])
    if origin in (typing.Union, types.UnionType):
        others = [argument for argument in arguments if argument is not type(None)]
        if len(others) == 1:
            return _python_field(name, others[0])
    if origin is list and arguments:
        return pa.field(name, pa.list_(_python_field("item", arguments[0])))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return pa.field(name, pa.struct(_dataclass_fields(hint)))
    if hint is UUID:
        return marked(name, "UUID")
    if hint in _PYTHON_TYPES:
        return pa.field(name, _PYTHON_TYPES[hint])
    if hint is Decimal:
        raise SchemaError(
            f"Column {name!r}: a Decimal needs its precision and scale.",
            column=name,
            next_step=f'Write {name}: Annotated[Decimal, "DECIMAL(18,2)"].',
        )
    raise SchemaError(
        f"Column {name!r}: the annotation {hint!r} stands for no SQL type.",
        column=name,
        expected="int, float, str, bool, bytes, date, time, datetime, UUID, list[…], a dataclass, "
        'or Annotated[…, "SQL type"]',
    )
