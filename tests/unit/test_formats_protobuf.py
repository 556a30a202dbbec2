"""Protobuf: exact types, presence, message types by index, and schemas that grow."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, timestamp_pb2, wrappers_pb2

import onefold as of
from onefold.errors import RowsRefused, SchemaError, SourceError
from onefold.formats.framing import framed
from onefold.formats.protobuf import Protobuf
from onefold.formats.schema import sql_types, to_schema
from tests.unit.registry_fake import FakeClient, fake_registry

ROW = """
  name: "a.proto" package: "p" syntax: "proto3"
  dependency: "google/protobuf/timestamp.proto" dependency: "google/protobuf/wrappers.proto"
  message_type {
    name: "Other" field { name: "x" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
  }
  message_type {
    name: "Row"
    field { name: "id" number: 1 label: LABEL_OPTIONAL type: TYPE_INT64 }
    field { name: "note" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING proto3_optional: true oneof_index: 0 }
    field { name: "at" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" }
    field { name: "n" number: 4 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
    field { name: "kind" number: 5 label: LABEL_OPTIONAL type: TYPE_ENUM type_name: "Kind" }
    field { name: "tags" number: 6 label: LABEL_REPEATED type: TYPE_STRING }
    field { name: "sub" number: 7 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Sub" }
    field { name: "big" number: 8 label: LABEL_OPTIONAL type: TYPE_FIXED64 }
    oneof_decl { name: "_note" }
    nested_type {
      name: "Sub" field { name: "x" number: 1 label: LABEL_OPTIONAL type: TYPE_BYTES }
      field { name: "self" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".p.Other" }
    }
    enum_type { name: "Kind" value { name: "NONE" number: 0 } value { name: "SALE" number: 1 } }
  }
"""
SECOND = b"\x02\x02"
"""The message type of index 1: how many indexes, then the index, both zigzag."""


def file_of(text: str) -> descriptor_pb2.FileDescriptorProto:
    return text_format.Parse(text, descriptor_pb2.FileDescriptorProto())


def registered(client: FakeClient, file: descriptor_pb2.FileDescriptorProto) -> int:
    from confluent_kafka.schema_registry import Schema

    text = base64.b64encode(file.SerializeToString()).decode()
    return client.register_schema("t-value", Schema(text, "PROTOBUF"))


def message_class(file: descriptor_pb2.FileDescriptorProto, name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def one(protobuf: Protobuf, payload: list[bytes | None], **columns: str) -> Any:
    return protobuf.decode(pa.array(payload, pa.large_binary()), to_schema(columns), is_lenient=False)


def test_fields_have_the_columns_that_hold_them_exactly() -> None:
    registry, client = fake_registry()
    file = file_of(ROW)
    number = registered(client, file)
    row = message_class(file, "p.Row")
    full = row(id=-5, note="", n={"value": 0}, kind="SALE", tags=["a", "b"], sub={"x": b"\xff"}, big=2**64 - 1)
    full.at.seconds, full.at.nanos = 1_700_000_000, 123_456_789
    bodies = pa.array([full.SerializeToString(), row(kind=7).SerializeToString()], pa.large_binary())
    payload = framed(number, bodies, extra=SECOND).to_pylist()
    protobuf = of.protobuf(registry, message="Row")
    inferred = protobuf.infer_schema(["t"])
    assert sql_types(inferred) == {
        "id": "BIGINT", "note": "VARCHAR", "at": "TIMESTAMPTZ", "n": "BIGINT", "kind": "VARCHAR", "tags": "VARCHAR[]",
        "sub": 'STRUCT("x" BLOB, "self" STRUCT("x" VARCHAR))', "big": "UBIGINT",
    }  # fmt: skip
    columns = {name: kind for name, kind in sql_types(inferred).items() if name != "at"}
    found = one(protobuf, payload, at="TIMESTAMP_NS", **columns)
    assert found.rows.column("at").cast(pa.int64()).to_pylist() == [1_700_000_000_123_456_789, None]
    assert found.rows.drop_columns("at").to_pylist() == [
        {"id": -5, "note": "", "n": 0, "kind": "SALE", "tags": ["a", "b"], "sub": {"x": b"\xff", "self": None},
         "big": 2**64 - 1},
        {"id": 0, "note": None, "n": None, "kind": "7", "tags": [], "sub": None, "big": 0},
    ]  # fmt: skip
    assert one(protobuf, payload, at="TIMESTAMP").misfits.reason.to_pylist() == ["misfit"], "finer than microseconds"


def test_messages_of_several_types_and_wrong_bytes_each_end_in_their_place() -> None:
    registry, client = fake_registry()
    file = file_of(ROW)
    number = registered(client, file)
    head = b"\0" + number.to_bytes(4, "big")
    row = message_class(file, "p.Row")(id=1).SerializeToString()
    other = message_class(file, "p.Other")(x="o").SerializeToString()
    payload = [
        head + SECOND + row, head + b"\0" + other, None, head, head + b"\x02\x06" + row,
        head + b"\x04\x02\x00" + b"\x0a\x01z",
        head + b"\xff\xff\xff\xff\xff\xff", head + SECOND + b"\x12\x02\xff\xff", head + SECOND + b"\xff",
        b"\0\0\0\0\x09\0",
        head + b"\x02\x01", head + b"\x04\x02\x63",
    ]  # fmt: skip
    found = one(of.protobuf(registry), payload, id="BIGINT", x="VARCHAR", note="VARCHAR")
    assert found.kept.to_pylist() == [0, 1, 2, 5]
    assert [(each["id"], each["x"]) for each in found.rows.to_pylist()] == [
        (1, None),
        (None, "o"),
        (None, None),
        (None, "z"),
    ]
    assert found.misfits.reason.to_pylist() == ["malformed"] * 5 + ["unknown-schema"] + ["malformed"] * 2


def test_a_schema_as_text_is_said_to_be_one() -> None:
    from confluent_kafka.schema_registry import Schema

    registry, client = fake_registry()
    client.register_schema("t-value", Schema('syntax = "proto3"; message A { int32 a = 1; }', "PROTOBUF"))
    with pytest.raises(SchemaError, match="as text"):
        of.protobuf(registry).infer_schema(["t"])
    with pytest.raises(SourceError, match="as text"):
        one(of.protobuf(registry), [b"\0\0\0\0\1\0"], a="INTEGER")


COLUMNS = {
    "id": "BIGINT", "amount": "DECIMAL(38,10)", "at": "TIMESTAMP_NS", "tz": "TIMESTAMPTZ", "day": "DATE", "t": "TIME",
    "u": "UUID", "j": "JSON", "tiny": "TINYINT", "l": "TIMESTAMP[]", "s": "STRUCT(a REAL, b STRUCT(c BOOLEAN))",
    "m": "MAP(VARCHAR, STRUCT(x BLOB))",
}  # fmt: skip


def rows() -> pa.Table:
    moment = datetime(2024, 1, 1, 1, 2, 3, 4, UTC)
    full = {
        "id": 2**62, "amount": Decimal("-1.0000000001"), "at": moment.replace(tzinfo=None), "tz": moment,
        "day": moment.date(), "t": moment.time(), "u": "6f1c9f9e-7b1a-4c1d-8f00-000000000000", "j": '{"a": 1}',
        "tiny": -128, "l": [moment.replace(tzinfo=None)], "s": {"a": 0.5, "b": {"c": None}}, "m": [("k", {"x": b"\0"})],
    }  # fmt: skip
    return pa.Table.from_pylist([full, {"l": [], "m": []}], schema=to_schema(COLUMNS))


def test_what_is_written_is_read_back_exactly() -> None:
    registry, _ = fake_registry()
    protobuf = of.protobuf(registry)
    values = protobuf.encoder(rows().schema, "my-topic")(rows())
    assert one(protobuf, values.to_pylist(), **COLUMNS).rows.equals(rows())


def test_new_columns_get_numbers_that_were_never_used() -> None:
    registry, client = fake_registry()
    file = file_of(ROW)
    del file.message_type[1].field[1:]
    del file.message_type[1].oneof_decl[:]
    file.message_type[1].reserved_range.add(start=40, end=51)
    registered(client, file)
    protobuf = of.protobuf(registry, message="p.Row")
    schema = to_schema({"id": "BIGINT", "new": "VARCHAR"})
    values = protobuf.encoder(schema, "t")(pa.table([[1], ["n"]], schema=schema))
    text = client.schemas[2].schema_str
    grown = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text)).message_type[1]
    assert [(field.name, field.number) for field in grown.field] == [("id", 1), ("new", 51)]
    assert one(protobuf, values.to_pylist(), id="BIGINT", new="VARCHAR").rows.to_pylist() == [{"id": 1, "new": "n"}]
    protobuf.encoder(schema, "t")
    assert len(client.schemas) == 2, "what is there already is used"


def test_what_protobuf_cannot_say_is_refused() -> None:
    registry, client = fake_registry()
    for columns, row, says in (
        ({"l": "BIGINT[]"}, {"l": None}, "cannot say so"),
        ({"l": "BIGINT[]"}, {"l": [None]}, "no NULL inside"),
        ({"a": "TIMESTAMP"}, {"a": pa.scalar(2**61, pa.timestamp("us"))}, "years 1 to 9999"),
    ):
        schema = to_schema(columns)
        table = pa.table({name: pa.array([value], schema.field(name).type) for name, value in row.items()})
        with pytest.raises(RowsRefused, match=says):
            of.protobuf(registry, subject=str(columns)).encoder(schema, "t")(table)
    registered(client, file_of(ROW))
    for columns in ({"id": "VARCHAR"}, {"id": "UBIGINT"}, {"nope": "BIGINT"}, {"tags": "VARCHAR"}, {"at": "VARCHAR"}):
        with pytest.raises(SchemaError):
            of.protobuf(registry, message="Row", register=False).encoder(to_schema(columns), "t")
    with pytest.raises(SchemaError, match="no message Nope"):
        of.protobuf(registry, message="Nope").infer_schema(["t"])
