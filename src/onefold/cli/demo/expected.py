"""What must come out, worked out by plain DuckDB from the files alone, and what the sinks hold compared with it.

The judge of `onefold demo`: it imports nothing of onefold and reads only the input and the targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

__all__ = ["Found", "Judge"]

_LINES = """
    CREATE TABLE lines AS
    SELECT filename, generate_subscripts(parts, 1) AS number, unnest(parts) AS line
    FROM (SELECT filename, string_split(rtrim(content, chr(10)), chr(10)) AS parts FROM read_text($files))
"""
_TYPED = """
    CREATE TABLE typed AS
    SELECT row_number() OVER (ORDER BY filename, number) AS place, body ->> '$.event_id' AS event_id,
           body ->> '$.merchant' AS merchant, TRY_CAST(body ->> '$.paid_at' AS TIMESTAMP) AS paid_at,
           TRY_CAST(body ->> '$.amount' AS DECIMAL(18, 2)) AS amount,
           amount = TRY_CAST(body ->> '$.amount' AS DECIMAL(38, 15)) AS is_exact
    FROM (SELECT filename, number, CASE WHEN json_valid(line) THEN line ELSE '{}' END AS body FROM lines)
"""
_JUDGED = """
    CREATE TABLE judged AS
    SELECT *, coalesce(paid_at < largest - INTERVAL 10 MINUTE, false) AS is_late
    FROM (SELECT *, max(paid_at) OVER (ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS largest
          FROM typed WHERE is_exact AND paid_at IS NOT NULL)
"""
_PAYMENTS = """
    CREATE TABLE payments AS
    SELECT event_id, merchant, amount, paid_at FROM judged WHERE NOT is_late AND amount > 0
    QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY place) = 1
"""
_MINUTES = """
    CREATE TABLE revenue_by_minute AS
    SELECT merchant, time_bucket(INTERVAL 1 MINUTE, paid_at, TIMESTAMP '1970-01-01') AS window_start,
           count(*) AS payments, sum(amount) AS revenue
    FROM payments GROUP BY ALL
"""
_COUNTS = """
    SELECT (SELECT count(*) FROM lines), (SELECT count(*) FROM payments),
           (SELECT count(*) FROM judged WHERE NOT is_late AND amount > 0) - (SELECT count(*) FROM payments),
           (SELECT count(*) FROM judged WHERE is_late), (SELECT count(*) FROM lines) - (SELECT count(*) FROM judged),
           (SELECT count(*) FROM judged WHERE NOT is_late AND NOT amount > 0)
"""


@dataclass(frozen=True)
class Found:
    """One target compared with what it should hold, as multisets. duplicated: rows too many, or of a wrong value."""

    expected: int
    found: int
    lost: int
    duplicated: int

    @property
    def is_right(self) -> bool:
        """Whether it holds exactly the expected rows."""
        return self.lost == 0 and self.duplicated == 0 and self.expected == self.found


class Judge:
    """Reads the input once, then any number of targets."""

    def __init__(self, folder: Path) -> None:
        """folder: holds events/*.jsonl, which the flow reads in the order of the files' names."""
        self._con = duckdb.connect()
        self._con.execute("SET enable_progress_bar = false")
        self._con.execute(_LINES, {"files": str(folder / "events" / "*.jsonl")})
        for sql in (_TYPED, _JUDGED, _PAYMENTS, _MINUTES):
            self._con.execute(sql)

    def counts(self) -> Mapping[str, int]:
        """Lines read, and what became of them."""
        row = self._con.execute(_COUNTS).fetchone() or ()
        return dict(zip(("read", "kept", "duplicates", "late", "dead", "refunds"), row, strict=True))

    def parquet(self, folder: Path, table: str) -> Found:
        """A Parquet data set, as any reader of the folder sees it."""
        return self._compare(table, "read_parquet($target)", str(folder / "*.parquet"))

    def duckdb(self, file: Path, table: str) -> Found:
        """A table of a DuckDB file."""
        self._con.execute(f"ATTACH '{file}' AS other (READ_ONLY)")
        try:
            return self._compare(table, f"other.{table}", None)
        finally:
            self._con.execute("DETACH other")

    def _compare(self, table: str, target: str, path: str | None) -> Found:
        columns = ", ".join(row[0] for row in self._con.execute(f"DESCRIBE {table}").fetchall())
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE found AS SELECT {columns} FROM {target}", path and {"target": path}
        )
        row = self._con.execute(
            f"""SELECT (SELECT count(*) FROM {table}), (SELECT count(*) FROM found),
                       (SELECT count(*) FROM (SELECT * FROM {table} EXCEPT ALL SELECT * FROM found)),
                       (SELECT count(*) FROM (SELECT * FROM found EXCEPT ALL SELECT * FROM {table}))"""
        ).fetchone()
        return Found(*(row or (0, 0, 0, 0)))
