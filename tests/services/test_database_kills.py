"""Killed at every durable step of flows into a database server, inside recovery, by the clock; a zombie that wakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services import database_kills as kills
from tests.services.database_kills import ZOMBIES, Count, Stage
from tests.services.database_systems import MYSQL, POSTGRES, System

pytestmark = [pytest.mark.crash, pytest.mark.parametrize("system", [POSTGRES, MYSQL], ids=str)]


@pytest.fixture
def stage(system: System, request: pytest.FixtureRequest, tmp_path: Path, schedules: Count, seed: int) -> Stage:
    return Stage(tmp_path, request.getfixturevalue(system.forks), schedules, seed)


def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(system: System, stage: Stage) -> None:
    kills.kill_at_every_step(stage, system.flows.LEDGER, 30)


def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(system: System, stage: Stage) -> None:
    kills.kill_inside_recovery(stage, system.flows.LEDGER, 12)


def test_killed_at_random_moments_nothing_is_lost_or_duplicated(system: System, stage: Stage) -> None:
    kills.kill_at_random_moments(stage, system.flows.LEDGER, 12)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("step", ["before {}.write", "before {}.commit", "after {}.commit"])
def test_a_zombie_that_wakes_changes_nothing(step: str, count: int, system: System, stage: Stage) -> None:
    """Frozen with its transaction open, which its successor has to wait for or to outlive."""
    kills.wake_a_zombie(stage, system.flows.LEDGER, step.format(system.steps), count)


@pytest.mark.parametrize("guarantee", ["AT_LEAST_ONCE", "AT_MOST_ONCE"])
def test_the_weaker_guarantees_show_their_promise_and_no_other(guarantee: str, system: System, stage: Stage) -> None:
    kills.kill_at_every_step(stage, getattr(system.flows, guarantee), 15)


def test_a_token_that_is_moved_after_the_rows_is_missed(system: System, stage: Stage) -> None:
    texts = [f"kill after {system.steps}.commit#{count}" for count in range(1, 8)]
    kills.miss_a_safeguard(stage, system.flows.LEDGER, system.controls.token_moved_afterwards, texts)


def test_a_token_that_is_not_compared_is_missed(system: System, stage: Stage) -> None:
    controls = system.controls
    kills.miss_a_safeguard(
        stage, system.flows.LEDGER, controls.token_not_compared, ZOMBIES, controls.sessions_left_alone
    )
