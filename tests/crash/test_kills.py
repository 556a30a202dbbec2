"""Killed before and after durable steps, at random moments, twice in a row: nothing lost, nothing duplicated."""

from __future__ import annotations

import pytest

from tests.crash.subjects import SUBJECTS
from tests.stage import Stage

pytestmark = pytest.mark.crash

ONCE = {"revenue": 40, "ledgers": 36, "spooled": 44, "running": 26, "together": 28}
"""Before and after each kind of durable step that the flow has."""

TWICE = {"revenue": 8, "spooled": 6, "running": 10, "together": 8}
CLOCK = {"revenue": 10, "running": 8, "together": 6}
SECONDS = 0.8


@pytest.mark.parametrize("name", ONCE)
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.at_every_step(SUBJECTS[name], ONCE[name])


@pytest.mark.parametrize("name", TWICE)
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.inside_recovery(SUBJECTS[name], TWICE[name])


@pytest.mark.parametrize("name", CLOCK)
def test_killed_at_random_moments_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.at_random_moments(SUBJECTS[name], CLOCK[name], SECONDS)
