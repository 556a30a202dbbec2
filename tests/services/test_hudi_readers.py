"""Other engines see what the Hudi sink wrote, and may write beside it: Spark with Hudi's bundle, hudi-rs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered, token
from tests.services import hudi_flows as flows
from tests.services.lake_rows import SHOWN, TYPES, typed
from tests.services.spark import Ask, spark_with

pytestmark = pytest.mark.heavy

SIMPLE = {"hoodie.datasource.write.recordkey.field": "id", "hoodie.upsert.shuffle.parallelism": "1"}


@pytest.fixture(scope="module")
def spark(hudi_jars: str) -> Iterator[Ask]:
    with spark_with("hudi", list(Path(hudi_jars).glob("hudi-spark*-bundle*.jar"))) as asked:
        yield asked


def _bench(folder: Path, schema: pa.Schema, *, mode: Any = "upsert", **options: Any) -> SinkBench:
    case = SinkCase("hudi", lambda place, table, mode, key: of.hudi(str(place / table), **options).as_sink(mode, key))
    return SinkBench(case, folder, mode, ("id",) if mode == "upsert" else (), schema)


@pytest.mark.usefixtures("hudi_machine")
def test_spark_reads_every_type_and_the_last_of_each_key(spark: Ask, tmp_path: Path) -> None:
    bench = _bench(tmp_path, TYPES)
    sink, _ = bench.instance()
    nothing = {name: 9 if name == "id" else None for name in TYPES.names}
    sink.commit([bench.prepare(sink, 1, [*map(typed, range(3)), nothing])], move(0, 1))
    sink.commit([bench.prepare(sink, 2, [{**typed(2), "name": "new"}])], move(1, 2))
    text = f"SELECT {', '.join(TYPES.names)} FROM {{table}} ORDER BY id"
    rows = spark(do="sql", table=str(tmp_path / "target"), text=text)
    assert rows[2] == SHOWN
    assert [row[0] for row in rows] == ["0", "1", "2", "9"]
    assert rows[3][1:] == ["None"] * (len(TYPES) - 1)


@pytest.mark.usefixtures("hudi_machine")
def test_hudi_rs_reads_a_partitioned_table(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("day", pa.date32()), ("place", pa.string())])
    bench = _bench(tmp_path, schema, mode="append", partition_by=["day", "place"])
    sink, _ = bench.instance()
    rows = [
        {"id": at, "day": dt.date(2024, 1, 1 + at % 2), "place": ["a/b", "ü=%", None, ""][at % 4]} for at in range(8)
    ]
    sink.commit([bench.prepare(sink, 1, rows)], move(0, 1))
    sink.commit([bench.prepare(sink, 2, rows[:2])], move(1, 2))
    expected = sorted((row["id"], row["day"]) for row in [*rows, *rows[:2]])
    assert sorted(flows.rows_of(flows.reader(tmp_path, "target"), ("id", "day"))) == expected
    assert sorted((row["id"], row["day"]) for row in bench.look()[0]) == expected


@pytest.mark.usefixtures("hudi_machine")
def test_spark_writes_beside_and_archives_our_commits_and_the_token_stays(spark: Ask, tmp_path: Path) -> None:
    bench = _bench(tmp_path, pa.schema([("id", pa.int64()), ("name", pa.string())]))
    table = str(tmp_path / "target")
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, numbered(1, 2))], move(0, 1))
    few = {"hoodie.keep.min.commits": "2", "hoodie.keep.max.commits": "3", "hoodie.clean.commits.retained": "1"}
    options = {**SIMPLE, **few, "hoodie.table.name": "target", "hoodie.metadata.enable": "false"}
    for number in range(5):
        rows = [{"id": 1, "name": f"spark {number}"}, {"id": 70 + number, "name": "spark"}]
        spark(do="upsert", table=table, rows=rows, schema="id long, name string", options=options)
    active = [path.name for path in (tmp_path / "target/.hoodie/timeline").glob("*.commit")]
    assert len(active) < 5, "our commit was archived"
    later, found = bench.instance(2)
    assert found == token(1)
    later.commit([bench.prepare(later, 2, [{"id": 70, "name": "ours"}])], move(1, 2))
    rows = spark(do="sql", table=table, text="SELECT id, name FROM {table} ORDER BY id")
    assert rows == [["1", "spark 4"], ["2", "n2"], ["70", "ours"], *[[str(70 + n), "spark"] for n in range(1, 5)]]
    assert sorted(flows.rows_of(flows.reader(tmp_path, "target"), ("id",))) == [(int(row[0]),) for row in rows]
