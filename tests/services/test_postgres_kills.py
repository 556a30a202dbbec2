"""Killed at every durable step of flows into PostgreSQL, inside recovery, and by the clock; a zombie that wakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onefold.testing.harness import ForkServer, Subject
from tests.services import database_kills as kills
from tests.services import postgres_controls as controls
from tests.services.database_kills import ZOMBIES, Count, Stage
from tests.services.postgres_flows import AT_LEAST_ONCE, AT_MOST_ONCE, LEDGER

pytestmark = pytest.mark.crash


@pytest.fixture
def stage(tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int) -> Stage:
    return Stage(tmp_path, database_server, schedules, seed)


def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    kills.kill_at_every_step(stage, LEDGER, 30)


def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    kills.kill_inside_recovery(stage, LEDGER, 12)


def test_killed_at_random_moments_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    kills.kill_at_random_moments(stage, LEDGER, 12)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("step", ["before postgres.write", "before postgres.commit", "after postgres.commit"])
def test_a_zombie_that_wakes_changes_nothing(step: str, count: int, stage: Stage) -> None:
    """Frozen with its transaction open, which its successor has to wait for or to outlive."""
    kills.wake_a_zombie(stage, LEDGER, step, count)


@pytest.mark.parametrize("subject", [AT_LEAST_ONCE, AT_MOST_ONCE], ids=["at-least-once", "at-most-once"])
def test_the_weaker_guarantees_show_their_promise_and_no_other(subject: Subject, stage: Stage) -> None:
    kills.kill_at_every_step(stage, subject, 15)


CONTROLS = {
    controls.token_moved_afterwards: ([f"kill after postgres.commit#{count}" for count in range(1, 8)], None),
    controls.token_not_compared: (ZOMBIES, controls.sessions_left_alone),
}


@pytest.mark.parametrize("safeguard", CONTROLS, ids=lambda safeguard: safeguard.__name__)
def test_a_safeguard_taken_out_is_missed(safeguard: Callable[[], None], stage: Stage) -> None:
    texts, other = CONTROLS[safeguard]
    kills.miss_a_safeguard(stage, LEDGER, safeguard, texts, other)
