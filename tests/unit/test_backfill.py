"""A sink that is added to a flow that has run, and is to hold what was before."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.clock import SystemClock
from onefold.engines.embedded import launch
from onefold.engines.embedded.losses import find_losses
from onefold.errors import BackfillDue, InputLost, NotSupported

SCHEMA = {"id": "BIGINT", "kind": "VARCHAR", "amount": "BIGINT", "at": "TIMESTAMPTZ"}

TOTAL = "CAST(total AS INTEGER)"

Add = Callable[[of.Stream, Any], None]


def feed(folder: Path, name: str, *rows: tuple[int, str, int]) -> None:
    """A file of rows (id, kind, minute)."""
    (folder / "in").mkdir(exist_ok=True)
    lines = [
        json.dumps({"id": id_, "kind": kind, "amount": id_, "at": f"2026-01-01T00:{minute:02}:00Z"})
        for id_, kind, minute in rows
    ]
    (folder / "in" / name).write_text("".join(line + "\n" for line in lines))


def flow_of(folder: Path, *adds: Add, epoch_rows: int = 2) -> of.Flow:
    """files -> the table all, and what `adds` say."""
    flow = of.Flow("late", epoch_rows=epoch_rows)
    rows = flow.read(of.files(str(folder / "in/*.jsonl")), schema=SCHEMA, event_time="at", lateness="0 s", name="in")
    database = of.sqlite(str(folder / "out.sqlite"))
    rows.append(database.table("everything"), name="everything")
    for add in adds:
        add(rows, database)
    return flow


def run(folder: Path, *adds: Add, close: bool = False) -> Any:
    return flow_of(folder, *adds).run(state=folder / "state", close=close)


def rows_of(folder: Path, table: str, columns: str = "id") -> list[Any]:
    with sqlite3.connect(folder / "out.sqlite") as connection:
        found = connection.execute(f"SELECT {columns} FROM {table} ORDER BY {columns}").fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


def tables_of(folder: Path) -> set[str]:
    with sqlite3.connect(folder / "out.sqlite") as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}


def copy(rows: of.Stream, database: Any) -> None:
    rows.append(database.table("copy"), name="copy", backfill=True)


def totals(rows: of.Stream, database: Any) -> None:
    summed = rows.group_by("kind", name="by-kind").agg(total="sum(amount)")
    summed.upsert(database.table("totals"), key="kind", name="totals", backfill=True)


def first_of_kind(rows: of.Stream, database: Any) -> None:
    rows.dedup("kind", within=None, name="once").append(database.table("firsts"), name="firsts", backfill=True)


def newest_of_kind(rows: of.Stream, database: Any) -> None:
    rows.upsert(database.table("newest"), key="kind", latest_by="amount", name="newest", backfill=True)


def per_minute(rows: of.Stream, database: Any) -> None:
    windows = rows.window("1 minute").group_by("kind", name="minutes").agg(n="count(*)")
    windows.append(database.table("minutes"), name="minutes", backfill=True)


def test_a_new_sink_gets_what_was_before_and_what_comes(tmp_path: Path) -> None:
    feed(tmp_path, "b.jsonl", (1, "x", 0), (2, "y", 0), (3, "x", 0))
    run(tmp_path)
    feed(tmp_path, "a.jsonl", (4, "x", 0))
    run(tmp_path)
    feed(tmp_path, "c.jsonl", (5, "y", 0))
    summary = run(tmp_path, copy)
    assert rows_of(tmp_path, "copy") == rows_of(tmp_path, "everything") == [1, 2, 3, 4, 5]
    assert summary.events == 1, "the flow itself went on"
    assert summary.notes == ()
    feed(tmp_path, "d.jsonl", (6, "y", 0))
    run(tmp_path, copy)
    assert rows_of(tmp_path, "copy") == rows_of(tmp_path, "everything") == [1, 2, 3, 4, 5, 6]


def test_without_backfill_it_begins_with_what_comes_and_that_is_said(tmp_path: Path) -> None:
    feed(tmp_path, "a.jsonl", (1, "x", 0), (2, "y", 0))
    run(tmp_path)
    feed(tmp_path, "b.jsonl", (3, "x", 0))
    summary = run(tmp_path, lambda rows, database: rows.append(database.table("copy"), name="copy"))
    assert rows_of(tmp_path, "copy") == [3]
    assert "copy joins with epoch 2" in summary.notes[0]


def test_in_a_flow_that_is_new_it_changes_nothing(tmp_path: Path) -> None:
    feed(tmp_path, "a.jsonl", (1, "x", 0))
    run(tmp_path, copy)
    assert rows_of(tmp_path, "copy") == [1]
    assert not (tmp_path / "state" / "late" / "backfill").exists()


@pytest.mark.parametrize("is_started_between", [False, True])
def test_the_flow_takes_over_the_state_of_a_new_step(tmp_path: Path, is_started_between: bool) -> None:
    feed(tmp_path, "a.jsonl", (1, "x", 0), (2, "y", 0), (3, "x", 0))
    run(tmp_path)
    adds = (totals, first_of_kind, newest_of_kind)
    if is_started_between:  # nothing is sealed with what was taken over, so the next start must take it over again
        run(tmp_path, *adds)
        run(tmp_path, *adds)
    feed(tmp_path, "b.jsonl", (10, "x", 0), (11, "z", 0), (-5, "y", 0))
    run(tmp_path, *adds)
    assert rows_of(tmp_path, "totals", f"kind, {TOTAL}") == [("x", 14), ("y", -3), ("z", 11)]
    assert rows_of(tmp_path, "firsts") == [1, 2, 11]
    assert rows_of(tmp_path, "newest", "kind, id") == [("x", 10), ("y", 2), ("z", 11)]
    feed(tmp_path, "c.jsonl", (20, "x", 0), (1, "y", 0))
    run(tmp_path, *adds)
    assert rows_of(tmp_path, "totals", f"kind, {TOTAL}") == [("x", 34), ("y", -2), ("z", 11)]
    assert rows_of(tmp_path, "firsts") == [1, 2, 11]
    assert rows_of(tmp_path, "newest", "kind, id") == [("x", 20), ("y", 2), ("z", 11)]


def test_windows_that_are_open_close_once(tmp_path: Path) -> None:
    feed(tmp_path, "a.jsonl", (1, "x", 0), (2, "x", 0), (3, "x", 1), (4, "x", 2))
    run(tmp_path)
    run(tmp_path, per_minute)
    assert rows_of(tmp_path, "minutes", "window_start, n") == [
        ("2026-01-01 00:00:00.000000Z", 2),
        ("2026-01-01 00:01:00.000000Z", 1),
    ]
    feed(tmp_path, "b.jsonl", (5, "x", 2), (6, "x", 3))
    run(tmp_path, per_minute)
    assert [n for _, n in rows_of(tmp_path, "minutes", "window_start, n")] == [2, 1, 2]


def test_windows_that_were_closed_by_hand_are_closed_for_it_too(tmp_path: Path) -> None:
    def to_lake(rows: of.Stream, database: Any) -> None:
        windows = rows.window("1 minute").group_by("kind", name="minutes").agg(n="count(*)")
        windows.append(database.table("first"), name="first")

    def to_both(rows: of.Stream, database: Any) -> None:
        windows = rows.window("1 minute").group_by("kind", name="minutes").agg(n="count(*)")
        windows.append(database.table("first"), name="first")
        windows.append(database.table("second"), name="second", backfill=True)

    feed(tmp_path, "a.jsonl", (1, "x", 0), (2, "x", 1))
    run(tmp_path, to_lake, close=True)
    feed(tmp_path, "b.jsonl", (3, "x", 5), (4, "x", 6))
    run(tmp_path, to_both)
    assert len(rows_of(tmp_path, "first", "window_start, n")) == 3
    assert rows_of(tmp_path, "second", "window_start, n") == rows_of(tmp_path, "first", "window_start, n")


def test_a_step_that_began_empty_cannot_feed_a_backfill(tmp_path: Path) -> None:
    def without(rows: of.Stream, database: Any) -> None:
        summed = rows.group_by("kind", name="by-kind").agg(total="sum(amount)")
        summed.upsert(database.table("fewer"), key="kind", name="fewer")

    def both(rows: of.Stream, database: Any) -> None:
        summed = rows.group_by("kind", name="by-kind").agg(total="sum(amount)")
        summed.upsert(database.table("fewer"), key="kind", name="fewer")
        summed.upsert(database.table("totals"), key="kind", name="totals", backfill=True)

    feed(tmp_path, "a.jsonl", (1, "x", 0))
    run(tmp_path)
    feed(tmp_path, "b.jsonl", (2, "x", 0))
    run(tmp_path, without)
    assert rows_of(tmp_path, "fewer", TOTAL) == [2]
    with pytest.raises(NotSupported, match="by-kind was added later"):
        run(tmp_path, both)
    assert "totals" not in tables_of(tmp_path), "and nothing was written"


def test_two_sinks_share_a_new_step(tmp_path: Path) -> None:
    def both(rows: of.Stream, database: Any) -> None:
        summed = rows.group_by("kind", name="by-kind").agg(total="sum(amount)")
        for name in ("one", "two"):
            summed.upsert(database.table(name), key="kind", name=name, backfill=True)

    feed(tmp_path, "a.jsonl", (1, "x", 0))
    run(tmp_path)
    feed(tmp_path, "b.jsonl", (2, "x", 0))
    run(tmp_path, both)
    assert rows_of(tmp_path, "one", TOTAL) == rows_of(tmp_path, "two", TOTAL) == [3]


def test_what_opens_the_flow_otherwise_says_that_it_must_be_filled_first(tmp_path: Path) -> None:
    feed(tmp_path, "a.jsonl", (1, "x", 0))
    run(tmp_path)
    plan = flow_of(tmp_path, copy).plan
    with pytest.raises(BackfillDue, match="copy") as caught:
        find_losses(plan, tmp_path / "state" / "late", SystemClock())
    assert "Run the flow" in str(caught.value)
    assert caught.value.retry_is_safe


def test_a_flow_that_went_on_meanwhile_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the backfill and the start, a process with the former flow reads more."""
    feed(tmp_path, "a.jsonl", (1, "x", 0))
    run(tmp_path)
    fill, filled = launch._fill, []

    def fill_and_go_on(*about: Any) -> bool:
        is_filled = fill(*about)
        filled.append(is_filled)
        if len(filled) == 1:
            feed(tmp_path, "b.jsonl", (2, "x", 0))
            run(tmp_path)
        return is_filled

    monkeypatch.setattr(launch, "_fill", fill_and_go_on)
    run(tmp_path, copy)
    assert filled == [True, True]
    assert rows_of(tmp_path, "copy") == rows_of(tmp_path, "everything") == [1, 2]


def test_input_that_is_gone_stops_it_and_says_what_can_be_done(tmp_path: Path) -> None:
    feed(tmp_path, "a.jsonl", (1, "x", 0))
    feed(tmp_path, "b.jsonl", (2, "x", 0))
    run(tmp_path)
    (tmp_path / "in" / "a.jsonl").unlink()
    with pytest.raises(InputLost, match="copy cannot be given what the flow has read") as caught:
        run(tmp_path, copy)
    assert "leave out backfill=True" in caught.value.next_step
    assert "skip-lost" not in caught.value.next_step
    feed(tmp_path, "a.jsonl", (1, "x", 0))
    run(tmp_path, copy)
    assert rows_of(tmp_path, "copy") == [1, 2]
