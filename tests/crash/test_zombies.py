"""A frozen process that wakes after another has taken over, on the same folder or on a copy, changes nothing."""

from __future__ import annotations

import pytest

from onefold.testing.harness import OVERTAKEN
from onefold.testing.harness_stage import NONE, NOT_ADOPTED
from tests.crash.subjects import SUBJECTS
from tests.stage import Stage, overtaken

pytestmark = pytest.mark.crash

SAME = {"revenue": 16, "running": 10, "together": 8}
COPIED = {"ledgers": 12, "running": 8, "together": 8}


@pytest.mark.parametrize("name", SAME)
def test_a_zombie_of_the_same_journal_dies_fenced(name: str, stage: Stage) -> None:
    results = stage.at_every_step(SUBJECTS[name], SAME[name], "freeze")
    assert overtaken(results) <= OVERTAKEN
    assert "journal-fenced" in overtaken(results)


@pytest.mark.parametrize("name", COPIED)
def test_a_zombie_of_a_copied_journal_is_refused_by_the_sinks(name: str, stage: Stage) -> None:
    steps = stage.steps(SUBJECTS[name])
    steps = [step for step in steps[steps.index("after journal.start#1") :] if not holds_a_database(step)]
    results = stage.at_every_step(SUBJECTS[name], COPIED[name], "fork", steps)
    # Together, what the copy has committed or left undecided under the same seals ends the other, too.
    allowed = NOT_ADOPTED if name == "together" else NONE
    assert overtaken(results) <= OVERTAKEN | allowed
    assert overtaken(results) & {"token-refused", "sink-forked", *allowed}


def holds_a_database(step: str) -> bool:
    """A process frozen here keeps all others out of a sink: there the copy could not go first."""
    return step.split(" ")[1].startswith(("duckdb.", "sqlite."))
