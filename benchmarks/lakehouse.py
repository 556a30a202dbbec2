"""Rows into tables of lakehouse formats, exactly once, beside what each format's own library does with no guarantee.

    python -m benchmarks.lakehouse [--rows 2000000] [--rounds 3] [--commits 1000]

Each round runs every contestant in turn, on local folders, in deliveries of 200,000 rows; an upsert's table holds half
of its keys before. Ours syncs what it writes, the libraries do not. Every table is counted afterwards. Then so many
commits of one row each: how long the last ones take, and what they leave behind. Writes
benchmarks/results/lakehouse.json.
"""

from __future__ import annotations

import argparse
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
from pyiceberg.catalog.sql import SqlCatalog

import onefold as of
from benchmarks.delivering import Ours, deliveries, events
from onefold.types import Mode

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
        append = make(folder, "append")
        append.write(events(0, rows))
        append.close()
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


def in_turn(measure: Callable[..., Any], rounds: int, size: int) -> dict[str, dict[str, list[Any]]]:
    """What each contestant took, by format: ours, then the library's, again and again."""
    found: dict[str, dict[str, list[Any]]] = {name: {"onefold": [], "library": []} for name in FORMATS}
    for _ in range(rounds):
        for name, (ours, library, count) in FORMATS.items():
            for who, make in (("onefold", ours), ("library", library)):
                found[name][who].append(measure(make, count, size))
                print(f"{measure.__name__:9} {name:8} {who:8} {found[name][who][-1]}", flush=True)
    return found


def medians(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """By format and contestant."""
    return {name: {who: statistics.median(runs) for who, runs in by.items()} for name, by in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commits", type=int, default=1000)
    args = parser.parse_args(arguments)
    rates = in_turn(appended, args.rounds, args.rows)
    merges = in_turn(upserted, args.rounds, DELIVERY_ROWS)
    growth = in_turn(grown, 1, args.commits)
    told = {
        "rows": args.rows,
        "cores": os.cpu_count(),
        "append, rows/s": medians(rates),
        "upsert of 1,000 rows, s": medians(merges),
        f"{args.commits} commits": {name: {who: runs[0] for who, runs in by.items()} for name, by in growth.items()},
        "rounds": {"append": rates, "upsert": merges},
    }
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
