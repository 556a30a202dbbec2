"""Flows into Hudi tables that are killed, each with its judge, which reads by hudi-rs alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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


def table(folder: Path, name: str) -> Any:
    """A table that is committed to as fast as can be."""
    return of.hudi(str(folder / name), commit_every=0)


def _zoned(rows: Any) -> Any:
    """hudi-rs 0.5.0 cannot read timestamps without a zone."""
    return rows.select("event_id", "merchant", "amount", paid_at="paid_at AT TIME ZONE 'UTC'")


def ledger(folder: Path) -> of.Flow:
    """Append and a running upsert."""
    flow = of.Flow("ledger", **FEW)
    kept = flows.kept(flow, folder)
    totals = kept.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    _zoned(kept).append(table(folder, "ledger"))
    totals.upsert(table(folder, "totals"), key="merchant")
    return flow


def plain(folder: Path, guarantee: str = "exactly-once") -> of.Flow:
    """The ledger alone: whatever is delivered twice shows."""
    flow = of.Flow("plain", guarantee=guarantee, **FEW)
    _zoned(flows.kept(flow, folder)).append(table(folder, "ledger"), name="topic")
    return flow


def at_least_once(folder: Path) -> of.Flow:
    """A repeated delivery may show."""
    return plain(folder, "at-least-once")


def at_most_once(folder: Path) -> of.Flow:
    """A delivery may be missing."""
    return plain(folder, "at-most-once")


def read(folder: Path, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of a table, by hudi-rs; none where there is no table."""
    from hudi import HudiTableBuilder

    timeline = folder / ".hoodie" / "timeline"
    if not timeline.is_dir() or not list(timeline.glob("*.commit")):
        return []
    found = []
    for batch in HudiTableBuilder.from_base_uri(folder.as_uri()).build().read():
        found += [tuple(row[name] for name in columns) for row in batch.select(list(columns)).to_pylist()]
    return found


def _ledger_rows(folder: Path) -> Counter[Any]:
    rows = read(folder / "ledger", LEDGER)
    return Counter((*row[:3], row[3].replace(tzinfo=None)) for row in rows)


def judge_ledger(folder: Path) -> Count:
    """Every row, every total."""
    expected, count = flows._expect(folder)
    count.rows("ledger", expected.ledger(), _ledger_rows(folder))
    totals = read(folder / "totals", ("merchant", "payments", "revenue"))
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in totals])
    return count


def judge_plain(folder: Path) -> Count:
    """The ledger; what of it a lower guarantee promises, the test says."""
    expected, count = flows._expect(folder)
    count.rows("topic", expected.ledger(), _ledger_rows(folder))
    return count


LEDGERS = Subject(build=ledger, arrive=inputs.arrive, judge=judge_ledger)
PLAIN = Subject(build=plain, arrive=inputs.arrive, judge=judge_plain)
AT_LEAST_ONCE = Subject(build=at_least_once, arrive=inputs.arrive, judge=judge_plain, accept=may_repeat)
AT_MOST_ONCE = Subject(build=at_most_once, arrive=inputs.arrive, judge=judge_plain, accept=may_lose)
