"""Delta tables under kills, zombies and copies: nothing lost, nothing duplicated, and every safeguard is missed.

Repeat one schedule with ONEFOLD_SCHEDULE='…' in the environment, as a failure prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from onefold.testing.harness import (
    OVERTAKEN,
    ForkServer,
    Results,
    Schedule,
    Subject,
    at_every_step,
    at_random_moments,
    at_two_steps,
    chosen,
    run_schedules,
    steps_of,
)
from onefold.testing.harness_stage import NONE
from tests.crash import delta_controls as controls
from tests.crash import delta_flows as flows
from tests.crash.delta_flows import SUBJECTS

pytestmark = pytest.mark.crash

Count = Callable[[int], int]

ONCE = {"plain": 30, "staged": 24, "parted": 14, "merged": 24, "both": 10, "together": 14}
"""Enough to kill before and after each kind of durable step that the flow has."""

TWICE = {"staged": 10, "merged": 10}
CLOCK = {"plain": 8, "merged": 8}
FROZEN = {"staged": 12, "merged": 8}
COPIED = {"plain": 8}
SECONDS = 0.6


def play(subject: Subject, schedules: list[Schedule], folder: Path, server: ForkServer) -> Results:
    results = run_schedules(subject, schedules, folder, server)
    print(results.text())
    assert not results.failures, results.text()
    return results


def overtaken(results: Results) -> set[str]:
    """How the zombies ended."""
    return {end["code"] for result in results.results for end in result.ends if end["end"] == "failed"}


@pytest.mark.parametrize("name", ONCE)
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = chosen(steps_of(SUBJECTS[name], tmp_path / "untouched", server), schedules(ONCE[name]), seed=seed)
    play(SUBJECTS[name], at_every_step(steps), tmp_path, server)


@pytest.mark.parametrize("name", TWICE)
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = steps_of(SUBJECTS[name], tmp_path / "untouched", server)
    play(SUBJECTS[name], at_two_steps(schedules(TWICE[name]), steps, seed=seed), tmp_path, server)


@pytest.mark.parametrize("name", CLOCK)
def test_killed_at_random_moments_nothing_is_lost_or_duplicated(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    play(SUBJECTS[name], at_random_moments(schedules(CLOCK[name]), SECONDS, seed=seed), tmp_path, server)


@pytest.mark.parametrize("name", FROZEN)
def test_a_zombie_of_the_same_journal_changes_nothing(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    """Between check and commit among other moments: it has loaded the table and compared the token, then it sleeps."""
    steps = steps_of(SUBJECTS[name], tmp_path / "untouched", server)
    steps = [step for step in steps if " delta." in step or step.startswith("after journal.seal")]
    results = play(
        SUBJECTS[name], at_every_step(chosen(steps, schedules(FROZEN[name]), seed=seed), "freeze"), tmp_path, server
    )
    assert overtaken(results) <= OVERTAKEN
    assert overtaken(results)


@pytest.mark.parametrize("name", COPIED)
def test_a_zombie_of_a_copied_journal_is_refused_by_the_table(
    name: str, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = steps_of(SUBJECTS[name], tmp_path / "untouched", server)
    steps = [step for step in steps[steps.index("after journal.start#1") :] if " sqlite." not in step]
    results = play(
        SUBJECTS[name], at_every_step(chosen(steps, schedules(COPIED[name]), seed=seed), "fork"), tmp_path, server
    )
    assert overtaken(results) <= OVERTAKEN | NONE
    assert overtaken(results) & {"token-refused", "sink-forked"}


@pytest.mark.parametrize("moment", ["before delta.commit#1", "after delta.stage-sync#1", "before delta.commit#2"])
def test_a_zombie_that_checked_and_then_slept_is_refused_by_the_table(
    moment: str, tmp_path: Path, server: ForkServer
) -> None:
    results = play(flows.PLAIN, [Schedule.parse(f"fork {moment}")], tmp_path, server)
    assert overtaken(results) <= OVERTAKEN


@pytest.mark.parametrize("subject", [flows.AT_LEAST_ONCE, flows.AT_MOST_ONCE], ids=["at-least-once", "at-most-once"])
def test_the_weaker_guarantees_show_their_promise_and_no_other(
    subject: Subject, tmp_path: Path, server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = chosen(steps_of(subject, tmp_path / "untouched", server), schedules(10), seed=seed)
    play(subject, at_every_step(steps), tmp_path, server)


COMMITS = [f"kill after delta.commit#{count}" for count in (1, 2)]
ZOMBIES = [f"freeze after journal.seal#{count}" for count in (1, 2, 3)]
ASLEEP = [f"freeze before delta.commit#{count}" for count in (1, 2)]

CONTROLS: dict[Callable[[], None], tuple[Subject, list[str]]] = {
    controls.token_moved_afterwards: (flows.PLAIN, COMMITS),
    controls.token_not_kept: (flows.PLAIN, COMMITS),
    controls.token_not_compared: (flows.PLAIN, ZOMBIES),
    controls.handle_taken_anew: (flows.PLAIN, ASLEEP),
}
ATTEMPTS = 4


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.__name__)
def test_a_safeguard_that_is_taken_out_is_missed(
    control: Callable[[], None], tmp_path: Path, server: ForkServer
) -> None:
    subject, texts = CONTROLS[control]
    played = [Schedule.parse(text) for text in texts]
    play(subject, played, tmp_path / "with", server)
    subject = replace(subject, arrange=(*subject.arrange, control))
    for attempt in range(ATTEMPTS):  # which of two processes is first is not in a schedule's hand
        results = run_schedules(subject, played, tmp_path / f"without-{attempt}", server)
        if any(result.judgement is not None and result.judgement.duplicated for result in results.failures):
            return
    raise AssertionError(results.text())
