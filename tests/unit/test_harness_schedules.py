"""Schedules as text, and which steps a small number of them meets."""

from __future__ import annotations

import pytest

from onefold.testing.harness import Schedule, at_random_moments, at_two_steps, chosen

STEPS = [
    f"{moment} {name}#{count}"
    for name, most in {"start": 1, "seal": 5, "commit": 9}.items()
    for count in range(1, most + 1)
    for moment in ("before", "after")
]


@pytest.mark.parametrize(
    "text",
    [
        "untouched",
        "kill before journal.seal#3",
        "kill at 0.25s then freeze after *#2",
        "fork after a#1 then full before b#9",
    ],
)
def test_a_schedule_is_its_text(text: str) -> None:
    assert str(Schedule.parse(text)) == text


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="for instance"):
        Schedule.parse("kill sometime")


@pytest.mark.parametrize("seed", range(20))
def test_few_schedules_meet_every_kind_of_step_before_and_after(seed: int) -> None:
    kinds = {step.partition("#")[0] for step in STEPS}
    assert {step.partition("#")[0] for step in chosen(STEPS, len(kinds), seed=seed)} == kinds
    ends = {
        f"{moment} {step}"
        for moment in ("before", "after")
        for step in ("start#1", "seal#1", "seal#5", "commit#1", "commit#9")
    }
    assert set(chosen(STEPS, len(ends), seed=seed)) == ends


def test_every_step_is_met_once_when_all_are_asked_for() -> None:
    assert sorted(chosen(STEPS, 1000, seed=1)) == sorted(STEPS)


def test_schedules_follow_from_the_seed() -> None:
    for draw in (lambda seed: at_random_moments(20, 1.0, seed=seed), lambda seed: at_two_steps(20, STEPS, seed=seed)):
        assert draw(1) == draw(1) != draw(2)
