"""Rows that a table refuses become dead letters of their epoch, and all others are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onefold.connectors import sifting
from onefold.errors import RowsRefused
from onefold.testing.harness import at_every_step
from tests.services.database_systems import MYSQL, POSTGRES, System
from tests.services.refused_world import World, records
from tests.stage import Count, Stage

pytestmark = pytest.mark.parametrize("system", [POSTGRES, MYSQL], ids=str)


@pytest.fixture
def world(system: System, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    request.getfixturevalue(system.server)
    return World(tmp_path, system)


@pytest.fixture
def stage(system: System, request: pytest.FixtureRequest, tmp_path: Path, schedules: Count, seed: int) -> Stage:
    return Stage(tmp_path, request.getfixturevalue(system.forks), schedules, seed)


def test_a_constraint_leaves_out_the_rows_that_violate_it_and_names_it(world: World) -> None:
    world.execute("CREATE TABLE t (id bigint, v varchar(40), CONSTRAINT kind CHECK (v <> 'bad'))")
    world.write(records(1000, n3="bad", n4="bad", n700="bad", n999="bad"))
    assert len(world.stored()) == 996
    assert len(world.stored("all_rows")) == 1000
    assert world.refused() == [3, 4, 700, 999]
    letter = world.letters()[0]
    assert (letter.read, letter.reason) == ("sink t", "refused")
    assert "kind" in letter.detail


def test_of_rows_that_exclude_each_other_the_first_stays(world: World) -> None:
    world.execute("CREATE TABLE t (id bigint UNIQUE, v varchar(40))")
    world.write([*records(5), {"id": 2, "v": "again"}, {"id": 4, "v": "again"}])
    assert [v for _, v in world.stored()] == ["fine"] * 5
    assert [json.loads(letter.raw) for letter in world.letters()] == [
        {"id": 2, "v": "again"},
        {"id": 4, "v": "again"},
    ]


def test_a_text_that_would_be_cut_off_is_left_out(world: World) -> None:
    world.execute("CREATE TABLE t (id bigint, v varchar(4))")
    world.write(records(20, n7="long  "))
    assert len(world.stored()) == 19
    assert world.refused() == [7]


def test_upserts_leave_out_what_is_refused(world: World) -> None:
    world.execute("CREATE TABLE t (id bigint PRIMARY KEY, v varchar(40), CHECK (v <> 'bad'))")
    world.write([*records(10), {"id": 3, "v": "bad"}, {"id": 5, "v": "newer"}], key="id")
    assert (5, "newer") in world.stored()
    assert 3 not in dict(world.stored()), "the newest row of a key counts, and that is a dead letter"
    assert world.refused() == [3]


def test_a_row_that_another_table_needs_is_not_deleted(world: World) -> None:
    world.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(40))",
        "CREATE TABLE child (id bigint, FOREIGN KEY (id) REFERENCES t (id))",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO child VALUES (1)",
    )
    world.delete(1, 2)
    assert world.stored() == [(1, "a")]
    assert world.refused() == [1]


def test_a_row_that_another_table_does_not_know_is_left_out(world: World) -> None:
    world.execute(
        "CREATE TABLE parents (id bigint PRIMARY KEY)",
        "INSERT INTO parents VALUES (1)",
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(40), FOREIGN KEY (id) REFERENCES parents (id))",
    )
    world.write([{"id": 2, "v": "no parent"}, {"id": 1, "v": "fine"}])
    assert world.stored() == [(1, "fine")]
    assert world.refused() == [2]


def test_an_epoch_of_refused_rows_alone_moves_the_token(world: World) -> None:
    world.execute("CREATE TABLE t (id bigint, v varchar(40), CHECK (v <> 'bad'))")
    world.write([{"id": 1, "v": "bad"}])
    assert (world.stored(), len(world.letters())) == ([], 1)
    world.write([{"id": 1, "v": "bad"}, {"id": 2, "v": "fine"}])
    assert (world.stored(), len(world.letters())) == ([(2, "fine")], 1)


def test_more_than_exceptions_end_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sifting, "MOST_REFUSED", 5)
    world.execute("CREATE TABLE t (id bigint, v varchar(40), CHECK (v <> 'bad'))")
    with pytest.raises(RowsRefused, match="more than 5 rows"):
        world.write(records(20, **{f"n{number}": "bad" for number in range(6)}))
    assert (world.stored("all_rows"), world.letters()) == ([], [])


def test_without_it_the_run_ends_and_nobody_has_seen_anything(world: World) -> None:
    world.execute("CREATE TABLE t (id bigint, v varchar(40), CONSTRAINT kind CHECK (v <> 'bad'))")
    with pytest.raises(RowsRefused, match="kind"):
        world.write(records(20, n7="bad"), refused="stop")
    assert (world.stored(), world.stored("all_rows"), world.letters()) == ([], [], [])


@pytest.mark.crash
def test_killed_at_any_durable_step_each_row_is_written_or_a_dead_letter(system: System, stage: Stage) -> None:
    stage.at_every_step(system.flows.SIFTED, 8)


@pytest.mark.crash
def test_killed_again_inside_recovery_each_row_is_written_or_a_dead_letter(system: System, stage: Stage) -> None:
    stage.inside_recovery(system.flows.SIFTED, 3)


@pytest.mark.crash
def test_refused_rows_that_are_not_told_are_missed(system: System, stage: Stage) -> None:
    first = str(at_every_step(stage.steps(system.flows.SIFTED)[:1])[0])
    stage.miss_a_safeguard(system.flows.SIFTED, system.controls.refused_rows_forgotten, [first])
