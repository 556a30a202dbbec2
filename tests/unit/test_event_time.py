"""Late flags and watermarks at the edges: gaps, ends of time, partitions that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import onefold as of
from onefold.errors import UserCodeError
from onefold.operators.event_time import FIRST_MICROS, LAST_MICROS, LateGate, micros_of
from onefold.testing.flow_run import FlowRun

MIN, MAX = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def judge(times: list[int | None], largest: int | None = None, *, lateness: int = 10, ahead: int | None = None) -> Any:
    missing = np.array([time is None for time in times], dtype=np.bool_)
    return LateGate(lateness, ahead).judge(np.array([t or 0 for t in times], dtype=np.int64), missing, largest)


def test_late_is_more_than_lateness_behind_the_largest_before() -> None:
    verdict = judge([100, 90, 89, 120, 110, 109])
    assert verdict.is_late.tolist() == [False, False, True, False, False, True]
    assert verdict.largest == 120


def test_the_largest_is_carried_over_batches_and_an_empty_batch_changes_nothing() -> None:
    assert judge([80, 95], largest=100).is_late.tolist() == [True, False]
    assert judge([], largest=100).largest == 100
    assert judge([]).largest is None
    assert judge([None, None]).largest is None


def test_missing_times_are_neither_late_nor_counted() -> None:
    verdict = judge([None, 100, None, 50])
    assert verdict.is_missing.tolist() == [True, False, True, False]
    assert verdict.is_late.tolist() == [False, False, False, True]


def test_a_time_too_far_ahead_does_not_move_the_largest() -> None:
    verdict = judge([100, 1000, 1001, 105, 205, 206, 300], ahead=100)
    assert verdict.is_ahead.tolist() == [False, True, True, False, False, False, False]
    assert verdict.largest == 300


def test_what_no_calendar_has_is_no_event_time_and_moves_nothing() -> None:
    verdict = judge([MAX, MIN, LAST_MICROS + 1, FIRST_MICROS - 1, FIRST_MICROS, LAST_MICROS], ahead=MAX)
    assert verdict.is_missing.tolist() == [True, True, True, True, False, False]
    assert verdict.largest == LAST_MICROS


def test_a_lateness_of_all_time_does_not_wrap_around() -> None:
    verdict = judge([LAST_MICROS, FIRST_MICROS], lateness=MAX)
    assert verdict.is_late.tolist() == [False, False]
    assert judge([LAST_MICROS, FIRST_MICROS]).is_late.tolist() == [False, True]


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("ns"), pa.date32()])
def test_every_kind_of_time_becomes_microseconds(kind: pa.DataType) -> None:
    day = pa.array([-1, None, 2], pa.date32()).cast(pa.timestamp("s")).cast(kind)
    numbers, missing = micros_of(pa.chunked_array([day]))
    assert numbers[[0, 2]].tolist() == [-86_400_000_000, 2 * 86_400_000_000]
    assert missing.tolist() == [False, True, False]


# ------------------------------------------------------------------------------------------------------- in a flow


@pytest.fixture
def flow() -> of.Flow:
    made = of.Flow("times")
    rows = made.read(
        of.memory("in"), schema={"n": "BIGINT", "t": "TIMESTAMP"}, name="in", format="json", event_time="t",
        lateness="10 seconds",
    )  # fmt: skip
    rows.dedup("n", within="1 day", name="dedup").append(of.memory("kept"), name="kept")
    rows.window("10 seconds", name="sums").agg(n="count(*)").append(of.memory("sums"), name="sums")
    return made


@pytest.fixture
def run(flow: of.Flow) -> Iterator[FlowRun]:
    with of.testing.run(flow) as run:
        yield run


def row(n: int, time: str) -> dict[str, Any]:
    return {"n": n, "t": time}


@pytest.mark.parametrize(
    "time", ["infinity", "-infinity", "294246-12-31 00:00:00", "10000-01-01 00:00:00", "0044-03-15 (BC) 00:00:00"]
)
def test_a_time_that_no_calendar_of_ours_has_is_a_dead_letter_and_does_not_stop_the_flow(
    run: FlowRun, time: str
) -> None:
    run.feed("in", [row(1, "2024-01-01 00:00:00"), row(2, time), row(3, "2024-01-01 00:00:30")])
    run.drain()
    assert [letter["raw"] for letter in run.dead_letters()] != []
    assert [kept["n"] for kept in run.rows("kept")] == [1, 3]
    assert len(run.rows("sums")) == 1


@pytest.mark.parametrize("time", ["0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"])
def test_the_first_and_the_last_moment_of_the_calendar_are_times(run: FlowRun, time: str) -> None:
    run.feed("in", [row(1, time)])
    run.drain(close=True)
    assert run.dead_letters() == []
    assert len(run.rows("kept")) == 1


def forget(table: pa.Table) -> pa.Table:
    return table.set_column(1, "t", pa.nulls(table.num_rows, pa.timestamp("us")))


def turn_back(table: pa.Table) -> pa.Table:
    """As it was for the first row, 1970 for the others."""
    times = [row["t"] if row["n"] == 1 else None for row in table.to_pylist()]
    filled = pa.array(times, pa.timestamp("us")).fill_null(pa.scalar(0, pa.timestamp("us")))
    return table.set_column(1, "t", filled)


@pytest.mark.parametrize("change", [forget, turn_back])
@pytest.mark.parametrize("step", ["dedup", "sums"])
def test_a_map_that_changes_event_times_is_told_so(change: Any, step: str) -> None:
    flow = of.Flow("times")
    schema = {"n": "BIGINT", "t": "TIMESTAMP"}
    rows = flow.read(of.memory("in"), schema=schema, name="in", format="json", event_time="t", lateness="10 seconds")
    mapped = rows.map(change, schema=schema)
    if step == "dedup":
        mapped.dedup("n", within="1 day", name="dedup").append(of.memory("kept"), name="kept")
    else:
        mapped.window("1 second", name="sums").agg(n="count(*)").append(of.memory("kept"), name="kept")
    with of.testing.run(flow, epoch_rows=1) as run:
        run.feed("in", [row(1, "2024-01-01 00:00:00"), row(2, "2024-01-01 00:00:00")])
        with pytest.raises(UserCodeError, match="event time") as told:
            run.drain()
        assert told.value.where["node"] == step


# ---------------------------------------------------------------------------------------------------------- partitions


def test_an_empty_partition_holds_the_watermark_until_it_speaks(run: FlowRun) -> None:
    run.feed("in", [], partition="silent")
    run.feed("in", [row(1, "1970-01-01 00:00:00"), row(2, "1970-01-01 00:01:00")], partition="loud")
    run.drain()
    assert run.rows("sums") == []
    run.feed("in", [row(3, "1970-01-01 00:00:05")], partition="silent")
    run.drain()
    assert run.rows("sums") == []
    run.feed("in", [row(4, "1970-01-01 00:00:55")], partition="silent")
    run.drain()
    assert [window["n"] for window in run.rows("sums")] == [2]


def test_a_partition_that_appears_later_does_not_turn_the_watermark_back(run: FlowRun) -> None:
    run.feed("in", [row(1, "1970-01-01 00:00:00"), row(2, "1970-01-01 00:01:00")])
    run.drain()
    assert len(run.rows("sums")) == 1
    run.feed("in", [row(3, "1970-01-01 00:00:05"), row(4, "1970-01-01 00:00:50")], partition="new")
    run.drain()
    assert [letter["reason"] for letter in run.dead_letters()] == ["late"]
    assert len(run.rows("sums")) == 1
    run.feed("in", [row(5, "1970-01-01 00:01:30")], partition="new")
    run.feed("in", [row(6, "1970-01-01 00:01:30")])
    run.drain(close=True)
    assert [window["n"] for window in run.rows("sums")] == [1, 1, 1, 2]


def test_after_the_windows_were_closed_by_hand_what_comes_for_them_is_late(run: FlowRun) -> None:
    run.feed("in", [row(1, "1970-01-01 00:00:00")])
    run.drain(close=True)
    run.feed("in", [row(2, "1970-01-01 00:00:01")])
    run.drain(close=True)
    assert [window["n"] for window in run.rows("sums")] == [1]
    assert [letter["reason"] for letter in run.dead_letters()] == ["late"]
