"""Flows into Delta tables that are killed, each with its judge. What is judged is read by DuckDB from the table's log
and files, and again by deltalake."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import deltalake
import duckdb
import pyarrow as pa

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import flows, inputs, oracle
from tests.crash.oracle import Count
from tests.crash.subjects import may_lose, may_repeat

EVENTS = 240
"""Enough for three epochs: a schedule costs what its processes cost, and there are many."""

GIVEN_PARTS, GIVEN_ROWS = 4, 25
GIVEN = pa.schema(
    [
        ("event_id", pa.string()),
        ("merchant", pa.string()),
        ("amount", pa.decimal128(18, 2)),
        ("paid_at", pa.timestamp("us")),
    ]
)

LEDGER = "SELECT event_id, merchant, amount, paid_at FROM t"


def table(folder: Path, name: str, **options: Any) -> Any:
    """A table of the folder, committed to as often as there is something."""
    return of.delta(str(folder / "lake" / name), commit_every=0, **options)


def ledger(folder: Path) -> of.Flow:
    """An append, and totals that are merged."""
    flow = of.Flow("ledger", **flows.SMALL)
    rows = flows.kept(flow, folder)
    totals = rows.group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    rows.append(table(folder, "ledger"))
    totals.upsert(table(folder, "totals"), key="merchant")
    return flow


def plain(folder: Path, guarantee: str = "exactly-once") -> of.Flow:
    """One table: what schedules are cheap on, and negative controls are tried on."""
    flow = of.Flow("plain", guarantee=guarantee, **flows.SMALL)
    flows.kept(flow, folder).append(table(folder, "ledger"), name="topic")
    return flow


def parted(folder: Path) -> of.Flow:
    """One table with partitions, in tiny epochs whose payloads are freed at once."""
    flow = of.Flow("parted", **flows.TINY)
    flows.kept(flow, folder).append(table(folder, "ledger", partition_by="merchant"))
    return flow


def merged(folder: Path) -> of.Flow:
    """Totals alone."""
    flow = of.Flow("merged", **flows.SMALL)
    totals = flows.kept(flow, folder).group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    totals.upsert(table(folder, "totals"), key="merchant")
    return flow


def together(folder: Path) -> of.Flow:
    """A table and a data set that show every epoch or none of it."""
    flow = of.Flow("together", commit="together", **flows.SMALL)
    rows = flows.kept(flow, folder)
    rows.append(table(folder, "ledger"))
    rows.append(of.files(str(folder / "ledger")), name="lake")
    return flow


def at_least_once(folder: Path) -> of.Flow:
    """A repeated delivery may show."""
    return plain(folder, "at-least-once")


def at_most_once(folder: Path) -> of.Flow:
    """A delivery may be missing."""
    return plain(folder, "at-most-once")


def onward(folder: Path) -> of.Flow:
    """The rows of one table into another."""
    flow = of.Flow("onward", **flows.TINY)
    flow.read(of.delta(str(folder / "given")), schema=flows.SCHEMA, name="in").append(table(folder, "ledger"))
    return flow


def mirrored(folder: Path) -> of.Flow:
    """The changes of one table into a copy of it."""
    flow = of.Flow("mirrored", **flows.TINY)
    changes = flow.read(of.delta(str(folder / "given"), changes=True), schema={**flows.SCHEMA, "_op": "VARCHAR"})
    changes.upsert(table(folder, "ledger"), key="event_id")
    return flow


def arrive_in_a_table(folder: Path, life: int) -> bool:
    """Another writer appends to the table that is read: before the first process, and again with each restart."""
    return _given_to(folder, life, lambda place: None)


def arrive_with_changes(folder: Path, life: int) -> bool:
    """The same; every time it also updates and deletes rows that were there."""
    return _given_to(folder, life, _change)


def _given_to(folder: Path, life: int, change: Callable[[str], None]) -> bool:
    place, wanted = folder / "given", min(GIVEN_PARTS, life + 2)
    done = len(list((folder / "parts").glob("*"))) if (folder / "parts").exists() else 0
    for part in range(done, wanted):
        rows = [_given(number) for number in range(part * GIVEN_ROWS, (part + 1) * GIVEN_ROWS)]
        deltalake.write_deltalake(str(place), pa.Table.from_pylist(rows, GIVEN), mode="append")
        change(str(place))
        (folder / "parts" / str(part)).mkdir(parents=True)
    return wanted == GIVEN_PARTS


def _change(place: str) -> None:
    held = deltalake.DeltaTable(place)
    newest = pa.table(held.to_pyarrow_table()).num_rows
    held.update(updates={"merchant": f"'was changed at {newest}'"}, predicate="amount > 0.10 AND amount < 0.20")
    deltalake.DeltaTable(place).delete(f"amount = {newest / 200:.2f}")


def _given(number: int) -> dict[str, Any]:
    at = inputs.START + timedelta(seconds=number)
    return {"event_id": f"e{number}", "merchant": f"m{number % 6}", "amount": Decimal(number) / 100, "paid_at": at}


def arrive(folder: Path, life: int) -> bool:
    """Three of four files before the first process starts."""
    return inputs.arrive(folder, life, events=EVENTS)


def staged() -> None:
    """In the children: epochs become files of their own, and are not in the seal."""
    from onefold import spool
    from onefold.connectors.delta import sink

    spool.INLINE_BYTES = 64
    sink.NATIVE_BYTES = 1000


# ------------------------------------------------------------------------------------------------------------- judges


def actions(place: Path) -> Iterator[dict[str, Any]]:
    """Of every version, in order. Nothing is cleaned up in these tests, so no checkpoint is needed."""
    for number, path in enumerate(sorted((place / "_delta_log").glob("*.json"))):
        assert path.name == f"{number:020d}.json", "an entry of the log is missing"
        for line in path.read_text("utf-8").splitlines():
            yield json.loads(line)


def rows(place: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query over the table `t` gives; nothing where there is no table. Two readers must agree."""
    if not (place / "_delta_log").is_dir():
        return []
    live: dict[str, dict[str, Any]] = {}
    for action in actions(place):
        if "add" in action:
            live[unquote(action["add"]["path"])] = action["add"]
        elif "remove" in action:
            live.pop(unquote(action["remove"]["path"]))
    if not live:
        return []
    with duckdb.connect() as connection:
        parts = [_select(connection, place / path, add) for path, add in live.items()]
        found = connection.execute(f"WITH t AS ({' UNION ALL BY NAME '.join(parts)}) {query}").fetchall()
        connection.register("t", _by_deltalake(place))
        again = connection.execute(query).fetchall()
    assert Counter(found) == Counter(again), "deltalake and DuckDB disagree"
    return found


