"""Flows into a database server under schedules of kills and freezes; which server, the tests say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onefold.testing.harness import (
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

Count = Callable[[int], int]


@dataclass(frozen=True)
class Stage:
    """Where schedules are played. schedules: how many, given the usual number."""

    folder: Path
    server: ForkServer
    schedules: Count = lambda usual: usual
    seed: int = 0

    def play(self, subject: Subject, schedules: Any) -> Results:
        """Nothing is lost or duplicated, beyond what the subject accepts."""
        results = run_schedules(subject, schedules, self.folder, self.server)
        print(results.text())
        assert not results.failures, results.text()
        return results

    def steps(self, subject: Subject) -> list[str]:
        """Every durable step of an untouched run."""
        return steps_of(subject, self.folder / "untouched", self.server)


def kill_at_every_step(stage: Stage, subject: Subject, usual: int) -> Results:
    """Once in each life."""
    steps = chosen(stage.steps(subject), stage.schedules(usual), seed=stage.seed)
    return stage.play(subject, at_every_step(steps))


def kill_inside_recovery(stage: Stage, subject: Subject, usual: int) -> None:
    """Twice in a row."""
    stage.play(subject, at_two_steps(stage.schedules(usual), stage.steps(subject), seed=stage.seed))


def kill_at_random_moments(stage: Stage, subject: Subject, usual: int) -> None:
    """By the clock, within a second."""
    stage.play(subject, at_random_moments(stage.schedules(usual), 1.0, seed=stage.seed))


def wake_a_zombie(stage: Stage, subject: Subject, step: str, count: int) -> None:
    """Frozen there, and woken when its successor has gone on."""
    stage.play(subject, [Schedule.parse(f"freeze {step}#{count}")])


def miss_a_safeguard(
    stage: Stage,
    subject: Subject,
    safeguard: Callable[[], None],
    texts: Sequence[str],
    other: Callable[[], None] | None = None,
) -> None:
    """Under the same schedules all is right with it. other: what is taken out in either case."""
    schedules = [Schedule.parse(text) for text in texts]
    right = subject if other is None else replace(subject, arrange=(other,))
    with_it = run_schedules(right, schedules, stage.folder / "with", stage.server)
    assert not with_it.failures, with_it.text()
    without = replace(subject, arrange=(safeguard,))
    assert run_schedules(without, schedules, stage.folder / "without", stage.server).failures


ZOMBIES = [f"freeze after journal.seal#{count}" for count in (1, 2, 3)]
