"""What a flow writes is what plain Python makes of its whole input, however it is cut, crashed and restarted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import onefold as of
from onefold.testing.flow_run import CRASH_POINTS, FlowRun
from tests.property import flow_results_model as model
from tests.property.flow_results_model import EPOCH, as_bag, in_order

SECOND = timedelta(seconds=1)
LATENESS, AHEAD, WITHIN, WINDOW = 10 * SECOND, 60 * SECOND, 8 * SECOND, 7 * SECOND
QUICK = (Phase.explicit, Phase.generate)
FEW, MANY = settings(max_examples=12, phases=QUICK), settings(max_examples=300)
PROMISES: list[Any] = []

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("k", pa.float64()),
        ("v", pa.decimal128(30, 2)),
        ("t", pa.timestamp("us")),
        ("tags", pa.list_(pa.string())),
    ]
)

TIMES = st.integers(-40, 40).map(lambda n: EPOCH + n * SECOND / 2)
ROW = st.fixed_dictionaries(
    {
        "id": st.sampled_from([None, "a", "b", "c", "é😀", "", "\x00"]),
        "k": st.sampled_from([None, 0.0, 1.5, -1.5, math.nan, math.inf]),
        "v": st.one_of(st.none(), st.integers(-(10**27), 10**27).map(lambda n: Decimal(n).scaleb(-2))),
        "t": st.one_of(TIMES, TIMES, TIMES, st.none()),
        "tags": st.one_of(st.none(), st.lists(st.sampled_from([None, "x", "y"]), max_size=3)),
    }
)


@dataclass(frozen=True)
class Schedule:
    """How the input comes in and what happens meanwhile. parts: instalments by partition; all partitions in each."""

    parts: Sequence[Mapping[str, Sequence[model.Row]]]
    epoch_rows: int
    crashes: Sequence[str]
    restarts: Sequence[bool]

    def rows(self, partition: str) -> list[model.Row]:
        return [row for part in self.parts for row in part[partition]]

    @property
    def partitions(self) -> list[str]:
        return list(self.parts[0])


def schedules(names: Sequence[str], row: st.SearchStrategy[Any] = ROW) -> st.SearchStrategy[Schedule]:
    instalment = st.fixed_dictionaries({name: st.lists(row, max_size=8) for name in names})
    return st.builds(
        Schedule,
        parts=st.lists(instalment, min_size=1, max_size=3),
        epoch_rows=st.sampled_from([1, 2, 3, 5, 1000]),
        crashes=st.lists(st.sampled_from(sorted(CRASH_POINTS)), max_size=4),
        restarts=st.lists(st.booleans(), min_size=3, max_size=3),
    )


@contextmanager
def played(flow: of.Flow, schedule: Schedule, read: str = "in") -> Iterator[FlowRun]:
    """Every partition is there from the first epoch on. A restart is a drain: the next step opens anew."""
    with of.testing.run(flow, epoch_rows=schedule.epoch_rows) as run:
        for partition in schedule.partitions:
            run.feed(read, [], partition=partition)
        for place in schedule.crashes:
            run.crash(place)
        for part, is_restarted in zip(schedule.parts, schedule.restarts, strict=False):
            for partition, rows in part.items():
                run.feed(read, rows, partition=partition)
            if is_restarted:
                run.drain()
            else:
                run.step()
        run.drain()
        yield run


def promise(*strategies: Any) -> Callable[[Any], Any]:
    """A property, tried on a few examples here and on many under --heavy."""

    def keep(body: Any) -> Any:
        PROMISES.append(pytest.param(strategies, body, id=body.__name__))
        return FEW(given(*strategies)(body))

    return keep


def read(flow: of.Flow, **options: Any) -> Any:
    return flow.read(
        of.memory("in"), schema=SCHEMA, name="in", event_time="t", lateness=LATENESS, max_ahead=AHEAD, **options
    )


def timely_of(schedule: Schedule) -> dict[str, model.Judged]:
    return {name: model.judge(schedule.rows(name), LATENESS, AHEAD) for name in schedule.partitions}


def all_timely(schedule: Schedule) -> list[model.Row]:
    return [row for one in timely_of(schedule).values() for row in one.timely]


# ------------------------------------------------------------------------------------------------------- row by row


@cache
def stateless_flow() -> of.Flow:
    flow = of.Flow("stateless")
    rows = read(flow)
    rows.where("k > 0 AND v IS NOT NULL").select("id", "k", half="v / 2").append(of.memory("chosen"))
    rows.explode("tags").append(of.memory("exploded"))
    rows.explode("tags", keep_empty=True).append(of.memory("kept_empty"))
    rows.where("v > 0").union(rows.where("v <= 0"), rows).append(of.memory("union"))
    rows.map(lambda table: table.filter(pa.compute.is_valid(table["id"])), schema=SCHEMA).append(of.memory("mapped"))
    return flow


@promise(schedules(["0"]))
def test_where_select_explode_union_and_map_give_each_row_once(schedule: Schedule) -> None:
    rows = all_timely(schedule)
    with played(stateless_flow(), schedule) as run:
        chosen = [r for r in rows if r["k"] is not None and (math.isnan(r["k"]) or r["k"] > 0) and r["v"] is not None]
        assert [row["id"] for row in run.rows("chosen")] == [row["id"] for row in chosen]
        pairs = [{**row, "tags": tag} for row in rows for tag in row["tags"] or []]
        assert in_order(run.rows("exploded")) == in_order(pairs)
        pairs = [{**row, "tags": tag} for row in rows for tag in row["tags"] or [None]]
        assert in_order(run.rows("kept_empty")) == in_order(pairs)
        assert as_bag(run.rows("union")) == as_bag([*rows, *(row for row in rows if row["v"] is not None)])
        assert in_order(run.rows("mapped")) == in_order([row for row in rows if row["id"] is not None])


@promise(schedules(["0", "1"]))
def test_rows_that_event_time_refuses_become_dead_letters_with_their_reason(schedule: Schedule) -> None:
    with played(stateless_flow(), schedule) as run:
        found = sorted((letter["partition"], letter["reason"]) for letter in run.dead_letters())
    gone = [(name, reason) for name, one in timely_of(schedule).items() for reason, _ in one.gone]
    assert found == sorted(gone)


# ------------------------------------------------------------------------------------------------------------ dedup


@cache
def dedup_flow() -> of.Flow:
    flow = of.Flow("dedup")
    rows = read(flow)
    rows.dedup("id", within=None, name="forever").append(of.memory("forever"))
    rows.dedup("id", within=WITHIN, name="within").append(of.memory("within"))
    rows.dedup(["id", "k"], within=None, name="pair").append(of.memory("pair"))
    return flow


@promise(schedules(["0"]))
def test_dedup_keeps_the_first_of_each_key_in_one_partition(schedule: Schedule) -> None:
    rows = all_timely(schedule)
    with played(dedup_flow(), schedule) as run:
        assert in_order(run.rows("forever")) == in_order(model.first_of_each(rows, ["id"], None))
        assert in_order(run.rows("within")) == in_order(model.first_of_each(rows, ["id"], WITHIN))
        assert in_order(run.rows("pair")) == in_order(model.first_of_each(rows, ["id", "k"], None))


COPY = TIMES.map(lambda t: {"id": f"at {t}", "k": 1.0, "v": Decimal("1.00"), "t": t, "tags": []})


@promise(schedules(["0", "1"], COPY))
def test_dedup_of_equal_copies_is_the_same_in_whatever_order_partitions_are_read(schedule: Schedule) -> None:
    """Copies that differ in more than their partition are not promised: the first to arrive wins."""
    rows = all_timely(schedule)
    with played(dedup_flow(), schedule) as run:
        assert as_bag(run.rows("forever")) == as_bag(model.first_of_each(rows, ["id"], None))
        assert as_bag(run.rows("within")) == as_bag(model.first_of_each(rows, ["id"], WITHIN))


# ------------------------------------------------------------------------------------------------------- aggregates

AGGREGATES = {"n": "count(*)", "known": "count(v)", "total": "sum(v)", "least": "min(v)", "most": "max(v)"}


@cache
def aggregate_flow() -> of.Flow:
    flow = of.Flow("aggregate")
    rows = read(flow)
    windows = rows.window(WINDOW).group_by("k").agg(**AGGREGATES)
    windows.append(of.memory("closed"))
    windows.upsert(of.memory("updates"), key=["k", "window_start"])
    rows.group_by("id", "k", name="running").agg(**AGGREGATES).upsert(of.memory("running"), key=["id", "k"])
    return flow


@promise(schedules(["0", "1", "2"]))
def test_windows_and_running_groups_are_those_of_the_whole_input(schedule: Schedule) -> None:
    """Over several partitions too: the watermark is the least of theirs, so a closed window gets no more rows."""
    rows = all_timely(schedule)
    windows = model.aggregate(rows, ["k"], WINDOW)
    mark = model.watermark(timely_of(schedule).values(), LATENESS)
    with played(aggregate_flow(), schedule) as run:
        assert as_bag(run.rows("running")) == as_bag(model.aggregate(rows, ["id", "k"]))
        assert as_bag(run.rows("updates")) == as_bag(windows)
        closed = [window for window in windows if mark is not None and window["window_end"] <= mark]
        assert as_bag(run.rows("closed")) == as_bag(closed)
        run.drain(close=True)
        assert as_bag(run.rows("closed")) == as_bag(windows)
        run.drain(close=True)
        assert as_bag(run.rows("closed")) == as_bag(windows)


# ------------------------------------------------------------------------------------------------------------ upsert

CHANGE = st.fixed_dictionaries(
    {
        "a": st.sampled_from([None, 1, 2]),
        "b": st.sampled_from([None, 0.5, math.nan]),
        "version": st.one_of(st.none(), st.integers(0, 4).map(float), st.just(math.nan)),
        "v": st.integers(0, 10**6),
        "_op": st.sampled_from(["upsert", "upsert", "delete"]),
    }
)
CHANGES = pa.schema(
    [("a", pa.int32()), ("b", pa.float64()), ("version", pa.float64()), ("v", pa.int64()), ("_op", pa.string())]
)


@cache
def upsert_flow() -> of.Flow:
    flow = of.Flow("upsert")
    rows = flow.read(of.memory("in"), schema=CHANGES, name="in")
    rows.upsert(of.memory("last"), key=["a", "b"])
    rows.upsert(of.memory("latest"), key=["a", "b"], latest_by="version")
    rows.upsert(of.memory("by_key"), key=["a"], latest_by="a")
    return flow


@promise(schedules(["0"], CHANGE))
def test_the_final_table_of_upserts_is_that_of_the_changes_one_by_one(schedule: Schedule) -> None:
    rows = schedule.rows("0")
    with played(upsert_flow(), schedule) as run:
        assert as_bag(run.rows("last")) == as_bag(model.final_table(rows, ["a", "b"]))
        assert as_bag(run.rows("latest")) == as_bag(model.final_table(rows, ["a", "b"], "version"))
        assert as_bag(run.rows("by_key")) == as_bag(model.final_table(rows, ["a"]))


# --------------------------------------------------------------------------------------------------- later partitions


@promise(schedules(["0"]), st.lists(ROW, max_size=6), st.lists(ROW, max_size=6))
def test_a_partition_that_appears_later_is_judged_by_the_watermark_it_found(
    schedule: Schedule, first: Sequence[model.Row], then: Sequence[model.Row]
) -> None:
    before = model.judge(schedule.rows("0"), LATENESS, AHEAD)
    with played(aggregate_flow(), schedule) as run:
        for rows in (first, then):
            run.feed("in", rows, partition="later")
            run.drain()
        run.drain(close=True)
        later = model.judge([*first, *then], LATENESS, AHEAD, largest=before.largest)
        windows = model.aggregate([*before.timely, *later.timely], ["k"], WINDOW)
        assert as_bag(run.rows("closed")) == as_bag(windows)
        assert as_bag(run.rows("updates")) == as_bag(windows)


# ---------------------------------------------------------------------------------------------------------- all at once


@pytest.mark.heavy
@pytest.mark.parametrize(("strategies", "body"), PROMISES)
@MANY
@given(data=st.data())
def test_on_many_schedules(strategies: tuple[Any, ...], body: Any, data: st.DataObject) -> None:
    body(*(data.draw(strategy) for strategy in strategies))
