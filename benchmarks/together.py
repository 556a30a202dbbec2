"""What it costs that two tables show every epoch together, and how far apart those of PostgreSQL show it.

    python -m benchmarks.together [--epochs 200] [--rounds 3]

One server on the same cores; epochs of 1,000 rows into two tables, in turn by commit="separately", by
commit="together" as two transactions, as two databases would have them (the schemas of the tokens differ), by
commit="together" as one, and by commit="together" with the second table in MariaDB. The window is the time between the
two commits of an epoch, by the server's own clock (track_commit_timestamp), where both are in PostgreSQL. Separate
deliveries join epochs. Writes benchmarks/results/together.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql

import onefold as of
from services.mariadb import MariaDB
from services.postgres import Postgres

RESULTS = Path(__file__).parent / "results" / "together.json"
EPOCH_ROWS = 1000

WINDOW = """
    SELECT abs(extract(epoch FROM pg_xact_commit_timestamp(a.xmin) - pg_xact_commit_timestamp(b.xmin))) * 1000
    FROM a JOIN b USING (id) WHERE id % {rows} = 0
"""

MIXED = "together, with MariaDB"

WAYS: dict[str, tuple[Any, tuple[str, str]]] = {
    "separately": ("separately", ("_onefold", "_onefold")),
    "together, two": ("together", ("_onefold", "_other")),
    "together, one": ("together", ("_onefold", "_onefold")),
    MIXED: ("together", ("_onefold", "_onefold")),
}
"""How a flow commits, and the schema (in MariaDB the database) of each table's token."""


def carry(url: str, mysql_url: str, folder: Path, way: str, epochs: int) -> dict[str, float]:
    """One run into two new tables."""
    commit, tokens = WAYS[way]
    with psycopg.connect(url, autocommit=True) as connection, connect(mysql_url) as other:
        connection.execute("DROP TABLE IF EXISTS a, b; DROP SCHEMA IF EXISTS _onefold, _other CASCADE")
        for statement in ("DROP TABLE IF EXISTS b", "DROP DATABASE IF EXISTS _onefold"):
            ask(other, statement)
        flow = of.Flow("carry", commit=commit, epoch_rows=EPOCH_ROWS)
        rows = flow.read(of.files(str(folder / "*.jsonl")), schema={"id": "BIGINT", "merchant": "VARCHAR"}, name="in")
        for name, schema in zip(("a", "b"), tokens, strict=True):
            is_mysql = (way, name) == (MIXED, "b")
            database: Any = of.mysql(mysql_url, tokens=schema) if is_mysql else of.postgres(url, tokens=schema)
            rows.append(database.table(name, create=True), name=name)
        with tempfile.TemporaryDirectory() as state:
            began = time.perf_counter()
            flow.run(until="drained", state=state)
            taken = time.perf_counter() - began
        window = [] if way == MIXED else connection.execute(WINDOW.format(rows=EPOCH_ROWS)).fetchall()
        apart = sorted(float(row[0]) for row in window)
        for name in ("a", "b"):
            query = f"SELECT count(*), count(DISTINCT id) FROM {name}"
            is_mysql = (way, name) == (MIXED, "b")
            found = ask(other, query)[0] if is_mysql else connection.execute(query).fetchone()
            if found != (epochs * EPOCH_ROWS, epochs * EPOCH_ROWS):
                raise SystemExit(f"{way}: {name} holds {found}")
    if not apart:
        return {"rows/s": epochs * EPOCH_ROWS / taken}
    return {
        "rows/s": epochs * EPOCH_ROWS / taken,
        "window p50, ms": apart[len(apart) // 2],
        "window p99, ms": apart[len(apart) * 99 // 100],
        "longest window, ms": apart[-1],
    }


def connect(url: str) -> Any:
    """To MariaDB, in autocommit."""
    parts = urlsplit(url)
    who = {"user": parts.username, "password": unquote(parts.password or ""), "database": parts.path[1:]}
    return pymysql.connect(host=parts.hostname, port=parts.port or 3306, autocommit=True, **who)


def ask(connection: Any, query: str) -> Any:
    """The rows of an answer."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with (
        Postgres({"track_commit_timestamp": "on"}) as server,
        MariaDB() as other,
        tempfile.TemporaryDirectory() as folder,
    ):
        for epoch in range(args.epochs):
            first = epoch * EPOCH_ROWS
            lines = (
                json.dumps({"id": number, "merchant": f"m{number % 97}"}) for number in range(first, first + EPOCH_ROWS)
            )
            (Path(folder) / f"{epoch:05d}.jsonl").write_text("\n".join(lines) + "\n")
        for _ in range(args.rounds):
            for way in WAYS:
                found = carry(server.url, other.url, Path(folder), way, args.epochs)
                runs[way].append(found)
                print(f"{way:22}", {name: round(value, 2) for name, value in found.items()}, flush=True)
    medians: dict[str, Any] = {
        way: {name: statistics.median(run[name] for run in each) for name in each[0]} for way, each in runs.items()
    }
    told = {"epochs": args.epochs, "epoch_rows": EPOCH_ROWS, "median": medians, "rounds": runs, "cores": os.cpu_count()}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
