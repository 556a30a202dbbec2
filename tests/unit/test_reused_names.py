"""A step that is removed takes its state with it: another one of the same name begins empty."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.errors import PlanChanged

SCHEMA = {"id": "BIGINT", "kind": "VARCHAR", "amount": "BIGINT"}

Step = Callable[[of.Stream, Any], None]


def feed(folder: Path, name: str, *rows: tuple[int, str, int]) -> None:
    (folder / "in").mkdir(exist_ok=True)
    lines = [json.dumps(dict(zip(SCHEMA, row, strict=True))) + "\n" for row in rows]
    (folder / "in" / name).write_text("".join(lines))


def run(folder: Path, step: Step, **settings: Any) -> None:
    flow = of.Flow("reused", epoch_rows=2, **settings)
    rows = flow.read(of.files(str(folder / "in/*.jsonl")), schema=SCHEMA, name="in")
    database = of.sqlite(str(folder / "out.sqlite"))
    rows.append(database.table("everything"), name="everything")
    step(rows, database)
    flow.run(state=folder / "state")


def found(folder: Path, table: str, columns: str) -> list[Any]:
    with sqlite3.connect(folder / "out.sqlite") as connection:
        return connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()


def nothing(rows: of.Stream, database: Any) -> None:
    """The step is removed."""


def by_id(rows: of.Stream, database: Any) -> None:
    rows.dedup("id", within=None).append(database.table("one"), name="one")


def by_amount(rows: of.Stream, database: Any) -> None:
    rows.dedup("amount", within=None).append(database.table("two"), name="two")


def counts(*keys: str) -> Step:
    def step(rows: of.Stream, database: Any) -> None:
        counted = rows.group_by(*keys, name="counts").agg(n="count(*)")
        name = f"by_{'_'.join(keys)}"
        counted.upsert(database.table(name), key=list(keys), name=name)

    return step


@pytest.mark.parametrize("settings", [{}, {"snapshot_every_bytes": 1}], ids=["deltas", "snapshots"])
def test_another_dedup_of_the_same_name_has_seen_nothing(tmp_path: Path, settings: dict[str, Any]) -> None:
    feed(tmp_path, "a.jsonl", (10, "x", 1), (11, "x", 2))
    run(tmp_path, by_id, **settings)
    run(tmp_path, nothing, **settings)
    feed(tmp_path, "b.jsonl", (20, "x", 10), (21, "x", 11))
    run(tmp_path, by_amount, **settings)
    assert found(tmp_path, "two", "id") == [(20,), (21,)]
    feed(tmp_path, "c.jsonl", (30, "x", 10), (31, "x", 12))
    run(tmp_path, by_amount, **settings)
    assert found(tmp_path, "two", "id") == [(20,), (21,), (31,)], "and what it has seen itself it keeps"


@pytest.mark.parametrize("keys", [("kind",), ("kind", "id")], ids=["the same", "another"])
def test_an_aggregate_that_comes_back_begins_empty(tmp_path: Path, keys: tuple[str, ...]) -> None:
    feed(tmp_path, "a.jsonl", (1, "x", 1), (2, "x", 1))
    run(tmp_path, counts("kind"))
    run(tmp_path, nothing)
    feed(tmp_path, "b.jsonl", (3, "x", 1))
    run(tmp_path, counts(*keys))
    assert found(tmp_path, f"by_{'_'.join(keys)}", "n") == [(1,)]
    feed(tmp_path, "c.jsonl", (3, "x", 1))
    run(tmp_path, counts(*keys))
    assert found(tmp_path, f"by_{'_'.join(keys)}", "n") == [(2,)]


def test_a_read_that_was_removed_does_not_come_back_and_write_everything_again(tmp_path: Path) -> None:
    def flow_of(*names: str) -> of.Flow:
        flow = of.Flow("reads", epoch_rows=2)
        for name in names:
            rows = flow.read(of.files(str(tmp_path / f"{name[:3]}*.jsonl")), schema=SCHEMA, name=name)
            rows.append(of.sqlite(str(tmp_path / "out.sqlite")).table(name), name=f"to-{name}")
        return flow

    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text('{"id": 1, "kind": "x", "amount": 1}\n')
    flow_of("one").run(state=tmp_path / "state")
    flow_of("one", "two").run(state=tmp_path / "state")
    flow_of("one").run(state=tmp_path / "state")
    flow_of("one").run(state=tmp_path / "state")
    with pytest.raises(PlanChanged, match="two was removed") as refused:
        flow_of("one", "two").run(state=tmp_path / "state")
    assert "another name" in refused.value.next_step
    assert found(tmp_path, "two", "id") == [(1,)]
    flow_of("one", "two-again").run(state=tmp_path / "state")
    assert found(tmp_path, '"two-again"', "id") == [(1,)]


def test_a_read_that_has_read_nothing_may_be_removed_and_come_back(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    run(tmp_path, nothing)
    other = of.Flow("reused")
    rows = other.read(of.memory("reused-names"), schema=SCHEMA, name="other")
    rows.append(of.sqlite(str(tmp_path / "out.sqlite")).table("other"), name="other")
    other.run(state=tmp_path / "state")
    feed(tmp_path, "a.jsonl", (1, "x", 1))
    run(tmp_path, nothing)
    assert found(tmp_path, "everything", "id") == [(1,)]
