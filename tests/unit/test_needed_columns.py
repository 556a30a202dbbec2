"""Columns that nobody reads are dropped early; what is read, and what expressions may read, stays."""

from __future__ import annotations

from pathlib import Path

import pytest

import onefold as of
from onefold.errors import ExpressionError
from onefold.operators.needed import needed_columns

SCHEMA = {"id": "VARCHAR", "kind": "VARCHAR", "Place": "VARCHAR", "amount": "BIGINT", "at": "TIMESTAMP"}


def stream(flow: of.Flow, where: str = "kind <> 'refund'") -> of.Stream:
    rows = flow.read(of.memory("needed-in"), schema=SCHEMA, event_time="at", lateness="1 hour", name="in")
    return rows.where(where, name="valid").dedup("id", within=None, name="once")


def needed(flow: of.Flow) -> dict[str, tuple[str, ...]]:
    return dict(needed_columns(flow.plan))


def test_what_only_one_operator_reads_ends_there() -> None:
    flow = of.Flow("needed")
    sums = stream(flow).window("1 minute").group_by("Place").agg(total="sum(amount)")
    sums.append(of.memory("needed-out"))
    found = needed(flow)
    assert found["in"] == tuple(SCHEMA)
    assert found["valid"] == ("id", "Place", "amount", "at")
    assert found["once"] == ("Place", "amount", "at")


def test_an_output_reads_everything() -> None:
    flow = of.Flow("needed")
    stream(flow).append(of.memory("needed-out"))
    assert set(needed(flow).values()) == {tuple(SCHEMA)}


@pytest.mark.parametrize("predicate", ["PLACE = 'x'", "\"Place\" = 'x'", "length(place) > 1"])
def test_names_are_found_however_they_are_written(predicate: str) -> None:
    flow = of.Flow("needed")
    rows = flow.read(of.memory("needed-in"), schema=SCHEMA, name="in").where(predicate)
    rows.select(double="amount * 2").append(of.memory("needed-out"), name="out")
    assert needed(flow)["in"] == ("Place", "amount")


@pytest.mark.parametrize("predicate", ["COLUMNS(*) IS NOT NULL", "COLUMNS('.*') IS NOT NULL", "* IS NOT NULL"])
def test_no_expression_reads_columns_that_it_does_not_name(predicate: str) -> None:
    rows = of.Flow("needed").read(of.memory("needed-in"), schema=SCHEMA, name="in")
    with pytest.raises(ExpressionError):
        rows.where(predicate)


def test_counting_rows_keeps_one_column(tmp_path: Path) -> None:
    flow = of.Flow("needed")
    rows = flow.read(of.memory(f"{tmp_path}-in"), schema=SCHEMA, name="in")
    rows.group_by("kind").agg(rows="count(*)").upsert(of.memory(f"{tmp_path}-out"), key=["kind"], name="out")
    assert needed(flow)["in"] == ("kind",)


def test_the_results_are_the_same(tmp_path: Path) -> None:
    flow = of.Flow("needed")
    rows = flow.read(of.memory(f"{tmp_path}-in"), schema=SCHEMA, name="in")
    kept = rows.where("kind = 'sale'").where("amount > 1")
    kept.select(double="amount * 2").append(of.memory(f"{tmp_path}-one"), name="one")
    kept.dedup("id", within=None).group_by("Place").agg(n="count(*)").upsert(
        of.memory(f"{tmp_path}-two"), key=["Place"], name="two"
    )
    with of.testing.run(flow) as t:
        t.feed("in", [{"id": str(i % 2), "kind": "sale", "Place": "p", "amount": i} for i in range(4)])
        t.drain()
        assert t.rows("one") == [{"double": 4}, {"double": 6}]
        assert t.rows("two") == [{"Place": "p", "n": 2}]
