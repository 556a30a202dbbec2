"""Columns and types that the verbs ask for: does it exist, may it be a key, are two schemas the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from onefold.errors import SchemaError
from onefold.flow.expressions import nearest
from onefold.flow.syntax import quoted
from onefold.plan import OP_COLUMN

__all__ = [
    "check_op", "check_same", "existing", "is_event_time", "is_list", "key_columns", "quoted", "schema_of", "to_schema",
]  # fmt: skip


def to_schema(declared: object) -> pa.Schema:
    """A schema from a dict of SQL types, a pyarrow.Schema or an annotated dataclass. Raises SchemaError.

    The change column may stand in a dict or a pyarrow.Schema, though its name is reserved otherwise.
    """
    from onefold.formats.schema import to_schema as declared_schema

    if isinstance(declared, Mapping) and OP_COLUMN in declared:
        rest = {name: kind for name, kind in declared.items() if name != OP_COLUMN}
        op = declared_schema({"op": declared[OP_COLUMN]}).field(0).with_name(OP_COLUMN)
        schema: pa.Schema = declared_schema(rest).insert(list(declared).index(OP_COLUMN), op)
    elif isinstance(declared, pa.Schema) and OP_COLUMN in declared.names:
        place = declared.get_field_index(OP_COLUMN)
        schema = declared_schema(declared.remove(place)).insert(place, declared.field(place))
    else:
        schema = declared_schema(declared)
    return schema_of(list(schema), "schema")


def schema_of(fields: Sequence[pa.Field], where: str) -> pa.Schema:
    """A schema of these fields. Raises SchemaError when it is empty or two have one name in SQL."""
    seen: dict[str, str] = {}
    for field in fields:
        folded = field.name.casefold()
        if folded in seen:
            raise SchemaError(
                f"Two columns of {where} have one name; SQL does not tell upper from lower case.",
                found=f"{seen[folded]} and {field.name}",
                next_step='Name one of them differently, or leave it out: select("* EXCLUDE (a)", a="…").',
            )
        seen[folded] = field.name
    if not fields:
        raise SchemaError(f"{where} has no columns.")
    return pa.schema(fields)


def existing(name: str, schema: pa.Schema, place: str) -> str:
    """The column of that name. Raises SchemaError with the nearest names."""
    if isinstance(name, str) and name in schema.names:
        return name
    raise SchemaError(f"There is no column {name!r}.", next_step=nearest(str(name), schema.names), place=place)


def key_columns(key: str | Iterable[str], schema: pa.Schema, place: str) -> tuple[str, ...]:
    """The columns of a key: existing, different, and of scalar types. Raises SchemaError."""
    names = (key,) if isinstance(key, str) else tuple(key)
    if not names:
        raise SchemaError("A key needs at least one column.", place=place)
    for name in names:
        kind = schema.field(existing(name, schema, place)).type
        if pa.types.is_nested(kind):
            raise SchemaError(
                f"The column {name} cannot be a key: {kind} is no single value.",
                next_step='Compute a single value first, for instance with select("*", k="to_json(…)::VARCHAR").',
                place=place,
            )
    if len(set(names)) < len(names):
        raise SchemaError("A column stands twice in a key.", found=", ".join(names), place=place)
    return names


def check_op(schema: pa.Schema) -> None:
    """The change column must be text. Raises SchemaError."""
    if OP_COLUMN in schema.names and not pa.types.is_string(schema.field(OP_COLUMN).type):
        raise SchemaError(
            f"{OP_COLUMN} marks a change stream and must be VARCHAR.",
            found=str(schema.field(OP_COLUMN).type),
            expected='VARCHAR with "upsert" or "delete"',
        )


def check_same(expected: pa.Schema, found: pa.Schema) -> None:
    """Two schemas have the same columns and types, in any order. Raises SchemaError with the differences."""
    differences = [
        f"{name} is {_type(found, name)}, not {_type(expected, name)}"
        for name in dict.fromkeys([*expected.names, *found.names])
        if _type(found, name) != _type(expected, name)
    ]
    if differences:
        raise SchemaError(
            "The streams of a union have different columns.",
            found="; ".join(differences),
            next_step="Bring them to one form with select(…) before the union.",
        )


def is_event_time(kind: pa.DataType) -> bool:
    """Whether values of the type are moments: TIMESTAMP, TIMESTAMPTZ or DATE."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether values of the type are lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _type(schema: pa.Schema, name: str) -> Any:
    return schema.field(name).type if name in schema.names else "missing"
