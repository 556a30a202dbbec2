"""What it costs that two tables of PostgreSQL show every epoch together, and how far apart they show it.

    python -m benchmarks.together [--epochs 200] [--rounds 3]

One server on the same cores; epochs of 1,000 rows into two tables, by commit="separately" and commit="together" in
turn. The window is the time between the two commits of an epoch, by the server's own clock (track_commit_timestamp).
Separate deliveries join epochs. Writes benchmarks/results/together.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import psycopg

import onefold as of
from services.postgres import Postgres

RESULTS = Path(__file__).parent / "results" / "together.json"
EPOCH_ROWS = 1000

WINDOW = """
    SELECT abs(extract(epoch FROM pg_xact_commit_timestamp(a.xmin) - pg_xact_commit_timestamp(b.xmin))) * 1000
    FROM a JOIN b USING (id) WHERE id % {rows} = 0
"""


def carry(url: str, folder: Path, commit: Literal["separately", "together"], epochs: int) -> dict[str, float]:
    """One run into two new tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS a, b; DROP SCHEMA IF EXISTS _onefold CASCADE")
        flow = of.Flow("carry", commit=commit, epoch_rows=EPOCH_ROWS)
        rows = flow.read(of.files(str(folder / "*.jsonl")), schema={"id": "BIGINT", "merchant": "VARCHAR"}, name="in")
        for name in ("a", "b"):
            rows.append(of.postgres(url).table(name, create=True), name=name)
        with tempfile.TemporaryDirectory() as state:
            began = time.perf_counter()
            flow.run(until="drained", state=state)
            taken = time.perf_counter() - began
        apart = sorted(float(row[0]) for row in connection.execute(WINDOW.format(rows=EPOCH_ROWS)))
        for name in ("a", "b"):
            found = connection.execute(f"SELECT count(*), count(DISTINCT id) FROM {name}").fetchone()
            if found != (epochs * EPOCH_ROWS, epochs * EPOCH_ROWS):
                raise SystemExit(f"{commit}: {name} holds {found}")
    return {
        "rows/s": epochs * EPOCH_ROWS / taken,
        "window p50, ms": apart[len(apart) // 2],
        "window p99, ms": apart[len(apart) * 99 // 100],
        "longest window, ms": apart[-1],
    }


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {"separately": [], "together": []}
    with Postgres({"track_commit_timestamp": "on"}) as server, tempfile.TemporaryDirectory() as folder:
        for epoch in range(args.epochs):
            first = epoch * EPOCH_ROWS
            lines = (
                json.dumps({"id": number, "merchant": f"m{number % 97}"}) for number in range(first, first + EPOCH_ROWS)
            )
            (Path(folder) / f"{epoch:05d}.jsonl").write_text("\n".join(lines) + "\n")
        for _ in range(args.rounds):
            for commit in ("separately", "together"):
                found = carry(server.url, Path(folder), commit, args.epochs)  # type: ignore[arg-type]
                runs[commit].append(found)
                print(f"{commit:10}", {name: round(value, 2) for name, value in found.items()}, flush=True)
    medians: dict[str, Any] = {
        commit: {name: statistics.median(run[name] for run in each) for name in each[0]}
        for commit, each in runs.items()
    }
    told = {"epochs": args.epochs, "epoch_rows": EPOCH_ROWS, "median": medians, "rounds": runs, "cores": os.cpu_count()}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
