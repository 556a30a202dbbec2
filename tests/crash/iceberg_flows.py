"""Flows into Iceberg tables that are killed, and their judges. Small: a commit costs 40 ms of computing."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

import onefold as of
from onefold.connectors.iceberg import sink
from onefold.testing.harness import Subject
from tests.crash import flows, iceberg_oracle, inputs
from tests.crash.iceberg_oracle import NAMESPACE, catalog_of, rows_by_duckdb, rows_by_pyiceberg
from tests.crash.oracle import COLUMNS, Count, parquet_rows
from tests.crash.subjects import may_lose, may_repeat

EVENTS = 120
SMALL = {"epoch_rows": 30, "settle_every": "20 milliseconds", "fence_every": "50 milliseconds"}

GIVEN = pa.schema(
    [
        ("event_id", pa.string()),
        ("merchant", pa.string()),
        ("amount", pa.decimal128(18, 2)),
        ("paid_at", pa.timestamp("us")),
    ]
)
GIVEN_PARTS, GIVEN_ROWS = 4, 25


def arrive(folder: Path, life: int) -> bool:
    """A quarter of the usual input."""
    return inputs.arrive(folder, life, events=EVENTS)


def table(folder: Path, name: str, **options: Any) -> Any:
    """An Iceberg table in the folder's catalog, committed to whenever an epoch is there."""
    return of.iceberg((NAMESPACE, name), catalog_of(folder), commit_every=0, **options)


# ------------------------------------------------------------------------------------------------------------- flows


def ledger(folder: Path) -> of.Flow:
    """Append."""
    flow = of.Flow("ledger", **SMALL)
    flows.kept(flow, folder).append(table(folder, "ledger"))
    return flow


def parted(folder: Path) -> of.Flow:
    """Append to hidden partitions."""
    flow = of.Flow("parted", **SMALL)
    flows.kept(flow, folder).append(table(folder, "ledger", partition_by=["hour(paid_at)", "bucket(2, merchant)"]))
    return flow


def totals(folder: Path) -> of.Flow:
    """A running upsert."""
    flow = of.Flow("totals", **SMALL)
    kept = flows.kept(flow, folder)
    kept.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)").upsert(
        table(folder, "totals"), key="merchant"
    )
    return flow


def paced(folder: Path) -> of.Flow:
    """Epochs are gathered for one commit at the end, appended and upserted."""
    flow = of.Flow("paced", **SMALL)
    kept = flows.kept(flow, folder)
    kept.append(of.iceberg((NAMESPACE, "ledger"), catalog_of(folder)))
    kept.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)").upsert(
        of.iceberg((NAMESPACE, "totals"), catalog_of(folder)), key="merchant"
    )
    return flow


def together(folder: Path) -> of.Flow:
    """A table and a data set that move as one."""
    flow = of.Flow("together", commit="together", **SMALL)
    kept = flows.kept(flow, folder).select("*", draw="uuid()::VARCHAR")
    kept.append(table(folder, "ledger"))
    kept.append(of.files(str(folder / "ledger")), name="files")
    return flow


def onward(folder: Path) -> of.Flow:
    """From one table into another."""
    flow = of.Flow("onward", **SMALL)
    read = flow.read(table(folder, "given"), schema=flows.SCHEMA, name="in")
    read.append(table(folder, "ledger"))
    return flow


def arrive_in_a_table(folder: Path, life: int) -> bool:
    """Another writer appends to the table that is read: before the first process, and again with each restart."""
    loaded = iceberg_oracle.made(folder, "given", GIVEN)
    wanted = min(GIVEN_PARTS, life + 2)
    while len(loaded.snapshots()) < wanted:
        first = len(loaded.snapshots()) * GIVEN_ROWS
        loaded.append(pa.Table.from_pylist([_given(n) for n in range(first, first + GIVEN_ROWS)], GIVEN))
    return wanted == GIVEN_PARTS


def _given(number: int) -> dict[str, Any]:
    at = inputs.START + timedelta(seconds=number)
    return {"event_id": f"e{number}", "merchant": f"m{number % 6}", "amount": Decimal(number) / 100, "paid_at": at}


