"""Spark reads what the Delta and Iceberg sinks wrote, row for row: every type, upserts, deletes, partitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.spooling import OP_COLUMN
from onefold.testing.contract_case import SinkBench, SinkCase, move
from services.jars import ServiceMissing
from tests.services.lake_rows import SHOWN, TYPES, typed
from tests.services.spark import Ask, jars_of, spark_with

pytestmark = pytest.mark.heavy


@dataclass(frozen=True)
class Lake:
    """A table format, and Spark to read it."""

    kind: str
    ask: Ask

    def bench(self, folder: Path, schema: pa.Schema, mode: Any = "append", **options: Any) -> SinkBench:
        """Of one table."""

        def make(place: Path, table: str, mode: Any, key: tuple[str, ...]) -> Any:
            if self.kind == "delta":
                return of.delta(str(place / table), **options).as_sink(mode, key)
            catalog = {"type": "sql", "uri": f"sqlite:///{place}/catalog.db", "warehouse": f"file://{place}"}
            return of.iceberg(("lake", table), catalog, **options).as_sink(mode, key)

        return SinkBench(SinkCase(self.kind, make), folder, mode, ("id",) if mode == "upsert" else (), schema)

    def rows(self, folder: Path, text: str) -> list[list[str]]:
        """What a query finds; {table} is the table's name in it."""
        found: list[list[str]] = self.ask(do="sql", table=self._place(folder), text=text)
        return found

    def _place(self, folder: Path) -> str:
        """The folder; of Iceberg the newest metadata, for the catalog is pyiceberg's."""
        if self.kind == "delta":
            return str(folder / "target")
        return str(max((folder / "lake" / "target" / "metadata").glob("*.metadata.json")))


@pytest.fixture(scope="module", params=["delta", "iceberg"])
def lake(request: pytest.FixtureRequest) -> Iterator[Lake]:
    try:
        jars = jars_of(request.param)
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    with spark_with(request.param, jars) as asked:
        yield Lake(request.param, asked)


def test_spark_reads_every_type_and_the_last_of_each_key(lake: Lake, tmp_path: Path) -> None:
    bench = lake.bench(tmp_path, TYPES, "upsert")
    sink, _ = bench.instance()
    nothing = {name: 9 if name == "id" else None for name in TYPES.names}
    sink.commit([bench.prepare(sink, 1, [*map(typed, range(3)), nothing])], move(0, 1))
    sink.commit([bench.prepare(sink, 2, [{**typed(2), "name": "new"}])], move(1, 2))
    rows = lake.rows(tmp_path, f"SELECT {', '.join(TYPES.names)} FROM {{table}} ORDER BY id")
    assert rows[2] == SHOWN
    assert [row[0] for row in rows] == ["0", "1", "2", "9"]
    assert rows[3][1:] == ["None"] * (len(TYPES) - 1)


def test_spark_sees_no_row_that_was_deleted(lake: Lake, tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("name", pa.string()), (OP_COLUMN, pa.string())])
    bench = lake.bench(tmp_path, schema, "upsert")
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, [{"id": n, "name": "a", OP_COLUMN: "upsert"} for n in range(5)])], move(0, 1))
    gone = [{"id": n, "name": None, OP_COLUMN: "delete"} for n in (1, 3, 7)]
    sink.commit([bench.prepare(sink, 2, gone)], move(1, 2))
    assert lake.rows(tmp_path, "SELECT id, name FROM {table} ORDER BY id") == [["0", "a"], ["2", "a"], ["4", "a"]]


def test_spark_reads_partitions_and_an_added_column(lake: Lake, tmp_path: Path) -> None:
    first = pa.schema([("id", pa.int64()), ("place", pa.string())])
    bench = lake.bench(tmp_path, first, partition_by="place")
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, [{"id": 1, "place": "ü/x"}, {"id": 2, "place": None}])], move(0, 1))
    bench = lake.bench(tmp_path, first.append(pa.field("more", pa.int32())), partition_by="place", evolve=True)
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 2, [{"id": 3, "place": "y", "more": 7}])], move(1, 2))
    rows = lake.rows(tmp_path, "SELECT id, place, more FROM {table} ORDER BY id")
    assert rows == [["1", "ü/x", "None"], ["2", "None", "None"], ["3", "y", "7"]]
