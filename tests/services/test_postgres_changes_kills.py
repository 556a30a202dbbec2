"""Killed at every durable step while a table is read for the first time and followed, beside concurrent writers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from onefold.testing.harness import (
    ForkServer,
    Schedule,
    at_every_step,
    at_random_moments,
    at_two_steps,
    chosen,
    run_schedules,
    steps_of,
)
from tests.services import postgres_changes_controls as controls
from tests.services.postgres_changes_flows import MIRROR

pytestmark = pytest.mark.crash

Count = Callable[[int], int]


def test_killed_at_any_durable_step_every_copy_is_right(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = chosen(steps_of(MIRROR, tmp_path / "untouched", database_server), schedules(14), seed=seed)
    results = run_schedules(MIRROR, at_every_step(steps), tmp_path, database_server)
    print(results.text())
    assert not results.failures, results.text()


def test_killed_again_inside_recovery_every_copy_is_right(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = steps_of(MIRROR, tmp_path / "untouched", database_server)
    results = run_schedules(MIRROR, at_two_steps(schedules(4), steps, seed=seed), tmp_path, database_server)
    print(results.text())
    assert not results.failures, results.text()


def test_killed_at_random_moments_every_copy_is_right(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    results = run_schedules(MIRROR, at_random_moments(schedules(4), 1.0, seed=seed), tmp_path, database_server)
    print(results.text())
    assert not results.failures, results.text()


STEPS = ("postgres.publication", "postgres.slot", "postgres.beginning", "postgres.settle")


@pytest.mark.parametrize("step", [f"{when} {step}" for step in STEPS for when in ("before", "after")])
def test_killed_where_slot_and_publication_are_made_or_moved_on_every_copy_is_right(
    step: str, tmp_path: Path, database_server: ForkServer
) -> None:
    """A slot that was not moved on gives again what is settled: it is not taken."""
    results = run_schedules(MIRROR, [Schedule.parse(f"kill {step}#1")], tmp_path, database_server)
    assert not results.failures, results.text()
    assert results.columns()["steps killed at"] == 1


BEGINNING = [f"{when} {step}#1" for step in STEPS[:3] for when in ("before", "after")]


@pytest.mark.parametrize("step", [*BEGINNING, "before journal.seal#2", "after journal.seal#4"])
def test_a_zombie_that_wakes_changes_nothing(step: str, tmp_path: Path, database_server: ForkServer) -> None:
    """It holds the slot while it sleeps; its successor ends its sessions."""
    results = run_schedules(MIRROR, [Schedule.parse(f"freeze {step}")], tmp_path, database_server)
    assert not results.failures, results.text()


KILLS = [f"kill before journal.seal#{count}" for count in (3, 4, 5, 6)]
CONTROLS = [controls.confirmed_when_read, controls.touched_rows_given, controls.read_at_once]


@pytest.mark.parametrize("safeguard", CONTROLS, ids=lambda safeguard: safeguard.__name__)
def test_a_safeguard_taken_out_is_missed(
    safeguard: Callable[[], None], tmp_path: Path, database_server: ForkServer
) -> None:
    """Under the same schedules all is right with it."""
    schedules = [Schedule.parse(text) for text in KILLS]
    with_it = run_schedules(MIRROR, schedules, tmp_path / "with", database_server)
    assert not with_it.failures, with_it.text()
    without = replace(MIRROR, arrange=(*MIRROR.arrange, safeguard))
    found = run_schedules(without, schedules, tmp_path / "without", database_server)
    print(found.text())
    assert found.failures
