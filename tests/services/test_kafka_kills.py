"""Killed at every durable step of flows over Kafka, inside recovery, and by the clock."""

from __future__ import annotations

import pytest

from tests.services.kafka_flows import SUBJECTS
from tests.stage import Stage

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("name", SUBJECTS)
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.at_every_step(SUBJECTS[name], 20)


@pytest.mark.parametrize("name", ["topic-to-topic"])
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.inside_recovery(SUBJECTS[name], 8)


@pytest.mark.parametrize("name", ["topic-to-topic"])
def test_killed_at_random_moments_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.at_random_moments(SUBJECTS[name], 8, 1.5)
