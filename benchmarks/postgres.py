"""Rows into a table of PostgreSQL, with the token in the same transaction, beside what other clients do without one.

    python -m benchmarks.postgres [--rows 1000000] [--rounds 3]

One server on the same cores. Each round runs every contestant in turn, in deliveries of 100,000 rows. Upserts go into a
table that already holds half of the keys. Every table is counted afterwards. Writes benchmarks/results/postgres.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

import onefold as of
from benchmarks.delivering import Ours, deliveries
from onefold.types import Mode
from services import postgres

RESULTS = Path(__file__).parent / "results" / "postgres.json"
DELIVERY_ROWS = 100_000
COLUMNS = "id bigint, merchant text, amount numeric(18,2), paid_at timestamp"
"""Of the table; an upsert's has id as its primary key."""


def ours(url: str, folder: Path, table: str, mode: Mode) -> Ours:
    """The sink itself: rows into the spool, then one transaction a delivery, with the token's move."""
    sink = of.postgres(url).table(table).as_sink(mode, ("id",) if mode == "upsert" else ())
    return Ours(sink, folder, table, mode)


class Adbc:
    """A bulk load by the Arrow driver; a repeated delivery would show."""

    def __init__(self, url: str, folder: Path, table: str, mode: Mode) -> None:
        self._connection, self._table = adbc.connect(url), table

    def write(self, rows: pa.Table) -> None:
        """One delivery."""
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest(self._table, rows, mode="append")
        self._connection.commit()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class RowByRow:
    """COPY of Python tuples, or INSERT … ON CONFLICT by executemany; a repeated append would show."""

    def __init__(self, url: str, folder: Path, table: str, mode: Mode) -> None:
        self._connection, self._table, self._mode = psycopg.connect(url), table, mode

    def write(self, rows: pa.Table) -> None:
        """One delivery."""
        tuples = zip(*(column.to_pylist() for column in rows.columns), strict=True)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            if self._mode == "append":
                with cursor.copy(f"COPY {self._table} FROM STDIN") as copy:
                    for row in tuples:
                        copy.write_row(row)
                return
            cursor.executemany(
                f"INSERT INTO {self._table} VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET "
                "merchant = excluded.merchant, amount = excluded.amount, paid_at = excluded.paid_at",
                list(tuples),
            )

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


CONTESTANTS: dict[Mode, dict[str, Callable[..., Any]]] = {
    "append": {"onefold exactly-once": ours, "ADBC ingest": Adbc, "psycopg COPY": RowByRow},
    "upsert": {"onefold exactly-once": ours, "psycopg executemany": RowByRow},
}


def measure(url: str, make: Callable[..., Any], mode: Mode, rows: int, table: str) -> float:
    """Rows a second into a table that is made anew; half of an upsert's keys are there before."""
    with psycopg.connect(url, autocommit=True) as connection, tempfile.TemporaryDirectory() as folder:
        key = ", PRIMARY KEY (id)" if mode == "upsert" else ""
        connection.execute(f"CREATE TABLE {table} ({COLUMNS}{key})")
        if mode == "upsert":
            for part in deliveries(0, rows, DELIVERY_ROWS):
                contestant = Adbc(url, Path(folder), table, "append")
                contestant.write(part.filter(pc.equal(pc.bit_wise_and(part["id"], 1), 0)))
                contestant.close()
        connection.execute("CHECKPOINT")
        contestant = make(url, Path(folder), table, mode)
        tables = list(deliveries(0, rows, DELIVERY_ROWS))
        began = time.perf_counter()
        for part in tables:
            contestant.write(part)
        taken = time.perf_counter() - began
        contestant.close()
        found = connection.execute(f"SELECT count(*), count(DISTINCT id) FROM {table}").fetchone()
        if found != (rows, rows):
            raise SystemExit(f"{table} holds {found} rows and ids instead of {rows}")
        connection.execute(f"DROP TABLE {table}")
    return rows / taken


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {
        mode: {name: [] for name in makes} for mode, makes in CONTESTANTS.items()
    }
    with postgres.running() as url:
        for number in range(args.rounds):
            for mode, makes in CONTESTANTS.items():
                for place, (name, make) in enumerate(makes.items()):
                    found[mode][name].append(measure(url, make, mode, args.rows, f"{mode}_{number}_{place}"))
                    print(f"{mode:8} {name:22} {found[mode][name][-1]:>10,.0f} rows/s", flush=True)
    medians = {mode: {name: statistics.median(runs) for name, runs in rows.items()} for mode, rows in found.items()}
    told = {"rows": args.rows, "median rows/s": medians, "rounds": found, "cores": os.cpu_count()}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
