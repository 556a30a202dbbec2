"""Payment events as JSON lines for the benchmarks: 200 bytes each, seeded, some replayed. Written by DuckDB, fast."""

from __future__ import annotations

from pathlib import Path

import duckdb

__all__ = ["SCHEMA", "write_events"]

SCHEMA = {
    "event_id": "VARCHAR",
    "merchant": "VARCHAR",
    "kind": "VARCHAR",
    "amount": "DECIMAL(18,2)",
    "paid_at": "TIMESTAMP",
    "note": "VARCHAR",
}

_LINE = """
SELECT printf('{{"event_id":"%s","merchant":"m%03d","kind":"%s","amount":%d.%02d,"paid_at":"%s","note":"%s"}}',
    md5(concat({seed}, '-', id)), h % 500, CASE WHEN h % 10 = 0 THEN 'refund' ELSE 'payment' END,
    (h // 7) % 900, (h // 11) % 100,
    strftime(TIMESTAMP '2026-01-01' + INTERVAL (id * 2) MILLISECOND, '%Y-%m-%d %H:%M:%S.%f'),
    substr('settled by the batch of the evening, the reference is unknown', 1, 48 + h % 8)) AS line
FROM (SELECT id, (hash(id + {seed}) % 1000000007)::BIGINT AS h FROM (
    SELECT CASE WHEN hash(n, {seed}) % 10 = 0 THEN greatest(n - 1 - (hash(n) % 5000)::BIGINT, 0) ELSE n END AS id, n
    FROM range({first}, {last}) r(n)) ORDER BY n)
"""


def write_events(folder: Path, events: int, *, files: int, seed: int = 1) -> list[Path]:
    """Write `events` lines over `files` files; one line in ten repeats one of the 5,000 before it."""
    folder.mkdir(parents=True, exist_ok=True)
    con = duckdb.connect()
    paths = []
    for number in range(files):
        path = folder / f"events-{number:03d}.jsonl"
        first, last = events * number // files, events * (number + 1) // files
        if not path.exists():
            query = _LINE.format(seed=seed, first=first, last=last)
            con.execute(
                f"COPY ({query}) TO '{path}' (FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER E'\\x01')"
            )
        paths.append(path)
    return paths
