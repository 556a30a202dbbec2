"""JSON with a schema registry: decoded as onefold.formats.json does, and validated by the jsonschema library.

Sources: JSON Schema draft-07, Core and Validation; Confluent, "JSON Schema Serializer and Deserializer".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from onefold.errors import ExtraMissing, RowsRefused, SchemaError
from onefold.formats.framed import Framed, Reader
from onefold.formats.framing import Group
from onefold.formats.json import JsonLines
from onefold.formats.registry import Registry, Subject, WriterSchema
from onefold.formats.rows import Part, Refusals
from onefold.formats.types import is_json, is_uuid, marked, sql_type
from onefold.formats.write import json_values
from onefold.protocols import Encoder

__all__ = ["JsonSchema", "json_schema"]


def json_schema(
    registry: Registry | str,
    *,
    subject: str | None = None,
    schema: str | None = None,
    register: bool = True,
    validate: bool = True,
) -> JsonSchema:
    """JSON messages with a schema registry.

    Args:
        registry: of.schema_registry(…), or its address.
        subject: where the schema of the values is kept; None: TOPIC-value.
        schema: the JSON Schema to write; None: made from the columns.
        register: whether we register what we write. If not, the newest schema of the subject is written.
        validate: a message that its own schema does not allow is a dead letter. Costs much of the speed.
    """
    made = JsonSchema(registry, subject=subject, schema=schema, register=register)
    made.validates = validate
    return made


class JsonSchema(Framed):
    """What `of.json_schema(…)` gives."""

    kind = "JSON"
    word = "json_schema"
    validates = True

    def _reader_of(self, schema: WriterSchema) -> Reader:
        return _JsonReader(_validator(schema) if self.validates else None)

    def _columns_of(self, schema: WriterSchema) -> pa.Schema:
        root = _parsed(schema)
        return pa.schema([_column(name, part, root) for name, part in _properties(root).items()])

    def _schema_for(self, schema: pa.Schema, name: str, newest: Subject | None) -> WriterSchema:
        root = {"$schema": "http://json-schema.org/draft-07/schema#", "title": name, **_object(list(schema))}
        return WriterSchema("JSON", json.dumps(root))

    def _encoder_to(self, wanted: WriterSchema, schema: pa.Schema) -> tuple[bytes, Encoder]:
        JsonLines().encoder(schema, "")  # refuses types that JSON does not have
        root = _parsed(wanted)
        _refuse_other_columns(root, schema)
        is_ours = {key: root.get(key) for key in ("type", "properties")} == {
            key: value for key, value in _object(list(schema)).items() if key in ("type", "properties")
        }
        validator = None if is_ours else _validator(wanted)

        def encode(rows: pa.Table) -> pa.LargeBinaryArray:
            values = json_values(rows)
            for value in values.to_pylist() if validator is not None else ():
                complaint = _complaint(validator, value)
                if complaint:
                    raise RowsRefused("A row does not satisfy the JSON Schema of its subject.", found=complaint)
            return values

        return b"", encode


class _JsonReader:
    """Messages of one schema. validator: None: not validated."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator

    def read(self, group: Group, schema: pa.Schema, refusals: Refusals, *, is_lenient: bool) -> Part:
        """See onefold.formats.framed.Reader."""
        decoded = JsonLines().decode(group.bodies, schema, is_lenient=is_lenient)
        lost = decoded.misfits
        numbers = group.index[lost.index.to_numpy()].tolist()
        for row, reason, detail in zip(numbers, lost.reason.to_pylist(), lost.detail.to_pylist(), strict=True):
            refusals.add(row, reason, detail)
        places = np.arange(len(group.index)) if decoded.kept is None else decoded.kept.to_numpy()
        if self._validator is None:
            return Part(group.index[places], decoded.rows)
        stays = np.ones(len(places), bool)
        bodies = group.bodies.take(pa.array(places)).to_pylist()
        for place, body in enumerate(bodies):
            complaint = _complaint(self._validator, body)
            if complaint:
                stays[place] = False
                refusals.add(int(group.index[places[place]]), "misfit", f"schema {group.schema_id}: {complaint}")
        return Part(group.index[places[stays]], decoded.rows.filter(pa.array(stays)))


