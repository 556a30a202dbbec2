"""Killed at every durable step of flows over Kafka, inside recovery, and by the clock."""

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
from tests.services.kafka_flows import SUBJECTS

pytestmark = pytest.mark.crash

Count = Callable[[int], int]


@pytest.mark.parametrize("name", SUBJECTS)
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    subject = SUBJECTS[name]
    steps = chosen(steps_of(subject, tmp_path / "untouched", server), schedules(20), seed=seed)
    results = run_schedules(subject, at_every_step(steps), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()


@pytest.mark.parametrize("name", ["topic-to-topic"])
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    subject = SUBJECTS[name]
    steps = steps_of(subject, tmp_path / "untouched", server)
    results = run_schedules(subject, at_two_steps(schedules(8), steps, seed=seed), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()


@pytest.mark.parametrize("name", ["topic-to-topic"])
def test_killed_at_random_moments_nothing_is_lost_or_duplicated(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    subject = SUBJECTS[name]
    results = run_schedules(subject, at_random_moments(schedules(8), 1.5, seed=seed), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()
