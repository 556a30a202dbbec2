"""Spark compacts, expires, vacuums and writes a table while a flow's sink is about to commit to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold import disk
from onefold.errors import SinkUnavailable
from onefold.testing.contract_case import SinkBench, SinkCase, move, token
from services.iceberg import VARIABLE, running
from services.jars import ServiceMissing
from tests.services import iceberg_rest_flows
from tests.services.iceberg_rest_oracle import namespace_of
from tests.services.spark import Ask, jars_of, spark_with

pytestmark = pytest.mark.heavy

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])


@dataclass(frozen=True)
class World:
    """Tables that Spark and the sinks share. words: Spark's statements, by what they do; {t} is the table."""

    ask: Ask
    step: str
    make: Callable[[Path, str, Any, tuple[str, ...]], Any]
    named: Callable[[Path], str]
    words: dict[str, str]

    def bench(self, folder: Path, mode: Any) -> SinkBench:
        """Of the table `target`."""
        return SinkBench(SinkCase("shared", self.make), folder, mode, ("id",) if mode == "upsert" else (), SCHEMA)

    def do(self, what: str, folder: Path) -> list[list[str]]:
        """Spark's answer."""
        found: list[list[str]] = self.ask(do="call", text=self.words[what].format(t=self.named(folder)))
        return found


ROWS = "SELECT id, name FROM {t} ORDER BY id"
ICEBERG = {
    "rows": ROWS,
    "compact": "CALL lake.system.rewrite_data_files(table => '{t}', options => map('rewrite-all', 'true'))",
    "tidy": "CALL lake.system.rewrite_manifests('{t}')",
    "expire": "CALL lake.system.expire_snapshots(table => '{t}', older_than => TIMESTAMP '2100-01-01')",
    "purge": "CALL lake.system.expire_snapshots(table => '{t}', older_than => TIMESTAMP '2100-01-01')",
    "append": "INSERT INTO {t} VALUES (100, 'foreign')",
    "update": "UPDATE {t} SET name = 'foreign' WHERE id = 1",
}
DELTA = {
    "rows": ROWS,
    "compact": "OPTIMIZE {t}",
    "tidy": "ALTER TABLE {t} SET TBLPROPERTIES ('delta.logRetentionDuration' = 'interval 30 days')",
    "expire": "VACUUM {t}",
    "purge": "VACUUM {t} RETAIN 0 HOURS",
    "append": "INSERT INTO {t} VALUES (100, 'foreign')",
    "update": "UPDATE {t} SET name = 'foreign' WHERE id = 1",
}


@pytest.fixture(scope="module", params=["delta", "iceberg"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    try:
        jars = jars_of(request.param)
        if request.param == "delta":
            with spark_with("delta", jars, {"spark.databricks.delta.retentionDurationCheck.enabled": "false"}) as ask:
                yield World(ask, "delta.commit", _delta, lambda folder: f"delta.`{folder / 'target'}`", DELTA)
            return
        with running() as address, pytest.MonkeyPatch.context() as named:
            named.setenv(VARIABLE, address)
            catalog = {"": "org.apache.iceberg.spark.SparkCatalog", ".type": "rest", ".uri": address}
            catalog[".cache-enabled"] = "false"
            settings = {f"spark.sql.catalog.lake{name}": value for name, value in catalog.items()}
            with spark_with("iceberg", jars, settings) as ask:
                yield World(
                    ask, "iceberg.commit", _iceberg, lambda folder: f"lake.{namespace_of(folder)}.target", ICEBERG
                )
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(autouse=True)
def unobserved() -> Iterator[None]:
    yield
    disk.observer = None


def _delta(folder: Path, table: str, mode: Any, key: tuple[str, ...]) -> Any:
    return of.delta(str(folder / table)).as_sink(mode, key)


def _iceberg(folder: Path, table: str, mode: Any, key: tuple[str, ...]) -> Any:
    return iceberg_rest_flows.table(folder, table).as_sink(mode, key)


def rows(first: int, last: int, name: str = "ours") -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number in range(first, last)]


def commit_around(sink: Any, receipt: Any, epoch: int, world: World, act: Callable[[], Any]) -> None:
    """Commit, and act when the token is compared and the commit about to be sent; a refusal is tried again, as a run
    does."""

    def observe(name: str, moment: str) -> None:
        if (name, moment) == (world.step, "before"):
            disk.observer = None
            act()

    disk.observer = observe
    try:
        sink.commit([receipt], move(epoch - 1, epoch))
    except SinkUnavailable:
        sink.commit([receipt], move(epoch - 1, epoch))
    assert disk.observer is None, "it was in between"


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("what", ["compact", "tidy", "expire"])
def test_upkeep_by_spark_between_check_and_commit_takes_nothing(
    what: str, mode: Any, world: World, tmp_path: Path
) -> None:
    bench = world.bench(tmp_path, mode)
    sink, _ = bench.instance()
    for epoch in (1, 2, 3):
        sink.commit([bench.prepare(sink, epoch, rows(epoch * 10, epoch * 10 + 5))], move(epoch - 1, epoch))
    receipt = bench.prepare(sink, 4, rows(40, 45))
    commit_around(sink, receipt, 4, world, lambda: world.do(what, tmp_path))
    wanted = [[str(number), "ours"] for epoch in (1, 2, 3, 4) for number in range(epoch * 10, epoch * 10 + 5)]
    assert world.do("rows", tmp_path) == wanted
    again, found = bench.instance()
    assert found == token(4)
    again.commit([bench.prepare(again, 5, rows(50, 51))], move(4, 5))
    world.do("compact", tmp_path)
    world.do("purge", tmp_path)
    assert bench.instance()[1] == token(5)
    assert world.do("rows", tmp_path) == [*wanted, ["50", "ours"]]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_rows_that_spark_writes_between_check_and_commit_stay_beside_ours(
    mode: Any, world: World, tmp_path: Path
) -> None:
    bench = world.bench(tmp_path, mode)
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, rows(0, 3))], move(0, 1))
    receipt = bench.prepare(sink, 2, rows(2 if mode == "upsert" else 3, 5, "later"))
    commit_around(sink, receipt, 2, world, lambda: [world.do(what, tmp_path) for what in ("append", "update")])
    last = "later" if mode == "upsert" else "ours"
    wanted = [["0", "ours"], ["1", "foreign"], ["2", last], ["3", "later"], ["4", "later"], ["100", "foreign"]]
    assert world.do("rows", tmp_path) == wanted
    assert bench.instance()[1] == token(2)
