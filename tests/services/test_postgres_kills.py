"""Killed at every durable step of flows into PostgreSQL, inside recovery, and by the clock; a zombie that wakes."""

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
from tests.services import postgres_controls as controls
from tests.services.postgres_flows import AT_LEAST_ONCE, AT_MOST_ONCE, LEDGER

pytestmark = pytest.mark.crash

Count = Callable[[int], int]


def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = chosen(steps_of(LEDGER, tmp_path / "untouched", database_server), schedules(30), seed=seed)
    results = run_schedules(LEDGER, at_every_step(steps), tmp_path, database_server)
    print(results.text())
    assert not results.failures, results.text()


def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = steps_of(LEDGER, tmp_path / "untouched", database_server)
    results = run_schedules(LEDGER, at_two_steps(schedules(12), steps, seed=seed), tmp_path, database_server)
    print(results.text())
    assert not results.failures, results.text()


def test_killed_at_random_moments_nothing_is_lost_or_duplicated(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    results = run_schedules(LEDGER, at_random_moments(schedules(12), 1.0, seed=seed), tmp_path, database_server)
    print(results.text())
    assert not results.failures, results.text()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("step", ["before postgres.write", "before postgres.commit", "after postgres.commit"])
def test_a_zombie_that_wakes_changes_nothing(
    step: str, count: int, tmp_path: Path, database_server: ForkServer
) -> None:
    """Frozen with its transaction open, which its successor has to wait for or to outlive."""
    schedule = Schedule.parse(f"freeze {step}#{count}")
    results = run_schedules(LEDGER, [schedule], tmp_path, database_server)
    assert not results.failures, results.text()


@pytest.mark.parametrize("subject", [AT_LEAST_ONCE, AT_MOST_ONCE], ids=["at-least-once", "at-most-once"])
def test_the_weaker_guarantees_show_their_promise_and_no_other(
    subject: object, tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = chosen(steps_of(subject, tmp_path / "untouched", database_server), schedules(15), seed=seed)  # type: ignore[arg-type]
    results = run_schedules(subject, at_every_step(steps), tmp_path, database_server)  # type: ignore[arg-type]
    print(results.text())
    assert not results.failures, results.text()


ZOMBIES = [f"freeze after journal.seal#{count}" for count in (1, 2, 3)]
CONTROLS = {
    controls.token_moved_afterwards: ([f"kill after postgres.commit#{count}" for count in (1, 4, 7)], None),
    controls.token_not_compared: (ZOMBIES, controls.sessions_left_alone),
}


@pytest.mark.parametrize("safeguard", CONTROLS, ids=lambda safeguard: safeguard.__name__)
def test_a_safeguard_taken_out_is_missed(
    safeguard: Callable[[], None], tmp_path: Path, database_server: ForkServer
) -> None:
    """Under the same schedules all is right with it."""
    texts, other = CONTROLS[safeguard]
    schedules = [Schedule.parse(text) for text in texts]
    right = LEDGER if other is None else replace(LEDGER, arrange=(other,))
    with_it = run_schedules(right, schedules, tmp_path / "with", database_server)
    assert not with_it.failures, with_it.text()
    without = replace(LEDGER, arrange=(safeguard,))
    assert run_schedules(without, schedules, tmp_path / "without", database_server).failures
