"""Flows into Hudi tables that are killed, each with its judge, which reads by hudi-rs alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onefold as of
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered
from onefold.testing.harness import Subject
from tests.crash import flows, inputs
from tests.crash.oracle import Count
from tests.crash.subjects import may_lose, may_repeat

FEW = {**flows.SMALL, "epoch_rows": 200}
"""A commit takes a third of a second, so that there are few."""

BESIDE_SECONDS = 9.0
"""A successor over Java takes longer than over a disk, and is to be done before a zombie wakes. It waits 10 seconds for
a lock on SQLite's files, which the zombie may hold."""

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


TEMPLATES = "ONEFOLD_TEST_HUDI_TABLES"
"""Holds a folder with two states of one table, "early" and "late"; see `templates`."""

EARLY, LATE, EACH = 3, 5, 4
"""Commits in the two states, and the rows of each commit."""


def templates(folder: Path) -> None:
    """A table that is only inserted into, as it is after some commits and after more."""
    case = SinkCase("hudi", lambda place, name, mode, key: of.hudi(str(place / name)).as_sink(mode, key))
    bench = SinkBench(case, folder)
    sink, _ = bench.instance()
    for epoch in range(1, LATE + 1):
        ids = range((epoch - 1) * EACH, epoch * EACH)
        sink.commit([bench.prepare(sink, epoch, numbered(*ids))], move(epoch - 1, epoch))
        if epoch in (EARLY, LATE):
            shutil.copytree(folder / bench.table, folder / ("early" if epoch == EARLY else "late"))
    sink.close()


def onward(folder: Path) -> of.Flow:
    """A table of Hudi's into one of SQLite's, where whatever is read twice shows."""
    flow = of.Flow("onward", **{**flows.SMALL, "epoch_rows": 3})
    flow.read(of.hudi(str(folder / "from"))).append(of.sqlite(str(folder / "to.sqlite")).table("log"))
    return flow


def table_arrives(folder: Path, life: int) -> bool:
    """Its early state for the first process, its late one for all others."""
    place = Path(os.environ[TEMPLATES]) / ("late" if life else "early")
    shutil.copytree(place, folder / "from", dirs_exist_ok=True)
    return life > 0


def judge_onward(folder: Path) -> Count:
    """Every row once."""
    count = Count(LATE * EACH)
    with sqlite3.connect(folder / "to.sqlite") as found:
        rows = Counter(found.execute("SELECT id FROM log").fetchall())
    count.rows("log", Counter((number,) for number in range(LATE * EACH)), rows)
    return count


ONWARD = Subject(build=onward, arrive=table_arrives, judge=judge_onward)
LEDGERS = Subject(build=ledger, arrive=inputs.arrive, judge=judge_ledger)
PLAIN = Subject(build=plain, arrive=inputs.arrive, judge=judge_plain)
AT_LEAST_ONCE = Subject(build=at_least_once, arrive=inputs.arrive, judge=judge_plain, accept=may_repeat)
AT_MOST_ONCE = Subject(build=at_most_once, arrive=inputs.arrive, judge=judge_plain, accept=may_lose)
