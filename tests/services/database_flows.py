"""Flows into tables of a database server that are killed, and their judges; which server, the others say."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onefold as of
from onefold.engines.embedded.status import history_of
from tests.crash import flows, oracle
from tests.crash.oracle import Count

Table = Callable[[Path, str], Any]
"""The folder's table of a name, as an endpoint."""

Rows = Callable[[Path, str], list[tuple[Any, ...]]]
"""What a query over the folder's tables gives; nothing where there is no table."""


def place_of(folder: Path) -> str:
    """A name that no other folder has."""
    return f"t{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"


def ledger(folder: Path, table: Table) -> of.Flow:
    """Append, a running upsert, and closed windows."""
    flow = of.Flow("ledger", **flows.TINY)
    kept = flows.kept(flow, folder)
    totals = kept.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    hourly = kept.window("1 hour").group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    kept.append(table(folder, "ledger"))
    totals.upsert(table(folder, "totals"), key="merchant")
    hourly.append(table(folder, "hourly"))
    return flow


def together(folder: Path, table: Table, other: Table | None = None) -> of.Flow:
    """Two tables and a data set that show every epoch or none of it; `draw` differs whenever a row is computed.

    other: where the second table is, if not beside the first.
    """
    flow = of.Flow("together", commit="together", **flows.SMALL)
    drawn = flows.kept(flow, folder).select("*", draw="uuid()::VARCHAR")
    totals = drawn.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)", draw="max(draw)")
    drawn.append(table(folder, "ledger"))
    totals.upsert((other or table)(folder, "totals"), key="merchant")
    drawn.append(of.files(str(folder / "ledger")), name="lake")
    return flow


def plain(folder: Path, table: Table, guarantee: str = "exactly-once") -> of.Flow:
    """The ledger alone: whatever is delivered twice shows."""
    flow = of.Flow("plain", guarantee=guarantee, **flows.SMALL)
    flows.kept(flow, folder).append(table(folder, "ledger"), name="topic")
    return flow


def judge_ledger(folder: Path, rows: Rows) -> Count:
    """Every row, every total, every window."""
    expected, count = flows._expect(folder)
    count.rows("ledger", expected.ledger(), Counter(rows(folder, flows.LEDGER.format("ledger"))))
    totals = rows(folder, "SELECT merchant, payments, revenue FROM totals")
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in totals])
    hourly = rows(folder, "SELECT merchant, window_start, payments, revenue FROM hourly")
    count.groups("hourly", expected.hourly(), [(row[:2], row[2:]) for row in hourly])
    kept = len(expected.kept)
    judge_books(count, folder, "ledger", appended={"ledger": kept, "hourly": len(hourly)}, keys={"totals": len(totals)})
    return count


def judge_books(count: Count, folder: Path, flow: str, *, appended: dict[str, int], keys: dict[str, int]) -> None:
    """What the books say that was read and written is what is there. keys: of upserts, each written at least once."""
    history, _ = history_of(flow, oracle.state_of(folder))
    totals = history.newest.totals if history.newest else {"operators": {"in": {"read": 0}}, "sinks": {}}
    if totals["operators"]["in"]["read"] != count.events:
        count.wrong.append(f"books: {totals['operators']['in']} of {count.events} events")
    for sink, wanted in appended.items():
        told = totals["sinks"].get(sink, {"appended": 0})
        if told["appended"] != wanted or told.get("upserted") or told.get("deleted"):
            count.wrong.append(f"books: {told} of {wanted} rows in {sink}")
    for sink, least in keys.items():
        told = totals["sinks"].get(sink, {"upserted": 0})
        if told["upserted"] < least or told.get("appended") or told.get("deleted"):
            count.wrong.append(f"books: {told} of {least} keys in {sink}")


def judge_together(folder: Path, rows: Rows, other: Rows | None = None) -> Count:
    """Every row and every total; the same draws in both ledgers. other: where the totals are."""
    expected, count = flows._expect(folder)
    count.rows("ledger", expected.ledger(), Counter(rows(folder, flows.LEDGER.format("ledger"))))
    totals = (other or rows)(folder, "SELECT merchant, payments, revenue FROM totals")
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in totals])
    count.rows("data set", expected.ledger(), Counter(oracle.parquet_rows(folder / "ledger")))
    draws = Counter(row[0] for row in rows(folder, "SELECT draw FROM ledger"))
    count.rows("draws", draws, Counter(row[0] for row in oracle.parquet_rows(folder / "ledger", ["draw"])))
    kept = len(expected.kept)
    judge_books(count, folder, "together", appended={"ledger": kept, "lake": kept}, keys={"totals": len(totals)})
    return count


def judge_left(count: Count, left: list[str]) -> Count:
    """Nothing prepared is left on the server. left: the names of what is."""
    if left:
        count.wrong.append(f"prepared and never decided: {left}")
    return count


def sifted(folder: Path, table: Table) -> of.Flow:
    """The table takes what it takes; the data set has all."""
    flow = of.Flow("sifted", commit="together", **flows.SMALL)
    kept = flows.kept(flow, folder)
    kept.append(table(folder, "ledger"), refused="dead-letter")
    kept.append(of.files(str(folder / "ledger")), name="lake")
    return flow


SIFTED_TABLE = (
    "CREATE TABLE ledger (event_id varchar(40), merchant varchar(40), amount numeric(18,2), paid_at {}, "
    "CHECK (mod(amount * 100, 5) <> 0))"
)
"""Takes most rows. The type of times is the server's."""


def judge_sifted(folder: Path, rows: Rows) -> Count:
    """Every row is in the table or a dead letter, as the constraint says, and once."""
    expected = oracle.expect(folder)
    count = Count(events=expected.events)
    bad = Counter(row for row in expected.kept if row[2] * 100 % 5 == 0)
    count.rows("ledger", expected.ledger() - bad, Counter(rows(folder, flows.LEDGER.format("ledger"))))
    count.rows("data set", expected.ledger(), Counter(oracle.parquet_rows(folder / "ledger")))
    letters = oracle.sqlite_rows(
        oracle.state_of(folder) / "dead-letters.sqlite", "SELECT raw FROM dead_letters WHERE reason = 'refused'"
    )
    refused = Counter(str(json.loads(raw)["event_id"]) for (raw,) in letters)
    count.rows("dead letters", Counter(row[0] for row in bad.elements()), refused)
    return count


def judge_plain(folder: Path, rows: Rows) -> Count:
    """The ledger; what of it a lower guarantee promises, the test says."""
    expected, count = flows._expect(folder)
    count.rows("topic", expected.ledger(), Counter(rows(folder, flows.LEDGER.format("ledger"))))
    return count
