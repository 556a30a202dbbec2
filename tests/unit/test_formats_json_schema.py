"""JSON Schema: decoded as JSON, judged by the schema that the message names."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference

import onefold as of
from onefold.errors import RowsRefused, SchemaError
from onefold.formats.framing import framed
from onefold.formats.schema import sql_types, to_schema
from tests.unit.registry_fake import FakeClient, fake_registry


def registered(client: FakeClient, schema: Any, references: list[Any] | None = None) -> int:
    return client.register_schema("t-value", Schema(json.dumps(schema), "JSON", references or []))


def messages(number: int, *texts: str) -> pa.LargeBinaryArray:
    return framed(number, pa.array([text.encode() for text in texts], pa.large_binary()))


def test_a_message_that_its_own_schema_does_not_allow_is_a_dead_letter() -> None:
    registry, client = fake_registry()
    number = registered(client, {
        "type": "object", "required": ["id"], "additionalProperties": False,
        "properties": {"id": {"type": "integer", "minimum": 1}, "x": {"type": "number", "multipleOf": 0.01}},
    })  # fmt: skip
    payload = messages(number, '{"id": 1, "x": 0.29}', '{"id": 0}', '{"x": 1}', '{"id": 2, "y": 1}', "{", '{"id": 1.0}',
                       '{"id": "1"}', '{"id": 3, "x": 0.001}', '{"id": 1e400}')  # fmt: skip
    columns = to_schema({"id": "BIGINT", "x": "DECIMAL(9,2)"})
    found = of.json_schema(registry).decode(payload, columns, is_lenient=False)
    assert found.rows.to_pylist() == [{"id": 1, "x": Decimal("0.29")}, {"id": 1, "x": None}]
    assert found.kept.to_pylist() == [0, 5]
    assert found.misfits.reason.to_pylist() == [
        "misfit", "misfit", "misfit", "malformed", "misfit", "misfit", "misfit"
    ]  # fmt: skip
    free = of.json_schema(registry, validate=False).decode(payload, columns, is_lenient=False)
    assert free.kept.to_pylist() == [0, 1, 2, 3, 5, 6]


def test_what_a_schema_refers_to_comes_from_the_registry_and_nowhere_else() -> None:
    registry, client = fake_registry()
    client.register_schema("money", Schema('{"type": "integer"}', "JSON"))
    client.get_version = lambda subject, version, fmt=None: client.get_latest_version(subject)  # type: ignore[attr-defined]
    part = {"properties": {"a": {"$ref": "money.json"}}, "type": "object"}
    number = registered(client, part, [SchemaReference("money.json", "money", 1)])
    elsewhere = registered(client, {"type": "object", "properties": {"a": {"$ref": "http://localhost:1/x.json"}}})
    payload = pa.concat_arrays([messages(number, '{"a": 1}', '{"a": "x"}'), messages(elsewhere, '{"a": 1}')])
    found = of.json_schema(registry).decode(payload, to_schema({"a": "VARCHAR"}), is_lenient=False)
    assert found.kept.to_pylist() == [0]
    assert "Unresolvable" in found.misfits.detail[1].as_py()


@pytest.mark.parametrize(("part", "sql"), [
    ({"type": "string"}, "VARCHAR"), ({"type": "integer"}, "BIGINT"), ({"type": ["null", "number"]}, "DOUBLE"),
    ({"type": "boolean"}, "BOOLEAN"), ({"type": "string", "format": "date"}, "DATE"),
    ({"type": "string", "format": "date-time"}, "TIMESTAMPTZ"), ({"type": "string", "format": "uuid"}, "UUID"),
    ({"type": "string", "contentEncoding": "base64"}, "BLOB"), ({"enum": ["a", "b"]}, "VARCHAR"),
    ({"oneOf": [{"type": "null"}, {"type": "integer"}]}, "BIGINT"), ({"type": ["string", "integer"]}, "JSON"),
    ({"type": "array", "items": {"$ref": "#/definitions/n"}}, "BIGINT[]"), ({"type": "array"}, "JSON"),
    ({"type": "object", "properties": {"a": {"type": "string"}}}, 'STRUCT("a" VARCHAR)'),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, "MAP(VARCHAR, BIGINT)"), ({}, "JSON"),
    ({"$ref": "#/definitions/loop"}, "JSON"), (True, "JSON"),
])  # fmt: skip
def test_columns_follow_from_a_schema(part: Any, sql: str) -> None:
    registry, client = fake_registry()
    definitions = {"n": {"type": "integer"}, "loop": {"$ref": "#/definitions/loop"}}
    registered(client, {"type": "object", "properties": {"v": part}, "definitions": definitions})
    assert sql_types(of.json_schema(registry).infer_schema(["t"])) == {"v": sql}


COLUMNS = {
    "id": "BIGINT", "amount": "DECIMAL(18,2)", "f": "DOUBLE", "at": "TIMESTAMP", "u": "UUID", "j": "JSON", "b": "BLOB",
    "s": "STRUCT(a DATE, l REAL[])", "m": "MAP(VARCHAR, BOOLEAN)",
}  # fmt: skip


def test_what_is_written_satisfies_its_schema_and_is_read_back_exactly() -> None:
    registry, client = fake_registry()
    schema = to_schema(COLUMNS)
    row = {"id": 1, "amount": Decimal("0.10"), "f": float("inf"), "u": "6f1c9f9e-7b1a-4c1d-8f00-000000000000",
           "j": '{"a":[1]}', "b": b"\xff", "s": {"a": None, "l": [0.5, None]}, "m": [("k", True)]}  # fmt: skip
    rows = pa.Table.from_pylist([row, {}], schema=schema)
    values = of.json_schema(registry).encoder(schema, "t")(rows)
    found = of.json_schema(registry).decode(values, schema, is_lenient=False)
    assert found.misfits.detail.to_pylist() == []
    assert found.rows.equals(rows)
    assert client.subjects == {"t-value": [1]}


def test_rows_that_a_given_schema_does_not_allow_are_refused() -> None:
    registry, _ = fake_registry()
    given = {"type": "object", "additionalProperties": False, "properties": {"a": {"type": "integer", "maximum": 5}}}
    made = of.json_schema(registry, schema=json.dumps(given))
    encode = made.encoder(to_schema({"a": "BIGINT"}), "t")
    assert len(encode(pa.table({"a": [5]}))) == 1
    with pytest.raises(RowsRefused):
        encode(pa.table({"a": [6]}))
    for columns in ({"a": "VARCHAR"}, {"a": "BIGINT", "z": "BIGINT"}):
        with pytest.raises(SchemaError):
            made.encoder(to_schema(columns), "t")
    with pytest.raises(SchemaError, match="no such schema"):
        of.json_schema(registry, register=False, subject="none").encoder(to_schema({"a": "BIGINT"}), "t")
