"""What should be in the sinks, from the input alone; what is in them, by plain readers. Imports nothing of onefold."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

LATENESS = timedelta(hours=1)
COLUMNS = ("event_id", "merchant", "amount", "paid_at")


@dataclass
class Count:
    """The judgement: see onefold.testing.harness.Judgement."""

    events: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: list[str] = field(default_factory=list)
    sinks: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """By sink: rows lost, rows too many, and how often the most repeated one stands there."""

    def rows(self, sink: str, expected: Counter[Any], found: Counter[Any]) -> None:
        """Compare two bags of rows."""
        lost, surplus = expected - found, found - expected
        self.lost += lost.total()
        before = self.duplicated
        for row, count in surplus.items():
            if row in expected:
                self.duplicated += count
            else:
                self.wrong.append(f"{sink}: {count} of {row}, which no input gives")
        self.sinks[sink] = (lost.total(), self.duplicated - before, max(found.values(), default=0))

    def groups(self, sink: str, expected: Mapping[Any, Any], found: Iterable[tuple[Any, Any]]) -> None:
        """Compare keyed rows (count, sum): too small a count is a loss, too large a duplicate."""
        rows = list(found)
        table = dict(rows)
        if len(table) != len(rows):
            self.wrong.append(f"{sink}: {len(rows) - len(table)} keys stand there twice")
        for key in expected.keys() | table.keys():
            want, have = expected.get(key, (0, Decimal(0))), table.get(key, (0, Decimal(0)))
            self.lost += max(0, want[0] - have[0])
            self.duplicated += max(0, have[0] - want[0])
            if want != have:
                self.wrong.append(f"{sink}: {key} is {have}, expected {want}")


@dataclass
class Expected:
    """The truth: kept rows in order, and dead letters by (reason is late, raw bytes)."""

    events: int
    kept: list[tuple[Any, ...]]
    dead: Counter[tuple[bool, bytes]]

    def ledger(self) -> Counter[Any]:
        """All kept rows."""
        return Counter(self.kept)

    def hourly(self) -> dict[Any, Any]:
        """(merchant, hour) -> (payments, revenue)."""
        return _grouped(
            ((merchant, paid_at.replace(minute=0, second=0, microsecond=0)), amount)
            for _, merchant, amount, paid_at in self.kept
        )

    def running(self) -> dict[Any, Any]:
        """merchant -> (payments, revenue)."""
        return _grouped((merchant, amount) for _, merchant, amount, _ in self.kept)


def _grouped(pairs: Iterable[tuple[Any, Decimal]]) -> dict[Any, Any]:
    groups: dict[Any, tuple[int, Decimal]] = {}
    for key, amount in pairs:
        count, total = groups.get(key, (0, Decimal(0)))
        groups[key] = (count + 1, total + amount)
    return groups


def lines_of(folder: Path) -> Iterator[bytes]:
    """All input lines in the order of the files' names."""
    for path in sorted((folder / "in").iterdir()):
        body = path.read_bytes()
        yield from (gzip.decompress(body) if path.suffix == ".gz" else body).splitlines()


def expect(folder: Path) -> Expected:
    """Late first (against the largest event time before it), then amount > 0, then the first of each event_id."""
    events, newest = 0, None
    kept: dict[str, tuple[Any, ...]] = {}
    dead: Counter[tuple[bool, bytes]] = Counter()
    for line in lines_of(folder):
        events += 1
        row = _parse(line)
        if row is None:
            dead[False, line] += 1
            continue
        event_id, _, amount, paid_at = row
        if newest is not None and paid_at < newest - LATENESS:
            dead[True, line] += 1
            continue
        newest = paid_at if newest is None else max(newest, paid_at)
        if amount > 0 and event_id not in kept:
            kept[event_id] = row
    return Expected(events, list(kept.values()), dead)


def _parse(line: bytes) -> tuple[Any, ...] | None:
    try:
        event = json.loads(line)
        amount, paid_at = Decimal(event["amount"]), datetime.fromisoformat(event["paid_at"])
    except (ValueError, ArithmeticError, KeyError, TypeError):
        return None
    if amount != amount.quantize(Decimal("0.01")):
        return None
    return event["event_id"], event["merchant"], amount, paid_at


# ------------------------------------------------------------------------------------------------------ what is there


def duckdb_rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows by plain DuckDB; none when the file or table is not there."""
    if not path.exists():
        return []
    with duckdb.connect(str(path), read_only=True) as connection:
        try:
            return connection.execute(sql).fetchall()
        except duckdb.CatalogException:
            return []


def sqlite_rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows by plain SQLite; none when the file or table is not there."""
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return []
    finally:
        connection.close()


def typed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A ledger row of SQLite, or of JSON, as DuckDB and Parquet give it."""
    return row[0], row[1], money(row[2]), moment(row[3])


def money(value: Any) -> Decimal:
    """Exact, whatever it was kept as."""
    return Decimal(str(value))


def moment(value: str) -> datetime:
    """From ISO text."""
    return datetime.fromisoformat(value)


def json_rows(folder: Path) -> list[tuple[Any, ...]]:
    """Rows of all JSON-lines files that a plain reader of the folder sees."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line, parse_float=Decimal)
            found.append(typed(tuple(row[name] for name in COLUMNS)))
    return found


def console_rows(file: Path) -> list[tuple[Any, ...]]:
    """Rows printed whole: name=value, two spaces between. A killed process leaves a torn one, without a line end, and
    the next process prints behind it."""
    found = []
    for line in file.read_text("utf-8").splitlines(keepends=True) if file.exists() else ():
        whole = line[max(line.rfind(f"{COLUMNS[0]}="), 0) :]
        fields = dict(part.partition("=")[::2] for part in whole.strip().split("  "))
        if line.endswith("\n") and list(fields) == list(COLUMNS):
            found.append(typed(tuple(fields[name] for name in COLUMNS)))
    return found


def parquet_rows(folder: Path, columns: Sequence[str] = COLUMNS) -> list[tuple[Any, ...]]:
    """Rows of all Parquet files that a plain reader of the folder sees."""
    rows: list[tuple[Any, ...]] = []
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=list(columns))
        rows += [tuple(row.values()) for row in table.to_pylist()]
    return rows


def state_of(folder: Path) -> Path:
    """The state folder of the process that went on: the newest copy, where there are copies."""
    copies = sorted(folder.glob("copy-*"), key=lambda path: int(path.name.split("-")[1]))
    return copies[-1] if copies else folder / "state"


def judge_dead(folder: Path, expected: Expected, count: Count) -> None:
    """Every undecodable and every late line, with its bytes, once."""
    path = state_of(folder) / "dead-letters.sqlite"
    is_sqlite = path.exists() and path.open("rb").read(6) == b"SQLite"
    rows = (sqlite_rows if is_sqlite else duckdb_rows)(path, "SELECT reason, raw FROM dead_letters")
    count.rows("dead letters", expected.dead, Counter((reason == "late", bytes(raw)) for reason, raw in rows))
