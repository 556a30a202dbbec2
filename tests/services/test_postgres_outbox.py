"""An outbox keeps every contract of sources; its values arrive as they are; a table that changes is noticed."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.postgres import OutboxSource, outbox
from onefold.connectors.postgres.outbox_place import Place
from onefold.connectors.postgres.outbox_rows import _copy, set_session
from onefold.connectors.postgres.outbox_table import Outbox, demand_layout
from onefold.errors import NotSupported, SchemaError, SourceRefused, TargetTaken
from onefold.protocols import Limit
from onefold.testing.contracts import Contract, SourceCase, source_contracts
from tests.services import outbox_tables as tables
from tests.services import postgres_flows as flows

DOWN, ELSEWHERE = "down", "elsewhere"


def _source(folder: Path) -> OutboxSource:
    """Over the folder's outbox; once it is lost, over one of the same name in another database."""
    url = "${ONEFOLD_POSTGRES}"
    if (folder / DOWN).exists():
        url = "postgresql://nobody@127.0.0.1:1/none"
    elif (folder / ELSEWHERE).exists():
        url = (folder / ELSEWHERE).read_text()
    made: OutboxSource = of.postgres(url).outbox("outbox", schema=flows.schema_of(folder)).as_source(None)
    return made


def _feed(folder: Path, numbers: Sequence[int]) -> None:
    """In transactions of seven rows."""
    table = tables.make(folder)
    with tables.connect() as connection:
        for number in numbers:
            connection.execute(f"INSERT INTO {table} (n) VALUES (%s)", [number])
            if number % 7 == 0:
                connection.commit()


def _lose(folder: Path) -> None:
    with tables.connect() as connection:
        url = connection.execute("SELECT current_database()").fetchone()[0]
        there = os.environ[flows.VARIABLE].rsplit(f"/{url}", 1)[0] + "/postgres"
    (folder / ELSEWHERE).write_text(there)
    tables.make(folder, url=there)


CASE = SourceCase(
    "postgres-outbox",
    _source,
    _feed,
    lambda batch: list(batch.column("n").to_pylist()),
    _lose,
    lambda folder: (folder / DOWN).touch(),
)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("contract", source_contracts(CASE), ids=lambda contract: contract.name)
def test_the_source_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)


# ------------------------------------------------------------------------------------------------------------- values

KINDS = """
    truth boolean, small smallint, middle integer, single real, double double precision, words text, short varchar(10),
    padded char(3), raw bytea, amount numeric(18,2), free numeric, day date, clock time, moment timestamp,
    instant timestamptz, millis timestamp(3), name uuid, doc json, binary_doc jsonb, mood mood, counted positive,
    numbers integer[], texts text[], amounts numeric(10,3)[], address inet, pair pair, length interval
"""
DECLARED = {
    "truth": "BOOLEAN", "small": "SMALLINT", "middle": "INTEGER", "single": "REAL", "double": "DOUBLE",
    "words": "VARCHAR", "short": "VARCHAR", "padded": "VARCHAR", "raw": "BLOB", "amount": "DECIMAL(18,2)",
    "free": "DECIMAL(38,10)", "day": "DATE", "clock": "TIME", "moment": "TIMESTAMP", "instant": "TIMESTAMPTZ",
    "millis": "TIMESTAMP", "name": "UUID", "doc": "JSON", "binary_doc": "JSON", "mood": "VARCHAR",
    "counted": "INTEGER", "numbers": "INTEGER[]", "texts": "VARCHAR[]", "amounts": "DECIMAL(10,3)[]",
    "address": "VARCHAR", "pair": "STRUCT(a INTEGER, b VARCHAR)", "length": "VARCHAR",
}  # fmt: skip
WHOLE: dict[str, Any] = {
    "truth": True, "small": -32768, "middle": 2**31 - 1, "single": 0.1, "double": 0.1 + 0.2,
    "words": 'a "b"\n,c\r\n\\N\t漢', "short": "", "padded": "x", "raw": b"\x00\xff\n", "amount": Decimal("-1.50"),
    "free": Decimal("12345.6789000001"), "day": date(2024, 2, 29), "clock": time(23, 59, 59, 999999),
    "moment": datetime.fromisoformat("2024-01-31T01:02:03.000004"),
    "instant": datetime(2024, 1, 31, 1, 2, 3, 500000, UTC),
    "millis": datetime.fromisoformat("1969-12-31T23:59:59.999000"), "name": "3465833f-dda4-459c-bd83-fe1437bba8ec",
    "doc": '{"a": 1.10,\n"b": null}', "binary_doc": '{"a": 1.10}', "mood": "it's, \"so\"", "counted": 5,
    "numbers": [1, None, -3], "texts": ["a", "b,\"c\"", ""], "amounts": [Decimal("1.500")],
    "address": "10.0.0.1", "pair": {"a": 1, "b": "x"}, "length": "P1DT2H",
}  # fmt: skip


