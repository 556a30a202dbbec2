"""Every event is accounted for, in every epoch and since the beginning."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.books import Books, add_totals, digest_of
from onefold.engines.embedded import pipeline
from onefold.errors import InvariantBroken, TooManyDead
from onefold.operators.dedup import Dedup, DedupCounts
from tests.unit.engine_bench import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("read", {"read": 3, "out": 2}),
        ("step", {"read": 3, "out": 4}),
        ("dedup", {"read": 3, "out": 3, "duplicates": 1}),
        ("aggregate", {"held_before": 1, "opened": 1, "held_after": 1}),
        ("read", {"read": 1, "out": 2, "late": -1}),
    ],
)
def test_an_equation_that_does_not_hold_is_a_crash(kind: str, counts: dict[str, int]) -> None:
    with pytest.raises(InvariantBroken, match="INV-13"):
        Books().operator("x", kind, **counts)


def test_totals_add_up_and_digests_do_not_depend_on_order_or_cut() -> None:
    rows = pa.table({"n": [1, 2, 2, None], "s": ["a", "b", "b", None]})
    totals: dict[str, Any] = {}
    for part in (rows.slice(2), rows.slice(0, 2)):
        books = Books()
        books.operator("dedup", "dedup", read=part.num_rows, out=part.num_rows, duplicates=0)
        books.operator("sum", "aggregate", held_before=len(totals), opened=1, held_after=len(totals) + 1)
        books.sink("a", part)
        totals = add_totals(totals, books.to_json())
    assert totals["operators"]["dedup"] == {"kind": "dedup", "read": 4, "out": 4, "duplicates": 0}
    assert totals["sinks"]["a"]["appended"] == 4
    assert totals["sinks"]["a"]["digest"] == f"{digest_of(rows):032x}"
    assert digest_of(rows) == digest_of(rows.take([3, 0, 2, 1]))
    assert digest_of(rows) != digest_of(rows.slice(0, 3))
    assert digest_of(rows.slice(1, 1)) != digest_of(rows.slice(1, 2))


def flow(bench: Bench, **settings: Any) -> of.Flow:
    made = of.Flow("bench", **{"epoch_rows": 4, **settings})
    rows = made.read(
        bench.memory("in"), schema={"n": "BIGINT", "t": "TIMESTAMP"}, name="in", format="json", event_time="t",
        lateness="5 seconds",
    )  # fmt: skip
    kept = rows.where("n <> 3", name="kept")
    kept.dedup("n", within=None, name="first").append(bench.memory("a"), name="a")
    kept.window("10 seconds", name="sums").agg(total="sum(n)").append(bench.memory("w"), name="w")
    return made


def lines() -> list[str]:
    rows = [(n % 7, f"1970-01-01 00:00:{n:02}") for n in range(30)]
    rows.insert(20, (1, "1970-01-01 00:00:01"))  # late
    return [json.dumps({"n": n, "t": t}) for n, t in rows] + ["{malformed", '{"n": 1.5, "t": "1970-01-01"}']


def test_every_row_of_a_run_is_in_the_totals_and_they_go_on_over_restarts(bench: Bench) -> None:
    plan = flow(bench).plan
    bench.memory("in").feed_bytes(lines()[:16])
    outputs = {**{o.name: o for o in plan.outputs}, pipeline.DEAD_LETTERS: dead_letters(bench)}
    first = opened(bench, outputs, plan)
    first.drain()
    bench.memory("in").feed_bytes(lines()[16:])
    second = opened(bench, outputs, plan)
    second.drain()
    operators = second.conductor.totals["operators"]
    assert operators["in"] == {"kind": "read", "read": 33, "out": 30, "dead": 2, "late": 1}
    kept = sum(n % 7 != 3 for n in range(30))
    assert (operators["kept"]["read"], operators["kept"]["out"], operators["kept"]["filtered"]) == (30, kept, 30 - kept)
    assert (operators["first"]["out"], operators["first"]["duplicates"]) == (6, kept - 6)
    assert operators["sums"]["opened"] == operators["sums"]["closed"] + operators["sums"]["held_after"] == 3
    sinks = second.conductor.totals["sinks"]
    assert sinks[pipeline.DEAD_LETTERS]["appended"] == 3
    for name in ("a", "w"):
        assert sinks[name]["appended"] == len(bench.memory(name).rows())
        assert sinks[name]["digest"] == f"{digest_of(bench.memory(name).table()):032x}"


def test_the_books_of_each_epoch_are_in_its_seal_and_add_up_to_the_totals(bench: Bench) -> None:
    bench.feed(5)
    bench.run(bench.flow("a", epoch_rows=2))
    with closing(sqlite3.connect(bench.folder / "journal.sqlite")) as con:
        seals = [json.loads(h) for (h,) in con.execute("SELECT header FROM record WHERE kind = 'seal' ORDER BY number")]
    assert [seal["books"]["operators"]["in"]["read"] for seal in seals] == [2, 2, 1]
    assert [seal["totals"]["operators"]["in"]["read"] for seal in seals] == [2, 4, 5]


def dead_letters(bench: Bench) -> Any:
    from onefold.operators.reading import DEAD_SCHEMA
    from onefold.plan import Output
    from onefold.types import Guarantee

    endpoint = bench.memory("dead")
    sink = endpoint.as_sink("append", ())
    return Output(pipeline.DEAD_LETTERS, "", sink, endpoint.label, DEAD_SCHEMA, "append", Guarantee.EXACTLY_ONCE)


def opened(bench: Bench, outputs: Any, plan: Any) -> Any:
    from onefold.engines.embedded.inline import InlineRun

    run = InlineRun(plan, bench.folder, outputs, clock=bench.clock)
    run.begin()
    while run.step():
        pass
    return run


# ------------------------------------------------------------------------------------------------------------ max_dead


def test_too_many_dead_letters_stop_the_flow_before_anything_of_that_epoch_is_written(bench: Bench) -> None:
    made = of.Flow("bench", epoch_rows=100, max_dead="10%")
    made.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in", format="json").append(bench.memory("a"), name="a")
    outputs = {**{o.name: o for o in made.plan.outputs}, pipeline.DEAD_LETTERS: dead_letters(bench)}
    bench.memory("in").feed_bytes(['{"n": 1}'] * 90 + ["{"] * 10)
    opened(bench, outputs, made.plan).drain()
    assert len(bench.memory("a").rows()) == 90
    bench.memory("in").feed_bytes(['{"n": 2}'] * 89 + ["{"] * 11)
    with pytest.raises(TooManyDead, match="11") as many:
        opened(bench, outputs, made.plan)
    assert str(many.value).count("malformed") == 3
    assert "Nothing of this epoch was written" in many.value.next_step
    assert len(bench.memory("a").rows()) == 90
    assert len(bench.memory("dead").rows()) == 10


def test_a_few_rows_are_too_few_to_judge(bench: Bench) -> None:
    made = of.Flow("bench", max_dead="1%")
    made.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in", format="json").append(bench.memory("a"), name="a")
    outputs = {**{o.name: o for o in made.plan.outputs}, pipeline.DEAD_LETTERS: dead_letters(bench)}
    bench.memory("in").feed_bytes(["{"] * 99)
    opened(bench, outputs, made.plan).drain()
    assert len(bench.memory("dead").rows()) == 99


def test_rows_that_vanish_between_two_operators_stop_the_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Dedup.run

    def loses_one(self: Dedup, rows: pa.Table, columns: Sequence[str]) -> tuple[pa.Table, DedupCounts]:
        kept, counts = honest(self, rows, columns)
        return kept.slice(1), counts

    monkeypatch.setattr(Dedup, "run", loses_one)
    flow = of.Flow("books")
    rows = flow.read(of.memory(f"{tmp_path}-in"), schema={"n": "BIGINT"}, name="in")
    rows.dedup("n", within=None).append(of.memory(f"{tmp_path}-out"), name="out")
    with of.testing.run(flow) as t:
        t.feed("in", [{"n": 1}, {"n": 2}])
        with pytest.raises(InvariantBroken, match="emits"):
            t.drain()
        assert t.rows("out") == []


def test_a_column_that_no_row_has_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flow = of.Flow("names")
    rows = flow.read(of.memory(f"{tmp_path}-in"), schema={"n": "BIGINT", "amont": "BIGINT"}, format="json", name="in")
    rows.append(of.memory(f"{tmp_path}-out"), name="out")
    with of.testing.run(flow) as t:
        t.feed("in", [{"n": number, "amount": 1} for number in range(200)])
        t.drain()
    told = [record.getMessage() for record in caplog.records if "is the name right" in record.getMessage()]
    assert told == ["read in: no row has a value for amont; is the name right?"]
