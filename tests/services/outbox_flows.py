"""Flows out of an outbox that are killed, each with its judge. What is judged is read by the clients alone.

Every row that is inserted stands in a second table as well, by the same transaction: so the truth outlives cleaning.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import flows as crash_flows
from tests.crash import oracle
from tests.crash.oracle import Count
from tests.services import outbox_tables as tables
from tests.services import postgres_flows as flows

SCHEMA = {"id": "BIGINT", "merchant": "VARCHAR", "amount": "DECIMAL(18,2)"}
COLUMNS = "merchant text, amount numeric(18,2)"
WAVES, FIRST_WAVES = 4, 3
ROWS = 30
"""Of each of the four transactions of a wave."""


def arrive(folder: Path, life: int) -> bool:
    """Four transactions at a time, begun in one order and committed in another, one of them rolled back."""
    outbox = tables.make(folder, COLUMNS)
    truth = f"{flows.schema_of(folder)}.truth"
    wanted = min(WAVES, FIRST_WAVES + life)
    with tables.connect(autocommit=True) as connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {truth} (wave integer, id bigint, {COLUMNS})")
        there = connection.execute(f"SELECT coalesce(max(wave), 0) FROM {truth}").fetchone()[0]
    for wave in range(there + 1, wanted + 1):
        _insert(outbox, truth, wave)
    return wanted == WAVES


def _insert(outbox: str, truth: str, wave: int) -> None:
    writers = [tables.connect() for _ in range(4)]
    statement = (
        f"WITH fresh AS (INSERT INTO {outbox} (merchant, amount) SELECT 'm' || g %% 5, g + %s / 100.0 "
        f"FROM generate_series(1, {ROWS // 3}) g RETURNING id, merchant, amount) "
        f"INSERT INTO {truth} SELECT %s, * FROM fresh"
    )
    for turn in range(3):
        for number in (2, 0, 3, 1) if turn % 2 else (1, 3, 0, 2):
            writers[number].execute(statement, [number, wave])
    writers[3].rollback()
    for number in (2, 1, 0):
        writers[number].commit()
    for writer in writers:
        writer.close()


def _read(folder: Path, flow: of.Flow, **how: Any) -> Any:
    outbox = flows.database(folder).outbox("outbox", schema=flows.schema_of(folder), **how)
    return flow.read(outbox, schema=SCHEMA, name="in")


def _flow(folder: Path, **how: Any) -> of.Flow:
    flow = of.Flow("outbox", **crash_flows.TINY)
    rows = _read(folder, flow, **how)
    rows.append(of.sqlite(str(folder / "copy.sqlite")).table("copy"))
    rows.append(flows.table(folder, "mirror"))
    totals = rows.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    totals.upsert(flows.table(folder, "totals"), key="merchant")
    return flow


def kept(folder: Path) -> of.Flow:
    """Rows stay in the outbox."""
    return _flow(folder)


def cleaned(folder: Path) -> of.Flow:
    """Settled rows go."""
    return _flow(folder, delete_settled=True)


def judge(folder: Path) -> Count:
    """Every committed row in both places, and every total."""
    truth = flows.rows(folder, "SELECT id, merchant, amount FROM truth")
    count = Count(events=len(truth))
    mirror = flows.rows(folder, "SELECT id, merchant, amount FROM mirror")
    count.rows("postgres", Counter(truth), Counter(mirror))
    lite = oracle.sqlite_rows(folder / "copy.sqlite", "SELECT id, merchant, amount FROM copy")
    count.rows("sqlite", Counter(truth), Counter((row[0], row[1], Decimal(row[2])) for row in lite))
    expected: dict[str, tuple[int, Decimal]] = {}
    for _, merchant, amount in truth:
        payments, revenue = expected.get(merchant, (0, Decimal(0)))
        expected[merchant] = (payments + 1, revenue + amount)
    totals = flows.rows(folder, "SELECT merchant, payments, revenue FROM totals")
    count.groups("totals", expected, [(row[0], row[1:]) for row in totals])
    if count.events != 3 * ROWS * WAVES:
        count.wrong.append(f"{count.events} rows were inserted")
    return count


KEPT = Subject(build=kept, arrive=arrive, judge=judge)
CLEANED = Subject(build=cleaned, arrive=arrive, judge=judge)