@pytest.fixture
def sql(database: str, tmp_path: Path) -> Iterator[Any]:
    with tables.connect(database, autocommit=True) as connection:
        schema = flows.schema_of(tmp_path)
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"SET search_path TO {schema}")
        connection.execute("CREATE TYPE mood AS ENUM ('it''s, \"so\"', 'bad')")
        connection.execute("CREATE TYPE pair AS (a integer, b text)")
        connection.execute("CREATE DOMAIN positive AS integer CHECK (value > 0)")
        yield connection


def _make(sql: Any, columns: str) -> None:
    sql.execute(f"CREATE TABLE outbox (id bigint PRIMARY KEY, {columns}, {tables.COLUMN})")
    sql.execute("CREATE INDEX outbox_order ON outbox (transaction_id, id)")


def _insert_whole(sql: Any, number: int = 1) -> None:
    names = ", ".join(WHOLE)
    values = {**WHOLE, "pair": "(1,x)", "length": "1 day 2 hours"}
    holes = ", ".join(f"%({name})s" for name in values)
    sql.execute(f"INSERT INTO outbox (id, {names}) VALUES (%(id)s, {holes})", {**values, "id": number})


def _flow(folder: Path, schema: object, name: str = "flow", **options: Any) -> of.Flow:
    flow = of.Flow(name)
    endpoint = flows.database(folder).outbox("outbox", schema=flows.schema_of(folder))
    flow.read(endpoint, schema=schema, name="in", **options).append(of.memory(f"{folder} {name}"), name="out")
    return flow


def _rows(folder: Path, name: str = "flow") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = of.memory(f"{folder} {name}").rows()
    return found


def test_values_of_all_types_arrive_as_they_are(tmp_path: Path, sql: Any) -> None:
    _make(sql, KINDS)
    _insert_whole(sql)
    sql.execute("INSERT INTO outbox (id) VALUES (2)")
    summary = _flow(tmp_path, {"id": "BIGINT", **DECLARED}).run(state=tmp_path / "state")
    assert summary.dead == 0
    whole, empty = _rows(tmp_path)
    assert whole["single"] == pytest.approx(0.1, abs=1e-8)
    assert whole["padded"] == "x  ", "as the server shows it"
    wanted = {**WHOLE, "single": whole["single"], "padded": "x  "}
    assert {name: whole[name] for name in WHOLE} == wanted
    assert empty == {"id": 2, **dict.fromkeys(WHOLE)}


def test_without_a_declared_schema_columns_have_the_types_of_the_table(tmp_path: Path, sql: Any) -> None:
    _make(sql, KINDS.replace("free numeric,", "").replace("pair pair,", ""))
    _insert_whole_without(sql, "free", "pair")
    flow = _flow(tmp_path, None)
    flow.run(state=tmp_path / "state")
    [row] = _rows(tmp_path)
    assert {name: row[name] for name in WHOLE if name not in ("free", "pair", "single", "padded")} == {
        name: value for name, value in WHOLE.items() if name not in ("free", "pair", "single", "padded")
    }
    endpoint = flows.database(tmp_path).outbox("outbox", schema=flows.schema_of(tmp_path))
    kinds = endpoint.infer_schema()
    assert kinds.field("amount").type == pa.decimal128(18, 2)
    assert kinds.field("instant").type == pa.timestamp("us", "UTC")
    assert kinds.field("amounts").type == pa.list_(pa.decimal128(10, 3))
    assert "transaction_id" not in kinds.names


def _insert_whole_without(sql: Any, *left_out: str) -> None:
    kept = {**WHOLE, "length": "1 day 2 hours"}
    for name in left_out:
        del kept[name]
    holes = ", ".join(f"%({name})s" for name in kept)
    sql.execute(f"INSERT INTO outbox (id, {', '.join(kept)}) VALUES (1, {holes})", kept)


