"""Killed before and after durable steps, at random moments, twice in a row: nothing lost, nothing duplicated.

Repeat one schedule with ONEFOLD_SCHEDULE='…' in the environment, as a failure prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onefold.testing.harness import (
    ForkServer,
    at_every_step,
    at_random_moments,
    at_two_steps,
    chosen,
    run_schedules,
    steps_of,
)
from tests.crash.subjects import SUBJECTS

pytestmark = pytest.mark.crash

Count = Callable[[int], int]

ONCE = {"revenue": 50, "ledgers": 40, "spooled": 46, "running": 50, "together": 40}
"""Enough to kill before and after each kind of durable step that the flow has."""

TWICE = {"revenue": 15, "spooled": 10, "running": 20, "together": 15}
CLOCK = {"revenue": 20, "running": 15, "together": 10}


@pytest.mark.parametrize("name", ONCE)
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    subject = SUBJECTS[name]
    steps = chosen(steps_of(subject, tmp_path / "untouched", server), schedules(ONCE[name]), seed=seed)
    results = run_schedules(subject, at_every_step(steps), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()


@pytest.mark.parametrize("name", TWICE)
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    subject = SUBJECTS[name]
    steps = steps_of(subject, tmp_path / "untouched", server)
    results = run_schedules(subject, at_two_steps(schedules(TWICE[name]), steps, seed=seed), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()


@pytest.mark.parametrize("name", CLOCK)
def test_killed_at_random_moments_nothing_is_lost_or_duplicated(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    subject = SUBJECTS[name]
    results = run_schedules(subject, at_random_moments(schedules(CLOCK[name]), 0.8, seed=seed), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()