def _select(connection: Any, path: Path, add: dict[str, Any]) -> str:
    assert path.stat().st_size == add["size"], "a file is not as the log says"
    columns = [f"{_text(value)} AS {name}" for name, value in add["partitionValues"].items()]
    counted = connection.execute(f"SELECT count(*) FROM read_parquet({_text(str(path))})").fetchone()
    assert counted == (json.loads(add["stats"])["numRecords"],), "statistics are not of this file"
    return f"SELECT {', '.join(['*', *columns])} FROM read_parquet({_text(str(path))}, hive_partitioning = false)"


def _text(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def _by_deltalake(place: Path) -> Any:
    from deltalake import DeltaTable

    return DeltaTable(str(place)).to_pyarrow_table()


def judge_ledger(folder: Path) -> Count:
    """Every row and every total."""
    count = judge_plain(folder)
    expected = oracle.expect(folder)
    totals = rows(folder / "lake" / "totals", "SELECT merchant, payments, revenue FROM t")
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in totals])
    return count


def judge_plain(folder: Path) -> Count:
    """Every row."""
    expected, count = flows._expect(folder)
    count.rows("topic", expected.ledger(), Counter(rows(folder / "lake" / "ledger", LEDGER)))
    return count


def judge_copy(folder: Path) -> Count:
    """Every row of the table that is read, as it is now."""
    given, found = rows(folder / "given", LEDGER), rows(folder / "lake" / "ledger", LEDGER)
    count = Count(events=len(given))
    count.rows("copy", Counter(given), Counter(found))
    return count


def judge_merged(folder: Path) -> Count:
    """Every total."""
    expected, count = flows._expect(folder)
    totals = rows(folder / "lake" / "totals", "SELECT merchant, payments, revenue FROM t")
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in totals])
    return count


def judge_together(folder: Path) -> Count:
    """Every row in both."""
    count = judge_plain(folder)
    count.rows("data set", oracle.expect(folder).ledger(), Counter(oracle.parquet_rows(folder / "ledger")))
    return count


PLAIN = Subject(build=plain, arrive=arrive, judge=judge_plain)
STAGED = Subject(build=plain, arrive=arrive, judge=judge_plain, arrange=(staged,))
PARTED = Subject(build=parted, arrive=arrive, judge=judge_plain)
MERGED = Subject(build=merged, arrive=arrive, judge=judge_merged)
BOTH = Subject(build=ledger, arrive=arrive, judge=judge_ledger, arrange=(staged,))
TOGETHER = Subject(build=together, arrive=arrive, judge=judge_together)
ONWARD = Subject(build=onward, arrive=arrive_in_a_table, judge=judge_copy)
MIRRORED = Subject(build=mirrored, arrive=arrive_with_changes, judge=judge_copy)
AT_LEAST_ONCE = Subject(build=at_least_once, arrive=arrive, judge=judge_plain, accept=may_repeat)
AT_MOST_ONCE = Subject(build=at_most_once, arrive=arrive, judge=judge_plain, accept=may_lose)

SUBJECTS = {"plain": PLAIN, "staged": STAGED, "parted": PARTED, "merged": MERGED, "both": BOTH, "together": TOGETHER}
"""Those that write payments; ONWARD and MIRRORED read a table."""
