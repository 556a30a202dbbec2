"""Killed at every durable step while a table is read for the first time and followed, beside concurrent writers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onefold.testing.harness import Schedule
from tests.services import postgres_changes_controls as controls
from tests.services.postgres_changes_flows import MIRROR
from tests.stage import Stage

pytestmark = pytest.mark.crash


def test_killed_at_any_durable_step_every_copy_is_right(database_stage: Stage) -> None:
    database_stage.at_every_step(MIRROR, 14)


def test_killed_again_inside_recovery_every_copy_is_right(database_stage: Stage) -> None:
    database_stage.inside_recovery(MIRROR, 4)


def test_killed_at_random_moments_every_copy_is_right(database_stage: Stage) -> None:
    database_stage.at_random_moments(MIRROR, 4)


STEPS = ("postgres.publication", "postgres.slot", "postgres.beginning", "postgres.settle")


@pytest.mark.parametrize("step", [f"{when} {step}" for step in STEPS for when in ("before", "after")])
def test_killed_where_slot_and_publication_are_made_or_moved_on_every_copy_is_right(
    step: str, database_stage: Stage
) -> None:
    """A slot that was not moved on gives again what is settled: it is not taken."""
    results = database_stage.play(MIRROR, [Schedule.parse(f"kill {step}#1")])
    assert results.columns()["steps killed at"] == 1


BEGINNING = [f"{when} {step}#1" for step in STEPS[:3] for when in ("before", "after")]


@pytest.mark.parametrize("step", [*BEGINNING, "before journal.seal#2", "after journal.seal#4"])
def test_a_zombie_that_wakes_changes_nothing(step: str, database_stage: Stage) -> None:
    """It holds the slot while it sleeps; its successor ends its sessions."""
    database_stage.wake_a_zombie(MIRROR, step)


KILLS = [f"kill before journal.seal#{count}" for count in (3, 4, 5, 6)]
CONTROLS = [controls.confirmed_when_read, controls.touched_rows_given, controls.read_at_once]


@pytest.mark.parametrize("safeguard", CONTROLS, ids=lambda safeguard: safeguard.__name__)
def test_a_safeguard_taken_out_is_missed(safeguard: Callable[[], None], database_stage: Stage) -> None:
    database_stage.miss_a_safeguard(MIRROR, safeguard, KILLS, other=controls.late_marks)
