"""The flows that are killed, each built by a top-level function given its folder, and who judges it."""

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

TINY = {**SMALL, "keep_settled_bytes": 1, "snapshot_every_bytes": 1500}
"""Payloads are freed at once, snapshots come often: so that freeing, stripping and forgetting happen."""


def kept(flow: of.Flow, folder: Path) -> Any:
    """files -> where -> dedup."""
    payments = flow.read(
        of.files(str(folder / "in" / "*.jsonl*"), format="json", complete="rename"),
        schema=SCHEMA,
        event_time="paid_at",
        lateness="10 minutes",
    )
    return payments.where("amount > 0").dedup("event_id", within="7 days")


def revenue(folder: Path) -> of.Flow:
    """The main job: append, and windows into an upsert."""
    flow = of.Flow("revenue", **SMALL)
    rows = kept(flow, folder)
    hourly = rows.window("1 hour").group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    rows.append(of.duckdb(str(folder / "ledger.duckdb")).table("ledger"))
    hourly.upsert(of.duckdb(str(folder / "hourly.duckdb")).table("hourly"), key=["merchant", "window_start"])
    return flow


def judge_revenue(folder: Path) -> Count:
    expected = oracle.expect(folder)
    count = Count(events=expected.events)
    ledger = oracle.duckdb_rows(folder / "ledger.duckdb", "SELECT event_id, merchant, amount, paid_at FROM ledger")
    count.rows("ledger", expected.ledger(), Counter(ledger))
    hourly = oracle.duckdb_rows(
        folder / "hourly.duckdb", "SELECT merchant, window_start, payments, revenue FROM hourly"
    )
    count.groups("hourly", expected.hourly(), [((row[0], row[1]), (row[2], row[3])) for row in hourly])
    oracle.judge_dead(folder, expected, count)
    return count
