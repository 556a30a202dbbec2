"""Topics with a real schema registry, written and read by Confluent's own serializers on the other side."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

import onefold as of
from onefold.errors import SchemaError, SinkUnavailable, SourceUnavailable
from services import registry as registry_service
from services.jars import ServiceMissing
from tests.services import kafka_topics as topics

SCHEMA = {"id": "VARCHAR", "amount": "DECIMAL(18,2)", "at": "TIMESTAMPTZ"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}
MOMENT = {"type": "long", "logicalType": "timestamp-micros"}
FIRST = {
    "type": "record",
    "name": "pay",
    "fields": [{"name": "id", "type": "string"}, {"name": "amount", "type": MONEY}],
}
SECOND = {**FIRST, "fields": [*FIRST["fields"], {"name": "at", "type": ["null", MOMENT], "default": None}]}  # type: ignore[misc]


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    try:
        with registry_service.running() as address:
            yield address
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def topic(cluster: str) -> str:
    name = f"t-{uuid.uuid4().hex}"
    topics.make({name: 1})
    return name


@pytest.fixture
def client(registry: str) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": registry})


def context(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


def test_columns_come_from_the_registry_and_each_message_has_its_own_schema(
    cluster: str, registry: str, client: SchemaRegistryClient, topic: str, tmp_path: Path
) -> None:
    old = AvroSerializer(client, json.dumps(FIRST))({"id": "a", "amount": Decimal("1.50")}, context(topic))
    at = "2024-02-29T12:00:00.000001+00:00"
    from datetime import datetime

    moment = datetime.fromisoformat(at)
    new = AvroSerializer(client, json.dumps(SECOND))({"id": "b", "amount": Decimal(2), "at": moment}, context(topic))
    assert old[1:5] != new[1:5]
    topics.produce(topic, [old, b"junk", b"\0\x7f\xff\xff\xff!", None, new], [b"1", b"2", b"3", b"4", b"5"])  # type: ignore[list-item]
    flow = of.Flow("from-avro")
    read = flow.read(of.kafka(cluster).topic(topic), format=of.avro(registry), meta=["_key"])
    assert dict(read.schema) == {**SCHEMA, "_key": "BLOB"}
    out = of.memory(f"out-{topic}")
    read.append(out)
    summary = flow.run(state=tmp_path)
    assert out.rows() == [
        {"id": "a", "amount": Decimal("1.50"), "at": None, "_key": b"1"},
        {"id": None, "amount": None, "at": None, "_key": b"4"},
        {"id": "b", "amount": Decimal("2.00"), "at": moment, "_key": b"5"},
    ]
    assert summary.dead == 2


@pytest.mark.parametrize("kind", ["avro", "json_schema", "protobuf"])
def test_what_we_write_other_clients_read_and_so_do_we(
    cluster: str, registry: str, client: SchemaRegistryClient, topic: str, tmp_path: Path, kind: str
) -> None:
    made: Any = {"avro": of.avro, "json_schema": of.json_schema, "protobuf": of.protobuf}[kind](registry)
    inbox, out = of.memory(f"in-{topic}"), of.memory(f"out-{topic}")
    rows = [{"id": f"e{n}", "amount": n / 4, "at": "2024-01-01T00:00:00.000001Z"} for n in range(20)]
    inbox.feed_bytes(rows)
    endpoint = of.kafka(cluster).topic(topic, format=made)
    flow = of.Flow("to-registry")
    flow.read(inbox, schema=SCHEMA, format="json").append(endpoint, key="id")
    flow.run(state=tmp_path)
    records = list(topics.records(topic))
    assert sorted(record.key for record in records) == sorted(row["id"].encode() for row in rows)
    for record in records:
        found = _theirs(kind, client, record.value, topic)
        n = int(record.key[1:])
        assert (found["id"], Decimal(str(found["amount"]))) == (f"e{n}", Decimal(n) / 4)
    back = of.Flow("from-registry")
    back.read(endpoint, schema=SCHEMA).append(out)
    back.run(state=tmp_path)
    assert [(row["id"], row["amount"]) for row in out.rows()] == [(r["id"], Decimal(str(r["amount"]))) for r in rows]
    assert {row["at"].isoformat() for row in out.rows()} == {"2024-01-01T00:00:00.000001+00:00"}


def _theirs(kind: str, client: SchemaRegistryClient, value: bytes, topic: str) -> Any:
    if kind == "avro":
        return AvroDeserializer(client)(value, context(topic))
    if kind == "json_schema":
        text = client.get_latest_version(f"{topic}-value").schema.schema_str
        return JSONDeserializer(text, schema_registry_client=client)(value, context(topic))
    import base64

    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

    text = client.get_latest_version(f"{topic}-value").schema.schema_str
    file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    kind_of = message_factory.GetMessageClass(pool.FindMessageTypeByName(file.message_type[0].name))
    message = ProtobufDeserializer(kind_of, {"use.deprecated.format": False})(value, context(topic))
    return {"id": message.id, "amount": message.amount}


def test_json_of_another_producer_is_judged_by_its_schema(
    cluster: str, registry: str, client: SchemaRegistryClient, topic: str, tmp_path: Path
) -> None:
    schema = {"title": "r", "type": "object", "properties": {"id": {"type": "integer", "maximum": 9}}}
    value = JSONSerializer(json.dumps(schema), client)({"id": 7}, context(topic))
    topics.produce(topic, [value, value.replace(b"7", b"70")])
    flow, out = of.Flow("from-json"), of.memory(f"out-{topic}")
    read = flow.read(of.kafka(cluster).topic(topic, format=of.json_schema(registry)))
    assert dict(read.schema) == {"id": "BIGINT"}
    read.append(out)
    assert flow.run(state=tmp_path).dead == 1
    assert out.rows() == [{"id": 7}]


def test_a_registry_that_is_down_stops_the_flow_and_makes_no_dead_letters(
    cluster: str, registry: str, topic: str, tmp_path: Path
) -> None:
    with registry_service.RegistryServer() as server:  # one that may be killed: not the one that the others share
        client = SchemaRegistryClient({"url": server.address})
        topics.produce(
            topic, [AvroSerializer(client, json.dumps(FIRST))({"id": "a", "amount": Decimal(1)}, context(topic))]
        )

        def flow() -> of.Flow:
            made = of.Flow("while-down")
            quick = of.schema_registry(server.address, options={"max.retries": "1", "timeout": "2"})
            made.read(of.kafka(cluster).topic(topic), schema=SCHEMA, format=of.avro(quick)).append(out)
            return made

        out = of.memory(f"out-{topic}")
        server.kill()
        with pytest.raises(SourceUnavailable, match="does not answer"):
            flow().run(state=tmp_path)
        with pytest.raises(SinkUnavailable, match="does not answer"):
            of.avro(of.schema_registry(server.address, options={"max.retries": "0"})).encoder(_columns(), topic)
        assert out.rows() == []
        server.start()  # its memory is gone: the same schema gets the same first id again
        client = SchemaRegistryClient({"url": server.address})
        AvroSerializer(client, json.dumps(FIRST))({"id": "x", "amount": Decimal(1)}, context(topic))
        assert flow().run(state=tmp_path).dead == 0
        assert out.rows() == [{"id": "a", "amount": Decimal("1.00"), "at": None}]


def test_an_incompatible_schema_is_told_before_anything_is_sealed(
    cluster: str, registry: str, client: SchemaRegistryClient, topic: str, tmp_path: Path
) -> None:
    client.register_schema(f"{topic}-value", Schema(json.dumps(FIRST), "AVRO"))
    client.set_compatibility(f"{topic}-value", "BACKWARD")
    inbox = of.memory(f"in-{topic}")
    inbox.feed_bytes([{"id": 1}])
    flow = of.Flow("incompatible")
    flow.read(inbox, schema={"id": "BIGINT"}, format="json").append(
        of.kafka(cluster).topic(topic, format=of.avro(registry))
    )
    with pytest.raises(SchemaError, match="refuses the schema"):
        flow.run(state=tmp_path)
    assert list(topics.records(topic)) == []
    assert client.get_versions(f"{topic}-value") == [1]


def _columns() -> Any:
    from onefold.formats.schema import to_schema

    return to_schema(SCHEMA)


def test_raw_bytes_go_out_as_they_are_beside_their_key(cluster: str, topic: str, tmp_path: Path) -> None:
    inbox, out = of.memory(f"in-{topic}"), of.memory(f"out-{topic}")
    inbox.feed_bytes([{"k": "a", "body": "/wA="}, {"k": "b", "body": None}, {"k": None, "body": ""}])
    endpoint = of.kafka(cluster).topic(topic, format="raw")
    flow = of.Flow("raw-out")
    flow.read(inbox, schema={"k": "VARCHAR", "body": "BLOB"}, format="json").append(endpoint, key="k")
    flow.run(state=tmp_path)
    found = [(record.key, record.value) for record in topics.records(topic)]
    assert found == [(b"a", b"\xff\0"), (b"b", None), (None, b"")]
    back = of.Flow("raw-in")
    back.read(endpoint, schema={"body": "BLOB"}, meta=["_key"]).append(out)
    back.run(state=tmp_path)
    assert [(row["_key"], row["body"]) for row in out.rows()] == found


def test_tombstones_are_rows_of_the_json_reader(cluster: str, topic: str, tmp_path: Path) -> None:
    topics.produce(topic, [b'{"id": 1}', None, b"{"], [b"a", b"b", b"c"])  # type: ignore[list-item]
    flow, out = of.Flow("tombstones"), of.memory(f"out-{topic}")
    flow.read(of.kafka(cluster).topic(topic), schema={"id": "BIGINT"}, meta=["_key"]).append(out)
    assert flow.run(state=tmp_path).dead == 1
    assert out.rows() == [{"id": 1, "_key": b"a"}, {"id": None, "_key": b"b"}]


def test_headers_go_out_and_come_back(cluster: str, topic: str, tmp_path: Path) -> None:
    inbox = of.memory(f"in-{topic}")
    inbox.feed_bytes([{"id": 1, "h": {"trace": "ü", "none": None}}, {"id": 2, "h": {}}, {"id": 3, "h": None}])
    columns = {"id": "BIGINT", "h": "MAP(VARCHAR, VARCHAR)"}
    flow = of.Flow("headers-out")
    flow.read(inbox, schema=columns, format="json").append(of.kafka(cluster).topic(topic, headers="h"), key="id")
    flow.run(state=tmp_path)
    found = {json.loads(record.value)["id"]: list(record.headers) for record in topics.records(topic)}
    assert found == {1: [("trace", "ü".encode()), ("none", None)], 2: [], 3: []}
    assert {record.value for record in topics.records(topic)} == {b'{"id":1}', b'{"id":2}', b'{"id":3}'}
    passed = f"passed-{topic}"
    topics.make({passed: 1})
    on = of.Flow("headers-on")
    read = on.read(of.kafka(cluster).topic(topic), schema={"id": "BIGINT"}, meta=["_headers"])
    read.append(of.kafka(cluster).topic(passed, headers="_headers"))
    on.run(state=tmp_path)
    assert {json.loads(r.value)["id"]: list(r.headers) for r in topics.records(passed)} == found


@pytest.mark.parametrize("column", ["id", "nope"])
def test_what_is_no_header_is_refused_when_the_sink_is_opened(
    cluster: str, topic: str, tmp_path: Path, column: str
) -> None:
    inbox = of.memory(f"in-{topic}")
    inbox.feed_bytes([{"id": 1}])
    flow = of.Flow("no-headers")
    read = flow.read(inbox, schema={"id": "BIGINT"}, format="json")
    read.append(of.kafka(cluster).topic(topic, headers=column))
    with pytest.raises(SchemaError, match="cannot become headers"):
        flow.run(state=tmp_path)


def test_doctor_asks_the_registry_of_both_ends(cluster: str, registry: str, topic: str) -> None:
    flow = of.Flow("examined")
    endpoint = of.kafka(cluster).topic(topic, format=of.avro(registry))
    flow.read(endpoint, schema=SCHEMA).append(endpoint, shared=True)
    (read,) = flow.plan.reads()
    (output,) = flow.plan.outputs
    for part in (read.source, output.sink):
        assert [finding.status for finding in part.check(None)] == ["ok", "ok"]  # type: ignore[attr-defined]
