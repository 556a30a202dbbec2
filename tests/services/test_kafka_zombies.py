"""A process that sleeps through its successor's work wakes and changes nothing in the topics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onefold.testing.harness import OVERTAKEN, ForkServer, at_every_step, chosen, run_schedules, steps_of
from tests.services.kafka_flows import SUBJECTS

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("act", ["freeze", "fork"])
def test_a_zombie_changes_nothing(
    act: str, tmp_path: Path, server: ForkServer, schedules: Callable[[int], int], seed: int
) -> None:
    subject = SUBJECTS["topic-to-topic"]
    steps = steps_of(subject, tmp_path / "untouched", server)
    steps = steps[steps.index("after journal.start#1") :]
    results = run_schedules(subject, at_every_step(chosen(steps, schedules(8), seed=seed), act), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()
    ends = {end["code"] for result in results.results for end in result.ends if end["end"] == "failed"}
    assert ends <= OVERTAKEN
    assert ends