# ------------------------------------------------------------------------------------------------------- validating


def _validator(schema: WriterSchema) -> Any:
    """Raises SchemaError, ExtraMissing. Nothing is ever fetched: what a schema refers to comes from the registry."""
    try:
        import jsonschema
        import referencing
        import referencing.jsonschema
    except ImportError:
        raise ExtraMissing("JSON Schema needs jsonschema.", next_step="pip install 'onefold[jsonschema]'") from None
    root = _parsed(schema)
    draft7 = referencing.jsonschema.DRAFT7
    parts = [
        (name, referencing.Resource.from_contents(json.loads(text, parse_float=_number), default_specification=draft7))
        for name, text in schema.references
    ]
    kind = jsonschema.validators.validator_for(root, default=jsonschema.Draft7Validator)
    try:
        kind.check_schema(root)
    except jsonschema.exceptions.SchemaError as error:
        raise SchemaError("This is no JSON Schema.", found=error.message[:200]) from None
    registry: Any = referencing.Registry()
    return kind(root, registry=registry.with_resources(parts))


def _complaint(validator: Any, body: bytes) -> str | None:
    """What a message breaks first; None: nothing."""
    try:
        found: Any = next(validator.iter_errors(_load(body)), None)
    except Exception as error:  # noqa: BLE001 - a reference without a target, a pattern that is none: all mean this
        return f"{type(error).__name__}: {str(error)[:150]}"
    return None if found is None else f"{found.json_path}: {found.message[:150]}"


def _load(text: str | bytes) -> Any:
    """JSON with exact numbers; of equal keys the first counts, as in onefold.formats.json."""
    return json.loads(text, parse_float=_number, object_pairs_hook=lambda pairs: dict(reversed(pairs)))


def _number(text: str) -> int | Decimal:
    number = Decimal(text)
    is_whole = number.is_finite() and abs(number.adjusted()) < 400 and number == number.to_integral_value()
    return int(number) if is_whole else number


def _parsed(schema: WriterSchema) -> dict[str, Any]:
    try:
        root = json.loads(schema.text, parse_float=_number)
    except ValueError as error:
        raise SchemaError("This is no JSON Schema.", found=str(error)) from None
    if not isinstance(root, dict):
        raise SchemaError("A JSON Schema of rows is an object.", found=str(root)[:100])
    return root


# ------------------------------------------------------------------------------------------------ schema to columns

_NOT_FINITE = ["NaN", "Infinity", "-Infinity"]
_SCALARS = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64(), "string": pa.string()}


def _properties(root: Mapping[str, Any]) -> Mapping[str, Any]:
    found = root.get("properties")
    if not isinstance(found, dict) or not found:
        raise SchemaError("This JSON Schema names no properties.", next_step="Declare the columns with schema=.")
    return found


def _column(name: str, part: Any, root: Mapping[str, Any], depth: int = 0) -> pa.Field:
    """JSON for what has no one type."""
    branches = _branches(part, root)
    if len(branches) != 1 or depth > 20:
        return marked(name, "JSON")
    one, kinds = branches[0]
    if len(kinds) != 1:
        return marked(name, "JSON")
    kind = kinds[0]
    if kind == "string":
        return _text_column(name, one)
    if kind in _SCALARS:
        return pa.field(name, _SCALARS[kind])
    if kind == "array" and isinstance(one.get("items"), dict):
        item = _column("item", one["items"], root, depth + 1)
        return pa.field(name, pa.list_(item))
    if kind == "object" and one.get("properties"):
        members = [_column(key, inner, root, depth + 1) for key, inner in one["properties"].items()]
        return pa.field(name, pa.struct(members))
    if kind == "object" and isinstance(one.get("additionalProperties"), dict):
        return pa.field(name, pa.map_(pa.string(), _column("value", one["additionalProperties"], root, depth + 1)))
    return marked(name, "JSON")


