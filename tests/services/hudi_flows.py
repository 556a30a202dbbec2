"""Flows into Hudi tables that are killed, each with its judge, which reads by hudi-rs alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import flows, inputs
from tests.crash.oracle import Count
from tests.crash.subjects import may_lose, may_repeat

FEW = {**flows.SMALL, "epoch_rows": 200}
"""A commit takes a third of a second, so that there are few."""

LEDGER = ("event_id", "merchant", "amount", "paid_at")


Table = Callable[[Path, str], Any]
"""A table for a flow, or the reader of one, of a schedule's folder."""


def table(folder: Path, name: str) -> Any:
    """A table that is committed to as fast as can be."""
    return of.hudi(str(folder / name), commit_every=0)


def _zoned(rows: Any) -> Any:
    """hudi-rs 0.5.0 cannot read timestamps without a zone."""
    return rows.select("event_id", "merchant", "amount", paid_at="paid_at AT TIME ZONE 'UTC'")


def ledger(folder: Path) -> of.Flow:
    """Append and a running upsert."""
    return ledger_into(folder, table)


def ledger_into(folder: Path, tables: Table) -> of.Flow:
    """Append and a running upsert, into tables wherever they are."""
    flow = of.Flow("ledger", **FEW)
    kept = flows.kept(flow, folder)
    totals = kept.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    _zoned(kept).append(tables(folder, "ledger"))
    totals.upsert(tables(folder, "totals"), key="merchant")
    return flow


def plain(folder: Path, guarantee: str = "exactly-once") -> of.Flow:
    """The ledger alone: whatever is delivered twice shows."""
    return plain_into(folder, table, guarantee)


def plain_into(folder: Path, tables: Table, guarantee: str = "exactly-once") -> of.Flow:
    """The ledger alone, wherever it is."""
    flow = of.Flow("plain", guarantee=guarantee, **FEW)
    _zoned(flows.kept(flow, folder)).append(tables(folder, "ledger"), name="topic")
    return flow


def at_least_once(folder: Path) -> of.Flow:
    """A repeated delivery may show."""
    return plain(folder, "at-least-once")


def at_most_once(folder: Path) -> of.Flow:
    """A delivery may be missing."""
    return plain(folder, "at-most-once")


def reader(folder: Path, name: str) -> Any:
    """hudi-rs' reader of a table; None where nothing was written."""
    from hudi import HudiTableBuilder

    timeline = folder / name / ".hoodie" / "timeline"
    if not list(timeline.glob("*.commit")):
        return None
    return HudiTableBuilder.from_base_uri((folder / name).as_uri()).build()


def rows_of(table: Any, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """What a reader finds."""
    batches = table.read() if table is not None else []
    return [
        tuple(row[name] for name in columns) for batch in batches for row in batch.select(list(columns)).to_pylist()
    ]


def _ledger_rows(table: Any) -> Counter[Any]:
    return Counter((*row[:3], row[3].replace(tzinfo=None)) for row in rows_of(table, LEDGER))


def judge_ledger(folder: Path) -> Count:
    """Every row, every total."""
    return judge_ledger_in(folder, reader)


def judge_ledger_in(folder: Path, readers: Table) -> Count:
    """Every row, every total, wherever the tables are."""
    expected, count = flows._expect(folder)
    count.rows("ledger", expected.ledger(), _ledger_rows(readers(folder, "ledger")))
    totals = rows_of(readers(folder, "totals"), ("merchant", "payments", "revenue"))
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in totals])
    return count


def judge_plain(folder: Path) -> Count:
    """The ledger; what of it a lower guarantee promises, the test says."""
    return judge_plain_in(folder, reader)


def judge_plain_in(folder: Path, readers: Table) -> Count:
    """The ledger, wherever it is."""
    expected, count = flows._expect(folder)
    count.rows("topic", expected.ledger(), _ledger_rows(readers(folder, "ledger")))
    return count


LEDGERS = Subject(build=ledger, arrive=inputs.arrive, judge=judge_ledger)
PLAIN = Subject(build=plain, arrive=inputs.arrive, judge=judge_plain)
AT_LEAST_ONCE = Subject(build=at_least_once, arrive=inputs.arrive, judge=judge_plain, accept=may_repeat)
AT_MOST_ONCE = Subject(build=at_most_once, arrive=inputs.arrive, judge=judge_plain, accept=may_lose)
