"""A process that sleeps through its successor's work wakes and changes nothing in the topics."""

from __future__ import annotations

import pytest

from onefold.testing.harness import OVERTAKEN, Act
from tests.services.kafka_flows import SUBJECTS
from tests.stage import Stage, overtaken

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("act", ["freeze", "fork"])
def test_a_zombie_changes_nothing(act: Act, stage: Stage) -> None:
    subject = SUBJECTS["topic-to-topic"]
    steps = stage.steps(subject)
    results = stage.at_every_step(subject, 8, act, steps[steps.index("after journal.start#1") :])
    assert overtaken(results) <= OVERTAKEN
    assert overtaken(results)
