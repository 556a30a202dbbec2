"""Rows into tables of lakehouse formats, exactly once, beside what each format's own library does with no guarantee.

    python -m benchmarks.lakehouse [--rows 2000000] [--rounds 3] [--commits 1000] [--formats delta iceberg hudi]

Each round runs every contestant in turn, on local folders, in deliveries of 200,000 rows; an upsert's table holds half
of its keys before. Ours syncs what it writes, the libraries do not. Hudi's library is its writer in a local Spark,
which like our Java process is there before the clock starts. Every table is counted afterwards. Then so many commits of
one row each: how long the last ones take, and what they leave behind; a tenth as many for Hudi. Writes
benchmarks/results/lakehouse.json: formats that are not asked for stay as they are there.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog

import onefold as of
from benchmarks.delivering import Ours, deliveries, events
from onefold.connectors.hudi.jars import JARS
from onefold.connectors.hudi.shape import DEFAULTS
from onefold.types import Mode
from services.hudi import fetched

RESULTS = Path(__file__).parent / "results" / "lakehouse.json"
DELIVERY_ROWS = 200_000
UPSERT_ROWS = 1_000
LAST = 20
"""So many of the first and of the last commits are timed."""


class Delta:
    """deltalake by itself."""

    def __init__(self, folder: Path, mode: Mode) -> None:
        self._uri, self._mode = str(folder / "table"), mode

    def write(self, rows: pa.Table) -> None:
        """One commit."""
        if self._mode == "append":
            deltalake.write_deltalake(self._uri, rows, mode="append")
            return
        merging = deltalake.DeltaTable(self._uri).merge(rows, "t.id = s.id", source_alias="s", target_alias="t")
        merging.when_matched_update_all().when_not_matched_insert_all().execute()

    def close(self) -> None:
        """Nothing is held."""


class Iceberg:
    """pyiceberg by itself."""

    def __init__(self, folder: Path, mode: Mode) -> None:
        catalog = iceberg_catalog(folder)
        name, self._mode = "bench.table", mode
        if not catalog.table_exists(name):
            catalog.create_namespace_if_not_exists("bench")
            catalog.create_table(name, events(0, 1).schema, properties=PRUNED)
        self._table = catalog.load_table(name)

    def write(self, rows: pa.Table) -> None:
        """One commit."""
        if self._mode == "append":
            self._table.append(rows)
        else:
            self._table.upsert(rows, ["id"])

    def close(self) -> None:
        """Nothing is held."""


class Hudi:
    """Hudi's own writer in Spark; rows come as Parquet, which both engines take fastest."""

    def __init__(self, folder: Path, mode: Mode) -> None:
        self._folder, self._mode = folder, mode
        self._spark = hudi_spark()

    def write(self, rows: pa.Table) -> None:
        """One commit."""
        file = self._folder / "delivery.parquet"
        pq.write_table(rows, file)
        options = {
            "hoodie.table.name": "table",
            "hoodie.datasource.write.recordkey.field": "id",
            "hoodie.datasource.write.operation": "insert" if self._mode == "append" else "upsert",
            "hoodie.datasource.write.partitionpath.field": "",
            "hoodie.metadata.enable": "false",
            **{name: DEFAULTS[name] for name in ("hoodie.parquet.compression.codec", "hoodie.index.type")},
        }
        frame = self._spark.read.parquet(str(file))
        frame.write.format("hudi").options(**options).mode("append").save(str(self._folder / "table"))

    def close(self) -> None:
        """The session is used again."""


