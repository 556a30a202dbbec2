"""JSON bytes into typed columns: onefold's exact decoding beside others that do not promise it.

    python -m benchmarks.decode [--seconds 1.0]

Payment events of 200 bytes, six fields among them a DECIMAL(18,2) and a TIMESTAMP, at 1,000, 10,000 and 100,000 rows a
batch. For each decoder: events a CPU second of the whole process and events a second of wall time, the best run each;
the decoders take turns, so that noise of the machine falls on all. Only onefold refuses 12.345 and the like: pyarrow's
decimals and polars' are rounded or floats, msgspec's and DuckDB's too. Writes benchmarks/results/decode.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.json

from onefold.formats import format_named
from onefold.formats.schema import to_schema

RESULTS = Path(__file__).parent / "results" / "decode.json"
SIZES = (1_000, 10_000, 100_000)
COLUMNS = {
    "event_id": "VARCHAR",
    "merchant": "VARCHAR",
    "amount": "DECIMAL(18,2)",
    "paid_at": "TIMESTAMP",
    "currency": "VARCHAR",
    "note": "VARCHAR",
}
SCHEMA = to_schema(COLUMNS)


class Event(msgspec.Struct):
    """What msgspec decodes into."""

    event_id: str
    merchant: str
    amount: Decimal
    paid_at: datetime
    currency: str
    note: str


def lines(count: int) -> list[bytes]:
    """Seeded events, padded to 200 bytes."""
    draw = random.Random(7)
    made = []
    for _ in range(count):
        event = (
            f'{{"event_id":"{draw.getrandbits(128):032x}","merchant":"m{draw.randrange(20_000):05d}",'
            f'"amount":{draw.randrange(5_000)}.{draw.randrange(100):02d},'
            f'"paid_at":"2026-{draw.randrange(1, 13):02d}-{draw.randrange(1, 28):02d}T{draw.randrange(24):02d}:'
            f'{draw.randrange(60):02d}:{draw.randrange(60):02d}.{draw.randrange(10**6):06d}","currency":"EUR","note":"'
        )
        made.append((event + "n" * (198 - len(event)) + '"}').encode())
    return made


def decoders(batch: list[bytes]) -> dict[str, Callable[[], int]]:
    """Each decodes the batch into Arrow (or polars) columns and returns the number of rows."""
    payload = pa.array(batch, pa.binary())
    joined = b"\n".join(batch)
    csv = pa.array(
        [",".join(map(str, json.loads(line, parse_float=str).values())).encode() for line in batch], pa.binary()
    )
    exact, exact_csv = format_named("json"), format_named("csv")
    con = duckdb.connect()
    fields = [SCHEMA.field(name) for name in COLUMNS]
    many = msgspec.json.Decoder(Event)
    options = pyarrow.json.ParseOptions(explicit_schema=SCHEMA)
    polars_schema = pl.Struct({
        field.name: pl.String if field.type == pa.string() else pl.Float64 if field.name == "amount" else pl.String
        for field in fields
    })  # fmt: skip

    def raw_duckdb() -> int:
        step = max(2048, len(batch) // 32)
        text = payload.cast(pa.string())
        chunks = pa.chunked_array([text.slice(start, step) for start in range(0, len(text), step)])
        con.register("input", pa.table({"v": chunks}))
        found = con.sql(f"SELECT unnest(from_json(v, '{json.dumps(COLUMNS)}')) FROM input").to_arrow_table()
        con.unregister("input")
        return len(found)

    def by_msgspec() -> int:
        events = many.decode_lines(joined)
        return len(pa.table({f.name: pa.array([getattr(e, f.name) for e in events], f.type) for f in fields}))

    return {
        "onefold json (exact)": lambda: len(exact.decode(payload, SCHEMA, is_lenient=False).rows),
        "onefold csv (exact)": lambda: len(exact_csv.decode(csv, SCHEMA, is_lenient=False).rows),
        "duckdb from_json": raw_duckdb,
        "pyarrow.json": lambda: len(pyarrow.json.read_json(io.BytesIO(joined), parse_options=options)),
        "msgspec": by_msgspec,
        "polars json_decode (floats, text times)": lambda: (
            pl.Series(pl.from_arrow(payload.cast(pa.string()))).str.json_decode(polars_schema).len()
        ),
    }


def measure(batch: list[bytes], seconds: float) -> list[dict[str, Any]]:
    """The best of many turns of each decoder."""
    runs = decoders(batch)
    best: dict[str, list[float]] = {name: [float("inf"), float("inf")] for name in runs}
    turns, until = 0, time.perf_counter() + seconds * len(runs)
    while turns < 3 or time.perf_counter() < until:
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            rows = run()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if rows != len(batch):
                raise SystemExit(f"{name} gave {rows} rows of {len(batch)}")
            best[name] = [min(best[name][0], cpu), min(best[name][1], wall)]
        turns += 1
    return [
        {
            "decoder": name, "rows": len(batch), "turns": turns, "cpu_ms": round(cpu * 1e3, 3),
            "events_per_cpu_second": round(len(batch) / cpu), "events_per_second": round(len(batch) / wall),
        }
        for name, (cpu, wall) in best.items()
    ]  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each decoder and size")
    seconds = parser.parse_args().seconds
    load_before, results = os.getloadavg()[0], []
    for size in SIZES:
        for result in measure(lines(size), seconds):
            results.append(result)
            per_cpu, per_wall = result["events_per_cpu_second"] / 1e6, result["events_per_second"] / 1e6
            print(f"{size:>8,} rows  {result['decoder']:<40} {per_cpu:6.2f} M/CPU s {per_wall:6.2f} M/s")
    RESULTS.parent.mkdir(exist_ok=True)
    about = {"cores": os.cpu_count(), "load_before": load_before, "load_after": os.getloadavg()[0]}
    RESULTS.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
