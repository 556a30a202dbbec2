"""A frozen process that wakes after another has taken over, on the same folder or on a copy, changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onefold.testing.harness import OVERTAKEN, ForkServer, Results, at_every_step, chosen, run_schedules, steps_of
from onefold.testing.harness_stage import NONE, NOT_ADOPTED
from tests.crash.subjects import SUBJECTS

pytestmark = pytest.mark.crash

SAME = {"revenue": 16, "running": 10, "together": 8}
COPIED = {"ledgers": 12, "running": 8, "together": 8}


def overtaken(results: Results) -> set[str]:
    """How the zombies ended."""
    return {end["code"] for result in results.results for end in result.ends if end["end"] == "failed"}


@pytest.mark.parametrize("name", SAME)
def test_a_zombie_of_the_same_journal_dies_fenced(
    name: str, tmp_path: Path, server: ForkServer, schedules: Callable[[int], int], seed: int
) -> None:
    subject = SUBJECTS[name]
    steps = chosen(steps_of(subject, tmp_path / "untouched", server), schedules(SAME[name]), seed=seed)
    results = run_schedules(subject, at_every_step(steps, "freeze"), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()
    assert overtaken(results) <= OVERTAKEN
    assert "journal-fenced" in overtaken(results)


@pytest.mark.parametrize("name", COPIED)
def test_a_zombie_of_a_copied_journal_is_refused_by_the_sinks(
    name: str, tmp_path: Path, server: ForkServer, schedules: Callable[[int], int], seed: int
) -> None:
    subject = SUBJECTS[name]
    steps = steps_of(subject, tmp_path / "untouched", server)
    steps = [step for step in steps[steps.index("after journal.start#1") :] if not holds_a_database(step)]
    results = run_schedules(
        subject, at_every_step(chosen(steps, schedules(COPIED[name]), seed=seed), "fork"), tmp_path, server
    )
    print(results.text())
    assert not results.failures, results.text()
    # Together, what the copy has committed or left undecided under the same seals ends the other, too.
    allowed = NOT_ADOPTED if name == "together" else NONE
    assert overtaken(results) <= OVERTAKEN | allowed
    assert overtaken(results) & {"token-refused", "sink-forked", *allowed}


def holds_a_database(step: str) -> bool:
    """A process frozen here keeps all others out of a sink: there the copy could not go first."""
    return step.split(" ")[1].startswith(("duckdb.", "sqlite."))