@functools.cache
def hudi_spark() -> Any:
    """A session with Hudi's bundle, on all cores."""
    from pyspark.sql import SparkSession

    [bundle] = Path(fetched()).glob("hudi-spark*-bundle*.jar")
    builder = SparkSession.builder.master("local[*]").config("spark.jars", str(bundle))
    settings = {
        "spark.ui.enabled": "false",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": "2",
        "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
        "spark.kryo.registrator": "org.apache.spark.HoodieSparkKryoRegistrar",
        "spark.sql.extensions": "org.apache.spark.sql.hudi.HoodieSparkSessionExtension",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "3g",
        "spark.driver.extraJavaOptions": "-Djol.skipHotspotSAAttach=true",
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


PRUNED = {
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
}
"""For the library's table what ours makes its own with, or its metadata grow without end."""


def iceberg_catalog(folder: Path) -> SqlCatalog:
    """One on SQLite, in the folder."""
    return SqlCatalog("default", uri=f"sqlite:///{folder / 'catalog.db'}", warehouse=(folder / "warehouse").as_uri())


def our_delta(folder: Path, mode: Mode) -> Ours:
    """Delta tables, exactly once."""
    sink = of.delta(str(folder / "table")).as_sink(mode, ("id",) if mode == "upsert" else ())
    return Ours(sink, folder / "spool", "table", mode)


def our_iceberg(folder: Path, mode: Mode) -> Ours:
    """Iceberg tables, exactly once."""
    catalog = {
        "type": "sql",
        "uri": f"sqlite:///{folder / 'catalog.db'}",
        "warehouse": (folder / "warehouse").as_uri(),
    }
    sink = of.iceberg("bench.table", catalog).as_sink(mode, ("id",) if mode == "upsert" else ())
    return Ours(sink, folder / "spool", "table", mode)


def our_hudi(folder: Path, mode: Mode) -> Ours:
    """Hudi tables, exactly once; the Java process is there before."""
    os.environ[JARS] = fetched()
    sink = of.hudi(str(folder / "table")).as_sink(mode, ("id",) if mode == "upsert" else ())
    return Ours(sink, folder / "spool", "table", mode)


def rows_of_hudi(folder: Path) -> int:
    """How many a reader sees."""
    return int(hudi_spark().read.format("hudi").load(str(folder / "table")).count())


def rows_of_delta(folder: Path) -> int:
    """How many a reader sees."""
    return int(deltalake.DeltaTable(str(folder / "table")).to_pyarrow_table(columns=["id"]).num_rows)


def rows_of_iceberg(folder: Path) -> int:
    """How many a reader sees."""
    return int(iceberg_catalog(folder).load_table("bench.table").scan(selected_fields=("id",)).to_arrow().num_rows)


Make = Callable[[Path, Mode], Any]
FORMATS: dict[str, tuple[Make, Make, Callable[[Path], int]]] = {
    "delta": (our_delta, Delta, rows_of_delta),
    "iceberg": (our_iceberg, Iceberg, rows_of_iceberg),
    "hudi": (our_hudi, Hudi, rows_of_hudi),
}


def appended(make: Make, count: Callable[[Path], int], rows: int) -> float:
    """Rows a second into a new table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contestant, tables = make(folder, "append"), list(deliveries(0, rows, DELIVERY_ROWS))
        began = time.perf_counter()
        for table in tables:
            contestant.write(table)
        taken = time.perf_counter() - began
        demand(count(folder), rows)
    return rows / taken


def upserted(make: Make, count: Callable[[Path], int], rows: int) -> float:
    """Seconds of one upsert of a thousand rows, half of them new, into a table that holds so many."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = make(folder, "upsert")  # Hudi takes a record key when the table is made
        before.write(events(0, rows))
        before.close()
        contestant = make(folder, "upsert")
        changes = events(rows - UPSERT_ROWS // 2, UPSERT_ROWS)
        began = time.perf_counter()
        contestant.write(changes)
        taken = time.perf_counter() - began
        demand(count(folder), rows + UPSERT_ROWS // 2)
    return taken


def grown(make: Make, count: Callable[[Path], int], commits: int) -> dict[str, float]:
    """Seconds of the first and of the last commits, and what so many of them leave behind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contestant, seconds = make(folder, "append"), []
        for number in range(commits):
            row = events(number, 1)
            began = time.perf_counter()
            contestant.write(row)
            seconds.append(time.perf_counter() - began)
        demand(count(folder), commits)
        files = [path for path in folder.rglob("*") if path.is_file()]
        beside = [path for path in files if path.suffix != ".parquet" or "_delta_log" in path.parts]
        return {
            "first, s": statistics.median(seconds[:LAST]),
            "last, s": statistics.median(seconds[-LAST:]),
            "commits an hour": 3600 * commits / sum(seconds),
            "metadata files": len(beside),
            "metadata MB": sum(path.stat().st_size for path in beside) / 1e6,
        }


def demand(found: int, expected: int) -> None:
    """Every row once."""
    if found != expected:
        raise SystemExit(f"{found} rows instead of {expected}")


def in_turn(
    measure: Callable[..., Any], rounds: int, size: Callable[[str], int], formats: Sequence[str]
) -> dict[str, dict[str, list[Any]]]:
    """What each contestant took, by format: ours, then the library's, again and again."""
    found: dict[str, dict[str, list[Any]]] = {name: {"onefold": [], "library": []} for name in formats}
    for _ in range(rounds):
        for name in formats:
            ours, library, count = FORMATS[name]
            for who, make in (("onefold", ours), ("library", library)):
                found[name][who].append(measure(make, count, size(name)))
                print(f"{measure.__name__:9} {name:8} {who:8} {found[name][who][-1]}", flush=True)
    return found


def medians(found: dict[str, list[float]]) -> dict[str, float]:
    """By contestant."""
    return {who: statistics.median(runs) for who, runs in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    args = parser.parse_args(arguments)
    if "hudi" in args.formats:
        warm(FORMATS["hudi"])

    def commits(name: str) -> int:
        return args.commits // (10 if name == "hudi" else 1)

    rates = in_turn(appended, args.rounds, lambda _: args.rows, args.formats)
    merges = in_turn(upserted, args.rounds, lambda _: DELIVERY_ROWS, args.formats)
    growth = in_turn(grown, 1, commits, args.formats)
    told = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in args.formats:
        told[name] = {
            "rows": args.rows,
            "cores": os.cpu_count(),
            "append, rows/s": medians(rates[name]),
            "upsert of 1,000 rows, s": medians(merges[name]),
            f"{commits(name)} commits": {who: runs[0] for who, runs in growth[name].items()},
            "rounds": {"append": rates[name], "upsert": merges[name]},
        }
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


def warm(contestants: tuple[Make, Make, Callable[[Path], int]]) -> None:
    """Start the machines of Java, and let them compile what they run."""
    *makes, count = contestants
    for make in makes:
        appended(make, count, 2 * DELIVERY_ROWS)


if __name__ == "__main__":
    main()
