"""From JSON lines to windowed sums in Parquet: exactly-once beside a plain DuckDB script that guarantees nothing.

    python -m benchmarks.payments [--events 10000000] [--rounds 3]

Each round runs, in turn: the floor (one DuckDB query over the files), onefold exactly-once, onefold at-most-once.
Results are compared row by row. Writes benchmarks/results/payments.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.events import SCHEMA, write_events

RESULTS = Path(__file__).parent / "results" / "payments.json"
OUT = "out"


def floor(folder: Path, work: Path) -> None:
    """Everything in one query: no epochs, no journal, nothing that survives a kill."""
    import duckdb

    columns = ", ".join(f"{name}: '{kind}'" for name, kind in SCHEMA.items())
    (work / OUT).mkdir(parents=True)
    duckdb.connect(config={"threads": 2}).execute(f"""
        COPY (
            SELECT merchant, time_bucket(INTERVAL 1 MINUTE, paid_at) AS window_start, count(*) AS payments,
                   sum(amount) AS revenue
            FROM (SELECT DISTINCT ON (event_id) event_id, merchant, amount, paid_at
                  FROM read_json('{folder}/*.jsonl', format = 'newline_delimited', columns = {{{columns}}})
                  WHERE kind <> 'refund')
            GROUP BY ALL
        ) TO '{work / OUT}/floor.parquet' (FORMAT parquet)""")


def onefold(folder: Path, work: Path, guarantee: str) -> None:
    """The same as a flow."""
    import onefold as of

    flow = of.Flow("payments", guarantee=guarantee)
    events = flow.read(of.files(f"{folder}/*.jsonl"), schema=SCHEMA, event_time="paid_at", lateness="1 hour")
    valid = events.where("kind <> 'refund'").dedup("event_id", within=None)
    sums = valid.window("1 minute").group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    sums.append(of.files(str(work / OUT)), name="sums")
    flow.run(until="drained", close=True, state=work / "state")


def check_equal(left: Path, right: Path) -> int:
    """Raises unless both folders hold the same rows. Returns how many."""
    import duckdb

    select = "SELECT merchant, window_start, payments, revenue FROM read_parquet('{}/*.parquet')"
    con = duckdb.connect()
    one, two = select.format(left), select.format(right)
    differ = con.execute(
        f"SELECT count(*) FROM (({one} EXCEPT ALL {two}) UNION ALL ({two} EXCEPT ALL {one}))"
    ).fetchone()
    if differ != (0,):
        raise SystemExit(f"the results differ in {differ} rows: {left} {right}")
    found = con.execute(f"SELECT count(*) FROM ({two})").fetchone()
    return int(found[0]) if found else 0


RUNS = {
    "floor": floor,
    "exactly-once": lambda folder, work: onefold(folder, work, "exactly-once"),
    "at-most-once": lambda folder, work: onefold(folder, work, "at-most-once"),
}


def measure(name: str, folder: Path, work: Path) -> dict[str, float]:
    """One run in a process of its own: wall and CPU seconds, peak memory in MB."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    began = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.payments", "--one", name, str(folder), str(work)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    wall = time.perf_counter() - began
    return {"wall": wall, **json.loads(child.stdout.splitlines()[-1])}


def run_one(name: str, folder: Path, work: Path) -> None:
    """In the child: run, then print what it took."""
    began = time.perf_counter()
    RUNS[name](folder, work)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    scale = 1 if sys.platform == "darwin" else 1024
    print(
        json.dumps(
            {
                "inside": time.perf_counter() - began,
                "cpu": usage.ru_utime + usage.ru_stime,
                "peak_mb": usage.ru_maxrss * scale / 1e6,
            }
        )
    )


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--one", nargs=3, default=None)
    args = parser.parse_args()
    if args.one:
        run_one(args.one[0], Path(args.one[1]), Path(args.one[2]))
        return
    base = args.folder or Path(tempfile.mkdtemp(prefix="onefold-bench-"))
    folder = base / f"events-{args.events}"
    write_events(folder, args.events, files=max(1, args.events // 500_000))
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    for _ in range(args.rounds):
        for name in RUNS:
            rounds[name].append(measure(name, folder, base / name))
            if name != "floor":
                check_equal(base / "floor" / OUT, base / name / OUT)
    report(args.events, rounds)
    if args.folder is None:
        shutil.rmtree(base)


def report(events: int, rounds: dict[str, list[dict[str, float]]]) -> None:
    """Prints the table and writes the results."""
    table = {
        name: {column: statistics.median(one[column] for one in runs) for column in runs[0]}
        for name, runs in rounds.items()
    }
    for name, row in table.items():
        ratio = row["wall"] / table["floor"]["wall"]
        print(
            f"{name:14} {events / row['wall'] / 1e6:5.2f} M events/s  wall {row['wall']:6.1f} s"
            f"  cpu {row['cpu']:6.1f} s  peak {row['peak_mb']:6.0f} MB  {ratio:4.2f} x the floor"
        )
    pairs = zip(rounds["exactly-once"], rounds["at-most-once"], strict=True)
    price = statistics.median(one["wall"] / other["wall"] for one, other in pairs) - 1
    print(f"price of exactly-once over at-most-once: {price:+.1%}")
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"events": events, "cores": os.cpu_count(), "median": table, "rounds": rounds, "price": price}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