def _text_column(name: str, one: Mapping[str, Any]) -> pa.Field:
    if one.get("contentEncoding") == "base64":
        return pa.field(name, pa.binary())
    if one.get("format") == "uuid":
        return marked(name, "UUID")
    times = {"date": pa.date32(), "date-time": pa.timestamp("us", "UTC")}
    return pa.field(name, times.get(str(one.get("format")), pa.string()))


def _branches(part: Any, root: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], list[str]]]:
    """The alternatives without null and the words for numbers that JSON lacks, each with its types."""
    part = _followed(part, root)
    if not isinstance(part, dict):
        return []
    for word in ("oneOf", "anyOf"):
        if word in part:
            found = [branch for each in part[word] for branch in _branches(each, root)]
            return [(one, kinds) for one, kinds in found if kinds and one.get("enum") != _NOT_FINITE]
    kinds = part.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if "enum" in part and not kinds:
        kinds = ["string"] if all(isinstance(each, str) for each in part["enum"]) else []
    return [(part, [kind for kind in kinds if kind != "null"])]


def _followed(part: Any, root: Mapping[str, Any]) -> Any:
    """The target of a reference inside the same schema."""
    for _ in range(20):
        target = part.get("$ref") if isinstance(part, dict) else None
        if not isinstance(target, str) or not target.startswith("#/"):
            return part if target is None else {}
        part = root
        for step in target[2:].split("/"):
            part = part.get(step, {}) if isinstance(part, dict) else {}
    return {}


# ------------------------------------------------------------------------------------------------ columns to schema


def _object(fields: list[pa.Field]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: _part(field) for field in fields},
        "additionalProperties": False,  # an open object could not get a new property under BACKWARD compatibility
    }


def _part(field: pa.Field) -> dict[str, Any]:
    kind, types = field.type, pa.types
    if is_json(field):
        return {}
    if types.is_floating(kind):
        return {"anyOf": [{"type": ["number", "null"]}, {"enum": _NOT_FINITE}]}
    made: dict[str, Any]
    if types.is_boolean(kind):
        made = {"type": "boolean"}
    elif types.is_integer(kind):
        made = {"type": "integer"}
    elif types.is_decimal(kind):
        made = {"type": "number"}
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        made = {"type": "array", "items": _part(kind.value_field)}
    elif types.is_map(kind):
        made = {"type": "object", "additionalProperties": _part(kind.item_field)}
    elif types.is_struct(kind):
        made = _object([kind.field(place) for place in range(kind.num_fields)])
    else:
        made = {"type": "string", **_annotation(field)}
    return {**made, "type": [made["type"], "null"]}


def _annotation(field: pa.Field) -> dict[str, str]:
    kind, types = field.type, pa.types
    if is_uuid(field):
        return {"format": "uuid"}
    if types.is_binary(kind) or types.is_large_binary(kind):
        return {"contentEncoding": "base64"}
    if types.is_date(kind):
        return {"format": "date"}
    return {"format": "date-time"} if types.is_timestamp(kind) and kind.tz else {}


def _refuse_other_columns(root: Mapping[str, Any], schema: pa.Schema) -> None:
    """Raise SchemaError for columns that the schema has no place for, and for what it requires and the rows lack."""
    properties = _properties(root)
    lacking = [name for name in root.get("required", []) if name not in schema.names]
    if lacking:
        raise SchemaError("The JSON Schema requires what the rows lack.", found=", ".join(lacking))
    for field in schema:
        if field.name not in properties:
            if root.get("additionalProperties") is False:
                raise SchemaError(f"The JSON Schema has no property {field.name}.", column=field.name)
            continue
        ours = {kind for _, kinds in _branches(_part(field), root) for kind in kinds}
        theirs = {kind for _, kinds in _branches(properties[field.name], root) for kind in kinds}
        allowed = theirs | ({"integer"} if "number" in theirs else set())
        if ours and theirs and not ours <= allowed:
            raise SchemaError(
                f"The JSON Schema has another type for {field.name}.", column=field.name, found=sql_type(field),
                expected=" or ".join(sorted(theirs)), next_step="Cast it in select(…).",
            )  # fmt: skip
