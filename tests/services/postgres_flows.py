"""Flows into PostgreSQL that are killed, each with its judge. What is judged is read by the client alone."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import flows, inputs, oracle
from tests.crash.oracle import Count
from tests.crash.subjects import may_lose, may_repeat
from tests.services import database_flows as common

VARIABLE = "ONEFOLD_POSTGRES"
PROXIED = "ONEFOLD_POSTGRES_PROXIED"
"""Names the way that flows take to the database, where it is not the judge's."""

schema_of = common.place_of


def database(folder: Path) -> Any:
    """The database, with tokens of the folder's own."""
    way = PROXIED if PROXIED in os.environ else VARIABLE
    return of.postgres(f"${{{way}}}", tokens=f"{schema_of(folder)} tokens")


def table(folder: Path, name: str) -> Any:
    """A table in the folder's schema."""
    return database(folder).table(name, schema=schema_of(folder), create=True)


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query over the folder's tables gives; nothing where there is no table."""
    with psycopg.connect(os.environ[VARIABLE]) as connection:
        connection.execute(f"SET search_path TO {schema_of(folder)}")
        try:
            return connection.execute(query).fetchall()
        except psycopg.errors.UndefinedTable:
            return []


def ledger(folder: Path) -> of.Flow:
    """Append, a running upsert, and closed windows."""
    return common.ledger(folder, table)


def together(folder: Path) -> of.Flow:
    """Two tables and a data set that show every epoch or none of it; `draw` differs whenever a row is computed."""
    flow = of.Flow("together", commit="together", **flows.SMALL)
    drawn = flows.kept(flow, folder).select("*", draw="uuid()::VARCHAR")
    totals = drawn.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    drawn.append(table(folder, "ledger"))
    totals.upsert(table(folder, "totals"), key="merchant")
    drawn.append(of.files(str(folder / "ledger")), name="lake")
    return flow


def at_least_once(folder: Path) -> of.Flow:
    """A repeated delivery may show."""
    return common.weaker(folder, table, "at-least-once")


def at_most_once(folder: Path) -> of.Flow:
    """A delivery may be missing."""
    return common.weaker(folder, table, "at-most-once")


def judge_ledger(folder: Path) -> Count:
    """Every row, every total, every window."""
    return common.judge_ledger(folder, rows)


def judge_together(folder: Path) -> Count:
    """Every row and every total; the same draws in both ledgers; nothing prepared is left."""
    expected, count = flows._expect(folder)
    count.rows("ledger", expected.ledger(), Counter(rows(folder, flows.LEDGER.format("ledger"))))
    totals = rows(folder, "SELECT merchant, payments, revenue FROM totals")
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in totals])
    count.rows("data set", expected.ledger(), Counter(oracle.parquet_rows(folder / "ledger")))
    draws = Counter(row[0] for row in rows(folder, "SELECT draw FROM ledger"))
    count.rows("draws", draws, Counter(row[0] for row in oracle.parquet_rows(folder / "ledger", ["draw"])))
    with psycopg.connect(os.environ[VARIABLE]) as connection:
        left = connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall()
    if left:
        count.wrong.append(f"prepared and never decided: {left}")
    return count


def judge_weaker(folder: Path) -> Count:
    """The ledger; what of it is promised, the test says."""
    return common.judge_weaker(folder, rows)


LEDGER = Subject(build=ledger, arrive=inputs.arrive, judge=judge_ledger, close=True)
TOGETHER = Subject(build=together, arrive=inputs.arrive, judge=judge_together)
AT_LEAST_ONCE = Subject(build=at_least_once, arrive=inputs.arrive, judge=judge_weaker, accept=may_repeat)
AT_MOST_ONCE = Subject(build=at_most_once, arrive=inputs.arrive, judge=judge_weaker, accept=may_lose)