def judge_onward(folder: Path) -> Count:
    """Every row that was given."""
    rows = [tuple(_given(n).values()) for n in range(GIVEN_PARTS * GIVEN_ROWS)]
    count = Count(events=len(rows))
    count.rows("ledger", Counter(rows), Counter(rows_by_duckdb(folder, "ledger", COLUMNS)))
    return count


def weaker(folder: Path, guarantee: str) -> of.Flow:
    """The ledger with a lower guarantee."""
    flow = of.Flow("weaker", guarantee=guarantee, **SMALL)
    flows.kept(flow, folder).append(table(folder, "ledger"), name="topic")
    return flow


def at_least_once(folder: Path) -> of.Flow:
    """A repeated delivery may show."""
    return weaker(folder, "at-least-once")


def at_most_once(folder: Path) -> of.Flow:
    """A delivery may be missing."""
    return weaker(folder, "at-most-once")


def everything_staged() -> None:
    """Every epoch is staged as files of the table."""
    sink.NATIVE_BYTES = 0


# ------------------------------------------------------------------------------------------------------------- judges


def judge_ledger(folder: Path, *, name: str = "ledger") -> Count:
    """Every kept row, as two readers see it."""
    expected, count = flows._expect(folder)
    _count_ledger(folder, expected, count, name)
    return count


def judge_totals(folder: Path) -> Count:
    """Every total."""
    expected, count = flows._expect(folder)
    _count_totals(folder, expected, count)
    return count


def judge_paced(folder: Path) -> Count:
    """Both."""
    expected, count = flows._expect(folder)
    _count_ledger(folder, expected, count, "ledger")
    _count_totals(folder, expected, count)
    return count


def judge_together(folder: Path) -> Count:
    """The same draws in both places."""
    expected, count = flows._expect(folder)
    _count_ledger(folder, expected, count, "ledger")
    count.rows("files", expected.ledger(), Counter(parquet_rows(folder / "ledger")))
    draws = Counter(rows_by_duckdb(folder, "ledger", ["draw"]))
    count.rows("draws", draws, Counter(parquet_rows(folder / "ledger", ["draw"])))
    return count


def judge_weaker(folder: Path) -> Count:
    """The ledger; what of it is promised, the subject says."""
    return judge_ledger(folder, name="topic")


def _count_ledger(folder: Path, expected: Any, count: Count, name: str) -> None:
    found = Counter(rows_by_duckdb(folder, "ledger", COLUMNS))
    count.rows(name, expected.ledger(), found)
    again = Counter(rows_by_pyiceberg(folder, "ledger", COLUMNS))
    if again != found:
        count.wrong.append(f"pyiceberg reads {again.total()} rows, DuckDB {found.total()}")
    files = iceberg_oracle.data_files(folder, "ledger")
    if len(files) != len(set(files)):
        count.wrong.append("a file stands in the table twice")


def _count_totals(folder: Path, expected: Any, count: Count) -> None:
    columns = ("merchant", "payments", "revenue")
    found = rows_by_duckdb(folder, "totals", columns)
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in found])
    if Counter(found) != Counter(rows_by_pyiceberg(folder, "totals", columns)):
        count.wrong.append("pyiceberg and DuckDB read different totals")


ONWARD = Subject(build=onward, arrive=arrive_in_a_table, judge=judge_onward)
LEDGER = Subject(build=ledger, arrive=arrive, judge=judge_ledger)
STAGED = Subject(build=ledger, arrive=arrive, judge=judge_ledger, arrange=(everything_staged,))
PARTED = Subject(build=parted, arrive=arrive, judge=judge_ledger, arrange=(everything_staged,))
TOTALS = Subject(build=totals, arrive=arrive, judge=judge_totals)
PACED = Subject(build=paced, arrive=arrive, judge=judge_paced)
TOGETHER = Subject(build=together, arrive=arrive, judge=judge_together)
AT_LEAST_ONCE = Subject(build=at_least_once, arrive=arrive, judge=judge_weaker, accept=may_repeat)
AT_MOST_ONCE = Subject(build=at_most_once, arrive=arrive, judge=judge_weaker, accept=may_lose)
