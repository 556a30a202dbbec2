"""The flows that are killed, each built by a top-level function given its folder, each with its judge."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onefold as of
from tests.crash import oracle
from tests.crash.oracle import Count

SCHEMA = {"event_id": "VARCHAR", "merchant": "VARCHAR", "amount": "DECIMAL(18,2)", "paid_at": "TIMESTAMP"}
SMALL = {"epoch_rows": 90, "settle_every": "20 milliseconds", "fence_every": "50 milliseconds"}
"""Small epochs, so that a run has dozens of durable steps."""

TINY = {**SMALL, "epoch_rows": 40, "keep_settled_bytes": 1, "snapshot_every_bytes": 1000}
"""Payloads are freed at once, snapshots come often: so that freeing, stripping and forgetting happen."""


def read(flow: of.Flow, folder: Path) -> Any:
    """Files that are moved into place."""
    return flow.read(
        of.files(str(folder / "in" / "*.jsonl*"), format="json", complete="rename"),
        schema=SCHEMA,
        event_time="paid_at",
        lateness="1 hour",
        name="in",
    )


def kept(flow: of.Flow, folder: Path) -> Any:
    """files -> where -> dedup."""
    return read(flow, folder).where("amount > 0").dedup("event_id", within="7 days")


# ------------------------------------------------------------------------------------------------------------- flows


def revenue(folder: Path) -> of.Flow:
    """The main job: append to a data set, windows into DuckDB."""
    flow = of.Flow("revenue", **SMALL)
    rows = kept(flow, folder)
    hourly = rows.window("1 hour").group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    rows.append(of.files(str(folder / "ledger")))
    hourly.upsert(of.duckdb(str(folder / "hourly.duckdb")).table("hourly"), key=["merchant", "window_start"])
    return flow


def ledgers(folder: Path) -> of.Flow:
    """The same rows into four sinks: Parquet, JSON lines, DuckDB, SQLite."""
    flow = of.Flow("ledgers", **SMALL)
    rows = kept(flow, folder)
    rows.append(of.files(str(folder / "ledger")))
    rows.append(of.files(str(folder / "lines"), format="json"))
    rows.append(of.duckdb(str(folder / "ledger.duckdb")).table("ledger_duckdb"))
    rows.append(of.sqlite(str(folder / "ledger.sqlite")).table("ledger_sqlite"))
    return flow


def plain(folder: Path) -> of.Flow:
    """One sink: what negative controls are tried on."""
    flow = of.Flow("plain", **SMALL)
    kept(flow, folder).append(of.sqlite(str(folder / "ledger.sqlite")).table("ledger_sqlite"))
    return flow


def poisoned(folder: Path) -> of.Flow:
    """Usual epochs, for input that is bad from one end to the other."""
    flow = of.Flow("poisoned")
    read(flow, folder).append(of.sqlite(str(folder / "ledger.sqlite")).table("ledger_sqlite"))
    return flow


def lake(folder: Path) -> of.Flow:
    """One data set."""
    flow = of.Flow("lake", **SMALL)
    kept(flow, folder).append(of.files(str(folder / "ledger")))
    return flow


def running(folder: Path) -> of.Flow:
    """Running totals and closed windows, with snapshots and freeing at every turn."""
    flow = of.Flow("running", **TINY)
    rows = kept(flow, folder)
    totals = rows.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    hourly = rows.window("1 hour").group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    totals.upsert(of.sqlite(str(folder / "totals.sqlite")).table("totals"), key=["merchant"])
    hourly.append(of.sqlite(str(folder / "hourly.sqlite")).table("hourly"))
    return flow


def together(folder: Path) -> of.Flow:
    """Two data sets that move as one."""
    flow = of.Flow("together", commit="together", **SMALL)
    rows = kept(flow, folder)
    rows.append(of.files(str(folder / "ledger")))
    rows.append(of.files(str(folder / "lines"), format="json"))
    return flow


def weaker(folder: Path, guarantee: str) -> of.Flow:
    """Every sink with a lower guarantee."""
    flow = of.Flow("weaker", guarantee=guarantee, **SMALL)
    rows = kept(flow, folder)
    rows.append(of.files(str(folder / "ledger")))
    rows.append(of.sqlite(str(folder / "ledger.sqlite")).table("ledger_sqlite"))
    rows.append(of.console())
    return flow


def at_least_once(folder: Path) -> of.Flow:
    """A repeated delivery may show."""
    return weaker(folder, "at-least-once")


def at_most_once(folder: Path) -> of.Flow:
    """A delivery may be missing."""
    return weaker(folder, "at-most-once")


# ------------------------------------------------------------------------------------------------------------- judges

LEDGER = "SELECT event_id, merchant, amount, paid_at FROM {}"


def judge_revenue(folder: Path) -> Count:
    """Every kept row, every window, every dead letter."""
    expected, count = _expect(folder)
    count.rows("ledger", expected.ledger(), Counter(oracle.parquet_rows(folder / "ledger")))
    hourly = oracle.duckdb_rows(
        folder / "hourly.duckdb", "SELECT merchant, window_start, payments, revenue FROM hourly"
    )
    count.groups("hourly", expected.hourly(), [((row[0], row[1]), (row[2], row[3])) for row in hourly])
    return count


def judge_ledgers(folder: Path) -> Count:
    """Every kept row in each of four places."""
    expected, count = _expect(folder)
    ledger = expected.ledger()
    count.rows("parquet", ledger, Counter(oracle.parquet_rows(folder / "ledger")))
    count.rows("lines", ledger, Counter(oracle.json_rows(folder / "lines")))
    duck = oracle.duckdb_rows(folder / "ledger.duckdb", LEDGER.format("ledger_duckdb"))
    count.rows("duckdb", ledger, Counter(duck))
    lite = oracle.sqlite_rows(folder / "ledger.sqlite", LEDGER.format("ledger_sqlite"))
    count.rows("sqlite", ledger, Counter(map(oracle.typed, lite)))
    return count


def judge_plain(folder: Path) -> Count:
    """Every kept row."""
    expected, count = _expect(folder)
    lite = oracle.sqlite_rows(folder / "ledger.sqlite", LEDGER.format("ledger_sqlite"))
    count.rows("sqlite", expected.ledger(), Counter(map(oracle.typed, lite)))
    return count


def judge_poisoned(folder: Path) -> Count:
    """As many dead letters as lines, each with its own bytes; too many to compare one by one."""
    path = oracle.state_of(folder) / "dead-letters.sqlite"
    lines = sum(1 for _ in oracle.lines_of(folder))
    found, distinct = oracle.sqlite_rows(path, "SELECT count(*), count(DISTINCT raw) FROM dead_letters")[0]
    return Count(events=lines, lost=lines - min(lines, distinct), duplicated=found - distinct)


def judge_lake(folder: Path) -> Count:
    """Every kept row."""
    expected, count = _expect(folder)
    count.rows("ledger", expected.ledger(), Counter(oracle.parquet_rows(folder / "ledger")))
    return count


def judge_running(folder: Path) -> Count:
    """Every total; every closed window once."""
    expected, count = _expect(folder)
    rows = oracle.sqlite_rows(folder / "totals.sqlite", "SELECT merchant, payments, revenue FROM totals")
    count.groups("totals", expected.running(), [(row[0], (row[1], oracle.money(row[2]))) for row in rows])
    rows = oracle.sqlite_rows(folder / "hourly.sqlite", "SELECT merchant, window_start, payments, revenue FROM hourly")
    hourly = [((row[0], oracle.moment(row[1])), (row[2], oracle.money(row[3]))) for row in rows]
    count.groups("hourly", expected.hourly(), hourly)
    return count


def judge_together(folder: Path) -> Count:
    """Every kept row in both."""
    expected, count = _expect(folder)
    count.rows("parquet", expected.ledger(), Counter(oracle.parquet_rows(folder / "ledger")))
    count.rows("lines", expected.ledger(), Counter(oracle.json_rows(folder / "lines")))
    return count


def judge_weaker(folder: Path) -> Count:
    """The same in three places; what of it is promised, the test says."""
    expected, count = _expect(folder)
    ledger = expected.ledger()
    count.rows("parquet", ledger, Counter(oracle.parquet_rows(folder / "ledger")))
    lite = oracle.sqlite_rows(folder / "ledger.sqlite", LEDGER.format("ledger_sqlite"))
    count.rows("sqlite", ledger, Counter(map(oracle.typed, lite)))
    count.rows("console", ledger, Counter(oracle.console_rows(folder / "processes.txt")))
    return count


def _expect(folder: Path) -> tuple[oracle.Expected, Count]:
    expected = oracle.expect(folder)
    count = Count(events=expected.events)
    oracle.judge_dead(folder, expected, count)
    return expected, count
