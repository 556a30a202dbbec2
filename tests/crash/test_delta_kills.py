"""Delta tables under kills, zombies and copies: nothing lost, nothing duplicated, and every safeguard is missed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onefold.testing.harness import OVERTAKEN, Results, Schedule, Subject
from onefold.testing.harness_stage import NONE
from tests.crash import delta_controls as controls
from tests.crash import delta_flows as flows
from tests.crash.delta_flows import SUBJECTS
from tests.stage import Stage, overtaken

pytestmark = pytest.mark.crash

ONCE = {"plain": 30, "staged": 24, "parted": 14, "merged": 24, "both": 10, "together": 14}
"""Enough to kill before and after each kind of durable step that the flow has."""

TWICE = {"staged": 10, "merged": 10}
CLOCK = {"plain": 8, "merged": 8}
FROZEN = {"staged": 12, "merged": 8}
COPIED = {"plain": 8}
SECONDS = 0.6


@pytest.mark.parametrize("name", ONCE)
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.at_every_step(SUBJECTS[name], ONCE[name])


@pytest.mark.parametrize("name", TWICE)
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.inside_recovery(SUBJECTS[name], TWICE[name])


@pytest.mark.parametrize("name", CLOCK)
def test_killed_at_random_moments_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.at_random_moments(SUBJECTS[name], CLOCK[name], SECONDS)


@pytest.mark.parametrize("name", FROZEN)
def test_a_zombie_of_the_same_journal_changes_nothing(name: str, stage: Stage) -> None:
    """Between check and commit among other moments: it has loaded the table and compared the token, then it sleeps."""
    steps = [step for step in stage.steps(SUBJECTS[name]) if " delta." in step or step.startswith("after journal.seal")]
    results = stage.at_every_step(SUBJECTS[name], FROZEN[name], "freeze", steps)
    assert overtaken(results) <= OVERTAKEN
    assert overtaken(results)


@pytest.mark.parametrize("name", COPIED)
def test_a_zombie_of_a_copied_journal_is_refused_by_the_table(name: str, stage: Stage) -> None:
    steps = stage.steps(SUBJECTS[name])
    steps = [step for step in steps[steps.index("after journal.start#1") :] if " sqlite." not in step]
    results = stage.at_every_step(SUBJECTS[name], COPIED[name], "fork", steps)
    assert overtaken(results) <= OVERTAKEN | NONE
    assert overtaken(results) & {"token-refused", "sink-forked"}


@pytest.mark.parametrize("moment", ["before delta.commit#1", "after delta.stage-sync#1", "before delta.commit#2"])
def test_a_zombie_that_checked_and_then_slept_is_refused_by_the_table(moment: str, stage: Stage) -> None:
    results = stage.play(flows.PLAIN, [Schedule.parse(f"fork {moment}")])
    assert overtaken(results) <= OVERTAKEN


@pytest.mark.parametrize("subject", [flows.ONWARD, flows.MIRRORED], ids=["rows", "changes"])
def test_a_table_that_is_read_and_another_that_is_written_lose_nothing(subject: Subject, stage: Stage) -> None:
    stage.at_every_step(subject, 6)


@pytest.mark.parametrize("subject", [flows.AT_LEAST_ONCE, flows.AT_MOST_ONCE], ids=["at-least-once", "at-most-once"])
def test_the_weaker_guarantees_show_their_promise_and_no_other(subject: Subject, stage: Stage) -> None:
    stage.at_every_step(subject, 10)


COMMITS = [f"kill after delta.commit#{count}" for count in (1, 2)]
ZOMBIES = [f"freeze after journal.seal#{count}" for count in (1, 2, 3)]
ASLEEP = [f"freeze before delta.commit#{count}" for count in (1, 2)]

CONTROLS: dict[Callable[[], None], tuple[Subject, list[str]]] = {
    controls.token_moved_afterwards: (flows.PLAIN, COMMITS),
    controls.token_not_kept: (flows.PLAIN, COMMITS),
    controls.token_not_compared: (flows.PLAIN, ZOMBIES),
    controls.handle_taken_anew: (flows.PLAIN, ASLEEP),
}


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.__name__)
def test_a_safeguard_that_is_taken_out_is_missed(control: Callable[[], None], stage: Stage) -> None:
    subject, texts = CONTROLS[control]
    stage.miss_a_safeguard(subject, control, texts, is_seen=shows_duplicates)


def shows_duplicates(results: Results) -> bool:
    return any(result.judgement is not None and result.judgement.duplicated for result in results.failures)
