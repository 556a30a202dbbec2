"""Flows into tables of a REST catalog that are killed, each with its judge."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onefold as of
from onefold.testing.harness import Subject
from services.iceberg import VARIABLE
from tests.crash import flows, iceberg_flows
from tests.crash.oracle import COLUMNS, Count
from tests.services.iceberg_rest_oracle import namespace_of, rows_by_duckdb, rows_by_pyiceberg

CATALOG = {"type": "rest", "uri": f"${{{VARIABLE}}}"}


def table(folder: Path, name: str) -> Any:
    """A table that is committed to whenever an epoch is there."""
    return of.iceberg((namespace_of(folder), name), CATALOG, commit_every=0)


def ledger(folder: Path) -> of.Flow:
    """Append and a running upsert."""
    flow = of.Flow("ledger", **iceberg_flows.SMALL)
    kept = flows.kept(flow, folder)
    totals = kept.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    kept.append(table(folder, "ledger"))
    totals.upsert(table(folder, "totals"), key="merchant")
    return flow


def plain(folder: Path) -> of.Flow:
    """The ledger alone: what is delivered twice shows."""
    flow = of.Flow("plain", **iceberg_flows.SMALL)
    flows.kept(flow, folder).append(table(folder, "ledger"))
    return flow


def judge_plain(folder: Path) -> Count:
    """Every row, as two readers see it."""
    expected, count = flows._expect(folder)
    found = Counter(rows_by_duckdb(folder, "ledger", COLUMNS))
    count.rows("ledger", expected.ledger(), found)
    if Counter(rows_by_pyiceberg(folder, "ledger", COLUMNS)) != found:
        count.wrong.append("pyiceberg and DuckDB read different rows")
    return count


def judge_ledger(folder: Path) -> Count:
    """Every row, every total."""
    count = judge_plain(folder)
    expected, _ = flows._expect(folder)
    totals = rows_by_duckdb(folder, "totals", ("merchant", "payments", "revenue"))
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in totals])
    return count


LEDGER = Subject(build=ledger, arrive=iceberg_flows.arrive, judge=judge_ledger)
PLAIN = Subject(build=plain, arrive=iceberg_flows.arrive, judge=judge_plain)
