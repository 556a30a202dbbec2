"""Avro: exact types, the writer's schema by id, what changes between schemas, and what no message may do."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from fastavro import schemaless_writer

import onefold as of
from onefold.errors import RowsRefused, SchemaError, SourceUnavailable
from onefold.formats.avro import Avro
from onefold.formats.framing import framed
from onefold.formats.schema import sql_types, to_schema
from tests.unit.registry_fake import FakeClient, fake_registry

Field = dict[str, Any]
NULLABLE_INT: Field = {"name": "b", "type": ["null", "int"], "default": None}


def record(*fields: Field, name: str = "row") -> str:
    return json.dumps({"type": "record", "name": name, "fields": list(fields)})


def written(client: FakeClient, schema: str, *records: dict[str, Any]) -> pa.LargeBinaryArray:
    """As another producer writes them: by fastavro with its logical types."""
    from confluent_kafka.schema_registry import Schema

    number = client.register_schema("t-value", Schema(schema, "AVRO"))
    bodies = []
    for each in records:
        body = io.BytesIO()
        schemaless_writer(body, json.loads(schema), each)
        bodies.append(body.getvalue())
    return framed(number, pa.array(bodies, pa.large_binary()))


def decoded(avro: Avro, payload: pa.Array, **columns: str) -> tuple[list[dict[str, Any]], list[tuple[int, str, str]]]:
    found = avro.decode(payload, to_schema(columns), is_lenient=False)
    misfits = found.misfits
    assert len(found.rows) + len(misfits) == len(payload)
    letters = zip(misfits.index.to_pylist(), misfits.reason.to_pylist(), misfits.detail.to_pylist(), strict=True)
    return found.rows.to_pylist(), list(letters)


MOMENT = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.mark.parametrize(("kind", "value", "sql", "expected"), [
    ("int", -5, "INTEGER", -5),
    ("long", 2**62, "BIGINT", 2**62),
    ("float", 0.5, "REAL", 0.5),
    ("double", 0.1, "DOUBLE", 0.1),
    ("boolean", True, "BOOLEAN", True),
    ("string", "ü", "VARCHAR", "ü"),
    ("bytes", b"\xff\0", "BLOB", b"\xff\0"),
    ({"type": "fixed", "name": "f", "size": 2}, b"ab", "BLOB", b"ab"),
    ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, "B", "VARCHAR", "B"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10}, Decimal("-1.0000000001"),
     "DECIMAL(38,10)", Decimal("-1.0000000001")),
    ({"type": "fixed", "name": "d", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 2},
     Decimal("-12345678.90"), "DECIMAL(18,2)", Decimal("-12345678.90")),
    ({"type": "int", "logicalType": "date"}, date(1, 1, 1), "DATE", date(1, 1, 1)),
    ({"type": "int", "logicalType": "time-millis"}, time(23, 59, 59, 999000), "TIME", time(23, 59, 59, 999000)),
    ({"type": "long", "logicalType": "time-micros"}, time(0, 0, 0, 1), "TIME", time(0, 0, 0, 1)),
    ({"type": "long", "logicalType": "timestamp-micros"}, MOMENT, "TIMESTAMP WITH TIME ZONE", MOMENT),
    ({"type": "long", "logicalType": "timestamp-millis"}, MOMENT.replace(microsecond=123000),
     "TIMESTAMP WITH TIME ZONE", MOMENT.replace(microsecond=123000)),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, MOMENT.replace(tzinfo=None), "TIMESTAMP",
     MOMENT.replace(tzinfo=None)),
    ({"type": "string", "logicalType": "uuid"}, "6f1c9f9e-7b1a-4c1d-8f00-000000000000", "UUID",
     "6f1c9f9e-7b1a-4c1d-8f00-000000000000"),
    ({"type": "array", "items": ["null", "int"]}, [1, None], "INTEGER[]", [1, None]),
    ({"type": "map", "values": "long"}, {"k": 1}, "MAP(VARCHAR, BIGINT)", [("k", 1)]),
    ({"type": "record", "name": "in", "fields": [{"name": "x", "type": ["null", "string"]}]}, {"x": "y"},
     'STRUCT("x" VARCHAR)', {"x": "y"}),
])  # fmt: skip
def test_a_type_has_the_column_that_holds_it_exactly(kind: Any, value: Any, sql: str, expected: Any) -> None:
    registry, client = fake_registry()
    schema = record({"name": "v", "type": ["null", kind]})
    payload = written(client, schema, {"v": value}, {"v": None})
    inferred = of.avro(registry).infer_schema(["t"])
    assert sql_types(inferred)["v"] == sql_types(to_schema({"v": sql}))["v"]
    found = of.avro(registry).decode(payload, to_schema(inferred), is_lenient=False)
    assert found.rows.column("v").to_pylist() == [expected, None]


def test_nanoseconds_and_more_digits_than_a_decimal_has_are_kept() -> None:
    registry, client = fake_registry()
    nanos = record(
        {"name": "n", "type": {"type": "long", "logicalType": "local-timestamp-nanos"}},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 2}},
    )
    large = (10**50 + 1).to_bytes(30, "big", signed=True)
    plain = record({"name": "n", "type": "long"}, {"name": "d", "type": "bytes"})
    from confluent_kafka.schema_registry import Schema

    body = io.BytesIO()
    schemaless_writer(body, json.loads(plain), {"n": 1_700_000_000_000_000_001, "d": large})
    number = client.register_schema("t-value", Schema(nanos, "AVRO"))
    payload = framed(number, pa.array([body.getvalue()], pa.large_binary()))
    found = of.avro(registry).decode(payload, to_schema({"n": "TIMESTAMP_NS", "d": "VARCHAR"}), is_lenient=False)
    assert found.rows.column("n").cast(pa.int64()).to_pylist() == [1_700_000_000_000_000_001]
    assert found.rows.column("d").to_pylist() == [f"{10**48}.01"]


def test_each_message_is_read_with_the_schema_that_it_was_written_with() -> None:
    registry, client = fake_registry()
    first = record({"name": "a", "type": "int"}, {"name": "gone", "type": "string"})
    second = record(NULLABLE_INT, {"name": "a", "type": "long"})
    payload = pa.concat_arrays([
        written(client, first, {"a": 1, "gone": "x"}), written(client, second, {"a": 2, "b": 7}),
        written(client, first, {"a": 3, "gone": "y"}),
    ])  # fmt: skip
    avro = of.avro(registry)
    assert decoded(avro, payload, a="BIGINT", b="INTEGER") == (
        [{"a": 1, "b": None}, {"a": 2, "b": 7}, {"a": 3, "b": None}], []
    )  # fmt: skip
    decoded(avro, payload, a="BIGINT")
    assert sorted(client.asked) == [1, 2], "each id is asked for once"


def test_with_a_schema_to_read_as_its_defaults_and_aliases_hold() -> None:
    registry, client = fake_registry()
    payload = written(client, record({"name": "old", "type": "int"}), {"old": 5})
    wanted = record(
        {"name": "new", "type": "long", "aliases": ["old"]}, {"name": "c", "type": "string", "default": "EUR"}
    )
    avro = of.avro(registry, schema=wanted)
    assert decoded(avro, payload, new="BIGINT", c="VARCHAR") == ([{"new": 5, "c": "EUR"}], [])
    other = of.avro(registry, schema=record({"name": "needed", "type": "long"}))
    (_, [(row, reason, _)]) = decoded(other, payload, needed="BIGINT")
    assert (row, reason) == (0, "malformed")


def test_what_cannot_be_read_is_a_dead_letter_and_nothing_else_is() -> None:
    registry, client = fake_registry()
    schema = record({"name": "a", "type": "string"}, {"name": "n", "type": "long"})
    good = written(client, schema, {"a": "x", "n": 300})
    raw = good.to_pylist()[0]
    payload: Sequence[bytes | None] = [
        raw, None, b"", b"{}", b"\1" + raw[1:], raw[:4], raw[:-1], raw + b"!", b"\0\0\0\0\x63" + raw[5:],
        b"\0\0\0\0\1\4\xff\xff\2", raw,
    ]  # fmt: skip
    rows, letters = decoded(of.avro(registry), pa.array(payload, pa.binary()), a="VARCHAR", n="TINYINT[]")
    assert rows == [{"a": None, "n": None}], "a tombstone is a row; a type that never fits is a misfit, no exception"
    assert [(row, reason) for row, reason, _ in letters] == [
        (0, "misfit"), (2, "malformed"), (3, "malformed"), (4, "malformed"), (5, "malformed"), (6, "malformed"),
        (7, "malformed"), (8, "unknown-schema"), (9, "malformed"), (10, "misfit"),
    ]  # fmt: skip
    rows, letters = decoded(of.avro(registry), pa.array([raw, raw], pa.binary()), a="VARCHAR", n="TINYINT")
    assert (rows, [reason for _, reason, _ in letters]) == ([], ["misfit", "misfit"])
    assert letters[0][2].startswith("n: 300 does not fit TINYINT")


def test_a_number_that_is_too_large_for_its_own_type_is_a_misfit() -> None:
    """Avro writes int and long alike, so a wrong writer can put 64 bits into an int."""
    registry, client = fake_registry()
    long, int_ = record({"name": "a", "type": "long"}), record({"name": "a", "type": "int"})
    days = record({"name": "a", "type": {"type": "int", "logicalType": "date"}})
    many = record({"name": "a", "type": {"type": "array", "items": "int"}})
    body = written(client, long, {"a": 2**40}).to_pylist()[0][5:]
    small = written(client, int_, {"a": 1}).to_pylist()[0]
    date_id = written(client, days).null_count or len(client.schemas)
    list_id = (written(client, many), len(client.schemas))[1]
    payload = [b"\0\0\0\0\2" + body, small, b"\0\0\0\0" + bytes([date_id]) + body]
    rows, letters = decoded(of.avro(registry), pa.array(payload, pa.binary()), a="BIGINT")
    assert rows == [{"a": 1}]
    assert [(row, reason) for row, reason, _ in letters] == [(0, "misfit"), (2, "misfit")]
    nested = b"\0\0\0\0" + bytes([list_id]) + b"\x02" + body + b"\0"
    rows, letters = decoded(of.avro(registry), pa.array([nested], pa.binary()), a="BIGINT[]")
    assert (rows, letters[0][1]) == ([], "misfit")


def test_a_wrong_schema_to_read_as_is_an_error_and_no_dead_letter() -> None:
    registry, client = fake_registry()
    payload = written(client, record({"name": "a", "type": "int"}), {"a": 1})
    with pytest.raises(SchemaError, match="no Avro schema"):
        decoded(of.avro(registry, schema="{"), payload, a="INTEGER")


def test_a_type_that_holds_itself_is_never_decoded() -> None:
    """fastavro recurses without a limit: such a message ends the process."""
    registry, client = fake_registry()
    schema = record({"name": "next", "type": ["null", "row"]}, {"name": "a", "type": "int"})
    payload = written(client, schema, {"next": None, "a": 1})
    deep = framed(1, pa.array([b"\x02" * 3_000_000], pa.large_binary()))
    _, letters = decoded(of.avro(registry), pa.concat_arrays([payload, deep]), a="INTEGER")
    assert [reason for _, reason, _ in letters] == ["unknown-schema", "unknown-schema"]
    assert "holds itself" in letters[0][2]


def test_a_registry_that_does_not_answer_makes_no_dead_letters() -> None:
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    registry, client = fake_registry()
    payload = written(client, record({"name": "a", "type": "int"}), {"a": 1})
    for failure in (
        OSError("refused"), SchemaRegistryError(500, 50001, "x"), SchemaRegistryError(401, 40101, "x"),
        SchemaRegistryError(404, 404, "no such page"), SchemaRegistryError(429, -1, "slow down"),
    ):  # fmt: skip
        client.failure = failure
        with pytest.raises(SourceUnavailable):
            decoded(of.avro(registry), payload, a="INTEGER")
    client.failure = None
    assert decoded(of.avro(registry), payload, a="INTEGER") == ([{"a": 1}], [])


def test_an_unknown_id_is_asked_for_again_and_may_be_known_then() -> None:
    registry, client = fake_registry()
    payload = written(client, record({"name": "a", "type": "int"}), {"a": 1})
    avro, kept = of.avro(registry), client.schemas.pop(1)
    assert decoded(avro, payload, a="INTEGER")[0] == []
    client.schemas[1] = kept
    assert decoded(avro, payload, a="INTEGER")[0] == [{"a": 1}]


def test_unions_of_several_types_are_text_or_json() -> None:
    registry, client = fake_registry()
    schema = record({"name": "u", "type": ["null", "long", "string", {"type": "array", "items": "int"}]})
    payload = written(client, schema, {"u": 1}, {"u": "x"}, {"u": [1, 2]}, {"u": None})
    rows, _ = decoded(of.avro(registry), payload, u="VARCHAR")
    assert [row["u"] for row in rows] == ["1", "x", "[1, 2]", None]
    rows, _ = decoded(of.avro(registry), payload, u="JSON")
    assert [row["u"] for row in rows] == ["1", '"x"', "[1, 2]", None]
    rows, letters = decoded(of.avro(registry), payload, u="BIGINT")
    assert ([row["u"] for row in rows], [row for row, _, _ in letters]) == ([1, None], [1, 2])


# ------------------------------------------------------------------------------------------------------------ writing

COLUMNS = {"id": "VARCHAR", "amount": "DECIMAL(18,2)", "at": "TIMESTAMP"}


def test_the_schema_is_registered_once_and_a_new_column_is_an_evolution() -> None:
    registry, client = fake_registry()
    avro = of.avro(registry)
    rows = pa.table([["a"], [Decimal("1.50")], [datetime.fromisoformat("2024-01-01")]], schema=to_schema(COLUMNS))
    first = avro.encoder(to_schema(COLUMNS), "pay.ments")(rows)
    assert avro.encoder(to_schema(COLUMNS), "pay.ments")(rows).equals(first)
    assert client.subjects == {"pay.ments-value": [1]}
    wider = {**COLUMNS, "note": "VARCHAR"}
    second = avro.encoder(to_schema(wider), "pay.ments")(rows.append_column("note", pa.array([None], pa.string())))
    assert client.subjects == {"pay.ments-value": [1, 2]}
    found, _ = decoded(avro, pa.concat_arrays([first, second]), **wider)
    assert found == [{**rows.to_pylist()[0], "note": None}] * 2


def test_without_leave_to_register_the_newest_schema_is_written() -> None:
    registry, client = fake_registry()
    avro = of.avro(registry, register=False)
    with pytest.raises(SchemaError, match="no such schema"):
        avro.encoder(to_schema({"a": "INTEGER"}), "t")
    written(client, record({"name": "a", "type": "long"}, {"name": "c", "type": "string", "default": "EUR"}))
    values = avro.encoder(to_schema({"a": "INTEGER"}), "t")(pa.table({"a": pa.array([7], pa.int32())}))
    assert decoded(avro, values, a="BIGINT", c="VARCHAR")[0] == [{"a": 7, "c": "EUR"}]
    with pytest.raises(RowsRefused, match="no value"):
        avro.encoder(to_schema({"a": "INTEGER"}), "t")(pa.table({"a": pa.array([None], pa.int32())}))
    assert len(client.schemas) == 1


@pytest.mark.parametrize(("schema", "columns"), [
    (record({"name": "a", "type": "int"}), {"a": "BIGINT"}),
    (record({"name": "a", "type": "double"}), {"a": "BIGINT"}),
    (record({"name": "a", "type": "string"}), {"a": "INTEGER"}),
    (record({"name": "a", "type": ["null", "int", "string"]}), {"a": "VARCHAR"}),
    (record({"name": "a", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}),
     {"a": "DECIMAL(18,2)"}),
    (record({"name": "a", "type": "int"}, {"name": "b", "type": "int"}), {"a": "INTEGER"}),
    (record({"name": "a", "type": "int"}), {"a": "INTEGER", "b": "INTEGER"}),
    ('"string"', {"a": "VARCHAR"}),
    ("{", {"a": "VARCHAR"}),
])  # fmt: skip
def test_a_schema_that_may_not_hold_every_row_is_refused_before_the_first(schema: str, columns: dict[str, str]) -> None:
    registry, client = fake_registry()
    with pytest.raises(SchemaError):
        of.avro(registry, schema=schema).encoder(to_schema(columns), "t")
    assert client.schemas == {}, "and is not registered"


def test_a_schema_that_the_registry_refuses_is_told_when_the_sink_is_opened() -> None:
    registry, client = fake_registry()
    client.refuses = True
    with pytest.raises(SchemaError, match="refuses the schema") as told:
        of.avro(registry).encoder(to_schema({"a": "INTEGER"}), "t")
    assert "incompatible with an earlier" in str(told.value)


@pytest.mark.parametrize("name", ["a-b", "ü", "1a"])
def test_a_name_that_avro_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="no field of the name"):
        of.avro(fake_registry()[0]).encoder(to_schema({name: "INTEGER"}), "t")


# ------------------------------------------------------------------------------------------------------------- a flow


def test_a_flow_takes_its_columns_from_the_registry(tmp_path: Any) -> None:
    registry, client = fake_registry()
    schema = record({"name": "id", "type": "string"}, {"name": "n", "type": ["null", "long"], "default": None})
    payload = written(client, schema, {"id": "a", "n": 1}, {"id": "b", "n": None})
    inbox, outbox = of.memory("t"), of.memory("avro-out")
    inbox.feed_bytes([*payload.to_pylist(), b"junk"])
    flow = of.Flow("from-registry")
    read = flow.read(inbox, format=of.avro(registry))
    assert dict(read.schema) == {"id": "VARCHAR", "n": "BIGINT"}
    read.append(outbox)
    summary = flow.run(state=tmp_path)
    assert outbox.rows() == [{"id": "a", "n": 1}, {"id": "b", "n": None}]
    assert summary.events == 3


def test_columns_are_not_guessed_for_several_topics_or_none() -> None:
    registry, _ = fake_registry()
    for topics in (["a", "b"], ["^a"]):
        with pytest.raises(SchemaError, match="no one schema"):
            of.avro(registry).infer_schema(topics)
    with pytest.raises(SchemaError, match="no such schema"):
        of.avro(registry).infer_schema(["t"])