@pytest.mark.parametrize("kind", ["numeric", "pair", "int4range", "money", "bytea[]", "numeric(40,2)"])
def test_a_type_without_an_exact_one_must_be_declared(kind: str, tmp_path: Path, sql: Any) -> None:
    _make(sql, f"value {kind}")
    with pytest.raises(SchemaError, match="Column value of") as refused:
        _flow(tmp_path, None)
    assert "schema=" in refused.value.next_step
    _flow(tmp_path, {"value": "VARCHAR"}, "declared").run(state=tmp_path / "state")


UNFIT = {
    "amount": ("numeric(18,2)", "DECIMAL(18,2)", "NaN"),
    "free": ("numeric", "DECIMAL(18,2)", "0.125"),
    "day": ("date", "DATE", "infinity"),
    "moment": ("timestamp", "TIMESTAMP", "-infinity"),
    "instant": ("timestamptz", "TIMESTAMPTZ", "0044-03-15 12:00:00+00 BC"),
    "numbers": ("integer[]", "INTEGER[]", "{{1,2},{3,4}}"),
    "clock": ("time", "TIME", "24:00:00"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_value_that_does_not_fit_is_a_dead_letter_and_no_other(name: str, tmp_path: Path, sql: Any) -> None:
    kind, declared, value = UNFIT[name]
    _make(sql, f"{name} {kind}")
    sql.execute(f"INSERT INTO outbox (id, {name}) VALUES (1, NULL), (2, %s), (3, NULL)", [value])
    flow = _flow(tmp_path, {"id": "BIGINT", name: declared})
    summary = flow.run(state=tmp_path / "state")
    assert summary.dead == 1
    assert [row["id"] for row in _rows(tmp_path)] == [1, 3]


def test_floating_point_that_is_no_number_stays_so(tmp_path: Path, sql: Any) -> None:
    _make(sql, "single real, double double precision")
    sql.execute("INSERT INTO outbox VALUES (1, 'NaN', '-Infinity'), (2, 'Infinity', '-0')")
    _flow(tmp_path, {"single": "REAL", "double": "DOUBLE"}).run(state=tmp_path / "state")
    first, second = _rows(tmp_path)
    assert math.isnan(first["single"])
    assert first["double"] == -math.inf
    assert second["single"] == math.inf
    assert math.copysign(1, second["double"]) == -1


def test_names_that_sql_would_take_for_something_else(tmp_path: Path, sql: Any) -> None:
    """Columns named as what is selected, with capitals and quotes; a transaction column named as the query's own."""
    hostile = 'a "b"; DROP'
    quoted = '"' + hostile.replace('"', '""') + '"'
    sql.execute(
        f'CREATE TABLE "Out ""Box" ("Id" integer UNIQUE NOT NULL, {quoted} text, "encode" bytea, '
        '"transaction" xid8 NOT NULL DEFAULT pg_current_xact_id())'
    )
    sql.execute('CREATE INDEX ON "Out ""Box" ("transaction", "Id")')
    for number in range(12):
        sql.execute(f'INSERT INTO "Out ""Box" ("Id", {quoted}, "encode") VALUES (%s, %s, %s)', [number, "x", b"y"])
    source = tables.source(tmp_path, name='Out "Box', id="Id", transaction="transaction")
    source.open(None)
    found, _ = tables.drained(source, {}, Limit(5, 1 << 20))
    source.close()
    assert found == list(range(12))


def test_rows_are_told_apart_by_uuid_as_well(tmp_path: Path, sql: Any) -> None:
    sql.execute(f"CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n integer, {tables.COLUMN})")
    sql.execute("CREATE INDEX ON outbox (transaction_id, id)")
    for first in range(0, 60, 20):
        sql.execute("INSERT INTO outbox (n) SELECT generate_series(%s::int, %s::int)", [first, first + 19])
    source = tables.source(tmp_path)
    source.open(None)
    start: Any = {}
    found: list[int] = []
    for _ in range(20):
        read = source.read(tables.PARTITION, start, Limit(7, 1 << 20), 0.0)
        found += [number for batch in read.batches for number in batch.column("n").to_pylist()]
        start = json.loads(json.dumps(read.next))
    source.close()
    assert sorted(found) == list(range(60))
    assert [sorted(found[begin : begin + 20]) == list(range(begin, begin + 20)) for begin in (0, 20, 40)] == [True] * 3


def test_a_large_row_comes_alone_and_many_small_ones_as_they_fit(tmp_path: Path, sql: Any) -> None:
    _make(sql, "words text")
    sql.execute("INSERT INTO outbox SELECT g, repeat('x', 10) FROM generate_series(1, 1000) g")
    sql.execute("INSERT INTO outbox SELECT g, repeat(E'y\\n', 500000) FROM generate_series(1001, 1020) g")
    sql.execute("INSERT INTO outbox SELECT g, repeat('x', 10) FROM generate_series(1021, 2000) g")
    source = tables.source(tmp_path)
    source.open(None)
    start: Any = {}
    found: list[int] = []
    while True:
        read = source.read(tables.PARTITION, start, Limit(1 << 20, 1 << 16), 0.0)
        start = read.next
        if not read.batches:
            break
        ids = tables.ids_of(read)
        assert len(ids) == 1 or sum(batch.nbytes for batch in read.batches) < 1 << 17
        found += ids
    source.close()
    assert found == list(range(1, 2001))


# -------------------------------------------------------------------------------------------------------------- start


def test_a_flow_that_begins_at_the_end_keeps_to_where_it_began(tmp_path: Path, sql: Any) -> None:
    """Also when it is killed before it has read anything: what it remembers was sealed."""
    _make(sql, "n bigint")
    tables.insert(sql, "outbox", 1, 2)
    source = tables.source(tmp_path, start="latest")
    source.open(None)
    begin, latest = source.partitions()[tables.PARTITION]
    assert begin == latest != {}
    found, read = tables.take(source, begin)
    assert found == []
    assert read.remember is not None
    source.close()
    tables.insert(sql, "outbox", 3)
    source.open(pa.Table.from_batches([read.remember]))
    begin, _ = source.partitions()[tables.PARTITION]
    found, read = tables.take(source, begin)
    assert found == [3]
    assert read.remember is None
    source.close()


def test_it_begins_at_the_end_of_an_empty_table(tmp_path: Path, sql: Any) -> None:
    _make(sql, "n bigint")
    source = tables.source(tmp_path, start="latest")
    source.open(None)
    begin, _ = source.partitions()[tables.PARTITION]
    tables.insert(sql, "outbox", 1)
    assert tables.take(source, begin)[0] == [1]
    source.close()


def test_a_read_that_waits_is_ended_by_closing(tmp_path: Path, sql: Any) -> None:
    _make(sql, "n bigint")
    source = tables.source(tmp_path)
    source.open(None)
    closing = threading.Timer(0.3, source._closed.set)
    closing.start()
    read = source.read(tables.PARTITION, {}, tables.AMPLE, 60.0)
    source.close()
    assert not read.batches


# -------------------------------------------------------------------------------------------------------------- plans


def test_rows_are_found_through_the_index_whatever_the_statistics_say(tmp_path: Path, sql: Any) -> None:
    """Also in a table that was never analysed, and in one of which the planner believes that it is empty."""
    _make(sql, "n bigint")
    sql.execute("ANALYZE outbox")
    sql.execute("INSERT INTO outbox (id, n) SELECT g, g FROM generate_series(1, 20000) g")
    layout = demand_layout(sql, Outbox(flows.database(tmp_path).server, flows.schema_of(tmp_path), "outbox"), ())
    set_session(sql)
    query = _copy(layout, Place(5, 7), 1 << 40, Place(1 << 39, 9), 100).removeprefix("COPY (").split(") TO STDOUT")[0]
    plan = "\n".join(row[0] for row in sql.execute(f"EXPLAIN {query}"))
    assert "Index Scan using outbox_order" in plan
    assert "Index Cond: ((ROW(source.transaction_id, source.id) > ROW('5'::xid8, '7'::bigint))" in plan or (
        "(ROW(transaction_id, id) > ROW('5'::xid8, '7'::bigint))" in plan
    )
    assert "Sort" not in plan
    assert "Filter" not in plan


# ------------------------------------------------------------------------------------------------------------ changes


@pytest.mark.parametrize(
    ("change", "column", "found"),
    [
        ("ALTER TABLE outbox ALTER COLUMN n TYPE numeric(20,1)", "n", "numeric(20,1)"),
        ("ALTER TABLE outbox DROP COLUMN n", "n", "no such column"),
        ("ALTER TABLE outbox RENAME COLUMN n TO m", "n", "no such column"),
        ("ALTER TABLE outbox ALTER COLUMN transaction_id SET DEFAULT '5'", "transaction_id", "xid8 DEFAULT '5'::xid8"),
        ("ALTER TABLE outbox ALTER COLUMN id TYPE integer", "id", "integer"),
    ],
)
def test_a_column_that_is_changed_under_us_is_named(
    change: str, column: str, found: str, tmp_path: Path, sql: Any
) -> None:
    _make(sql, "n bigint, other text")
    source = tables.source(tmp_path)
    source.open(None)
    sql.execute(change)
    with pytest.raises(SourceRefused, match=f"was changed: its column {column}") as refused:
        tables.take(source, {})
    assert refused.value.found == found
    source.close()


def test_columns_that_the_flow_does_not_read_may_change(tmp_path: Path, sql: Any) -> None:
    _make(sql, "n bigint, other text")
    tables.insert(sql, "outbox", 1)
    flow = _flow(tmp_path, {"n": "BIGINT"})
    with flow.start(state=tmp_path / "state") as run:
        sql.execute("ALTER TABLE outbox DROP COLUMN other")
        sql.execute("ALTER TABLE outbox ADD COLUMN more text")
        tables.insert(sql, "outbox", 2)
        waited = threading.Event()
        for _ in range(200):
            if len(_rows(tmp_path)) == 2:
                break
            waited.wait(0.05)
        assert run.is_running
    assert sorted(row["n"] for row in _rows(tmp_path)) == [10, 20]


def test_a_table_that_is_dropped_while_it_is_read_is_refused(tmp_path: Path, sql: Any) -> None:
    _make(sql, "n bigint")
    source = tables.source(tmp_path)
    source.open(None)
    sql.execute("DROP TABLE outbox")
    with pytest.raises(SourceRefused, match="was changed, or is not there"):
        tables.take(source, {})
    source.close()


def test_a_truncated_table_whose_ids_begin_anew_loses_nothing(tmp_path: Path, sql: Any) -> None:
    """Transaction ids go on: what is inserted afterwards is behind every position."""
    table = tables.make(tmp_path)
    source = tables.source(tmp_path)
    source.open(None)
    sql.execute(f"INSERT INTO {table} (n) SELECT generate_series(1, 9)")
    found, start = tables.drained(source, {})
    assert found == list(range(1, 10))
    sql.execute(f"TRUNCATE {table} RESTART IDENTITY")
    sql.execute(f"INSERT INTO {table} (n) SELECT generate_series(1, 4)")
    found, start = tables.drained(source, start)
    assert found == [1, 2, 3, 4]
    sql.execute(f"BEGIN; TRUNCATE {table} RESTART IDENTITY; INSERT INTO {table} (n) VALUES (7); COMMIT")
    assert tables.drained(source, start)[0] == [1]
    source.close()


def test_a_flow_that_writes_to_what_it_reads_is_refused(tmp_path: Path, sql: Any) -> None:
    _make(sql, "n bigint")
    flow = of.Flow("circle")
    database = flows.database(tmp_path)
    rows = flow.read(database.outbox("outbox", schema=flows.schema_of(tmp_path)), schema={"n": "BIGINT"})
    with pytest.raises(TargetTaken, match="would read what it writes"):
        rows.append(database.table("outbox", schema=flows.schema_of(tmp_path)))


def test_an_outbox_is_only_read_and_gives_rows_not_bytes() -> None:
    endpoint = of.postgres("postgresql://somebody@somewhere/shop").outbox("events", schema="app")
    assert endpoint.label == "postgres(postgresql://somebody@somewhere/shop).outbox(app.events)"
    assert endpoint.default_name == "events"
    with pytest.raises(NotSupported, match="typed rows"):
        of.Flow("flow").read(endpoint, schema={"n": "BIGINT"}, format="json")
    with pytest.raises(of.errors.BuildError, match="not read from there"):
        of.postgres("postgresql://somebody@somewhere/shop").outbox("events", start="yesterday")  # type: ignore[arg-type]
    assert isinstance(endpoint.as_source(None), outbox.OutboxSource)
