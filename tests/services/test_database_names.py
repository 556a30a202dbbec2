"""Names of tables, columns, flows and sinks arrive as they are, whatever signs they are made of."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.mysql.types import NAME_CHARACTERS
from onefold.connectors.postgres.types import NAME_BYTES, quoted
from onefold.protocols import Reading
from onefold.testing.contract_case import SinkBench, SinkCase, move
from tests.names import hostile
from tests.services import mysql_flows, outbox_tables
from tests.services import postgres_flows as flows
from tests.services.postgres_changes_flows import drop_slot
from tests.services.postgres_changes_tables import World, brief

NAMES = ["%s", "50%", "%d", "%(a)s", "a%%b", "order", "Große 漢\"'`\\;--"]


def different(luck: random.Random, count: int, *, most_bytes: int, alphabet: str = "") -> list[str]:
    """Names none of which is another one in capitals, nor ends in a space."""
    found: dict[str, str] = {}
    options = {"alphabet": alphabet} if alphabet else {}
    while len(found) < count:
        name = hostile(luck, most_bytes=most_bytes, **options).strip()
        if name and not name.startswith("_"):
            found.setdefault(name.lower(), name)
    return list(found.values())


def write_and_read(bench: SinkBench, key: str, other: str) -> None:
    """Two deliveries of an upsert, a key with NULL among them."""
    sink, token = bench.instance()
    assert token is None
    first, second = [{key: 1, other: "x'"}, {key: None, other: "%s"}], [{key: 1, other: "y"}, {key: None, other: "z"}]
    sink.commit([bench.prepare(sink, 1, first)], move(0, 1))
    sink.commit([bench.prepare(sink, 2, second)], move(1, 2))
    assert sorted(map(str, bench.look()[0])) == sorted(map(str, second))
    bench.close()


def hostile_bench(case: SinkCase, folder: Path, names: list[str]) -> SinkBench:
    table, key, other, flow, sink = names
    schema = pa.schema([(key, pa.int64()), (other, pa.string())])
    return SinkBench(case, folder, "upsert", (key,), schema, table, flow=flow, sink=sink)


def test_postgres_takes_hostile_names(tmp_path: Path, database: str) -> None:
    luck = random.Random(3)
    case = SinkCase(
        "postgres", lambda folder, table, mode, key: flows.table(folder, table).as_sink(mode, key), fences=True
    )
    for _ in range(60):
        names = different(luck, 5, most_bytes=NAME_BYTES)
        write_and_read(hostile_bench(case, tmp_path, names), *names[1:3])
        flows.execute(tmp_path, f"DROP TABLE {quoted(names[0])}", f"DELETE FROM {_tokens(tmp_path)}")


def _tokens(folder: Path) -> str:
    return f'"{flows.schema_of(folder)} tokens"._onefold_tokens'


def test_mysql_takes_hostile_names(tmp_path: Path, mysql_database: str) -> None:
    luck = random.Random(3)
    case = SinkCase(
        "mysql", lambda folder, table, mode, key: mysql_flows.table(folder, table).as_sink(mode, key), fences=True
    )
    for number in range(60):
        names = different(luck, 5, most_bytes=NAME_CHARACTERS)
        names[0] = f"{number} {names[0]}"[:NAME_CHARACTERS].rstrip()
        write_and_read(hostile_bench(case, tmp_path, names), *names[1:3])


@pytest.fixture
def sql(tmp_path: Path, database: str) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {flows.schema_of(tmp_path)}")
        connection.execute(f"SET search_path TO {flows.schema_of(tmp_path)}")
        yield connection


def outbox_names() -> list[list[str]]:
    luck = random.Random(4)
    plain = ["outbox", "id", "n", "transaction_id"]
    each = [[*plain[:at], name, *plain[at + 1 :]] for name in NAMES for at in range(4)]
    return [*each, *(different(luck, 4, most_bytes=NAME_BYTES) for _ in range(20))]


def test_an_outbox_is_read_whatever_its_names_are(tmp_path: Path, sql: Any) -> None:
    for table, key, column, transaction in outbox_names():
        name, index = quoted(table), f"{quoted(transaction)}, {quoted(key)}"
        sql.execute(
            f"CREATE TABLE {name} ({quoted(key)} bigint PRIMARY KEY, {quoted(column)} int, "
            f"{quoted(transaction)} xid8 NOT NULL DEFAULT pg_current_xact_id())"
        )
        sql.execute(f"CREATE INDEX ON {name} ({index})")
        sql.execute(f"INSERT INTO {name} VALUES (1, 10), (2, 20)")
        source = outbox_tables.source(tmp_path, name=table, id=key, transaction=transaction, delete_settled=True)
        source.told(Reading("flow", "in", None, pa.schema([(key, pa.int64()), (column, pa.int32())]), ()))
        source.open(None)
        ids, read = outbox_tables.take(source, {})
        assert ids == [1, 2], (table, key, column, transaction)
        assert [row[column] for batch in read.batches for row in batch.to_pylist()] == [10, 20]
        assert outbox_tables.take(source, read.next)[0] == []
        assert source.partitions()[outbox_tables.PARTITION][1] is not None
        source.settle({outbox_tables.PARTITION: read.next})
        assert sql.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)
        source.close()
        sql.execute(f"DROP TABLE {name}")


@pytest.mark.parametrize("name", NAMES)
def test_an_outbox_ends_whatever_its_name_is(name: str, tmp_path: Path, sql: Any) -> None:
    """`run --once` never did, for a % in a name: the client's complaint was taken for a server that is away."""
    outbox_tables.make(tmp_path)
    sql.execute(f"ALTER TABLE outbox RENAME TO {quoted(name)}")
    sql.execute(f"ALTER TABLE {quoted(name)} RENAME n TO {quoted(f'n {name}')}")
    sql.execute(f"INSERT INTO {quoted(name)} ({quoted(f'n {name}')}) VALUES (7)")
    flow = of.Flow("named")
    rows = flow.read(flows.database(tmp_path).outbox(name, schema=flows.schema_of(tmp_path)), name="in")
    rows.append(flows.table(tmp_path, "copy"))
    flow.run(state=tmp_path / "state")
    assert sql.execute(f"SELECT {quoted(f'n {name}')} FROM copy").fetchall() == [(7,)]


def test_changes_are_read_whatever_the_names_are(tmp_path: Path, database: str) -> None:
    """The first reading, in pieces behind a key, and then the stream."""
    luck = random.Random(5)
    each = [*([name, "id", "n"] for name in NAMES), *(["t", name, "n"] for name in NAMES)]
    each += [*(["t", "id", name] for name in NAMES), *(different(luck, 3, most_bytes=NAME_BYTES) for _ in range(6))]
    for number, (table, key, column) in enumerate(each):
        world = World(database, f"{flows.schema_of(tmp_path)}_{number}")
        name = quoted(table)
        world.do(f"CREATE TABLE {name} ({quoted(key)} int PRIMARY KEY, {quoted(column)} int)")
        world.do(f"INSERT INTO {name} SELECT g, g FROM generate_series(1, 501) g")
        try:
            rows, place = world.drain(world.open(table))
            assert brief(rows, key, column) == [("upsert", n, n) for n in range(1, 502)], (table, key, column)
            world.do(f"INSERT INTO {name} VALUES (900, 9)", f"DELETE FROM {name} WHERE {quoted(key)} = 1")
            rows, _ = world.drain(world.open(table), json.loads(json.dumps(place)))
            assert brief(rows, key) == [("upsert", 900), ("delete", 1)]
        finally:
            world.close()
            drop_slot(world.slot)
