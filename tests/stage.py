"""Where crash tests play a flow under schedules: killed, frozen, stopped, copied, out of disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onefold.testing.harness import (
    Act,
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

__all__ = ["ZOMBIES", "Count", "Stage", "overtaken"]

Count = Callable[[int], int]
"""How many schedules to play, given the usual number."""

ATTEMPTS = 6
"""How often a safeguard that is taken out may go unnoticed: which of two processes is first, and how far a flow has
come when it is killed, is not in a schedule's hand."""

ZOMBIES = [f"freeze after journal.seal#{count}" for count in (1, 2, 3)]


@dataclass(frozen=True)
class Stage:
    """Where, and how much. Repeat one schedule with ONEFOLD_SCHEDULE='…' in the environment, as a failure prints it."""

    folder: Path
    server: ForkServer
    schedules: Count = lambda usual: usual
    seed: int = 0

    def play(self, subject: Subject, schedules: list[Schedule]) -> Results:
        """Nothing is lost or duplicated, beyond what the subject accepts."""
        results = run_schedules(subject, schedules, self.folder, self.server)
        print(results.text())
        assert not results.failures, results.text()
        return results

    def steps(self, subject: Subject) -> list[str]:
        """Every durable step of an untouched run."""
        return steps_of(subject, self.folder / "untouched", self.server)

    def at_every_step(
        self, subject: Subject, usual: int, act: Act = "kill", steps: Sequence[str] | None = None
    ) -> Results:
        """Once in each life. steps: those to choose from; all, unless said."""
        steps = chosen(steps or self.steps(subject), self.schedules(usual), seed=self.seed)
        return self.play(subject, at_every_step(steps, act))

    def inside_recovery(self, subject: Subject, usual: int) -> Results:
        """Killed twice in a row."""
        return self.play(subject, at_two_steps(self.schedules(usual), self.steps(subject), seed=self.seed))

    def at_random_moments(self, subject: Subject, usual: int, seconds: float = 1.0) -> Results:
        """Killed by the clock, within so many seconds."""
        return self.play(subject, at_random_moments(self.schedules(usual), seconds, seed=self.seed))

    def wake_a_zombie(self, subject: Subject, step: str) -> Results:
        """Frozen there, and woken when its successor has gone on."""
        return self.play(subject, [Schedule.parse(f"freeze {step}")])

    def miss_a_safeguard(
        self,
        subject: Subject,
        safeguard: Callable[[], None],
        texts: Sequence[str],
        *,
        other: Callable[[], None] | None = None,
        attempts: int = ATTEMPTS,
        is_seen: Callable[[Results], bool] = lambda results: bool(results.failures),
    ) -> None:
        """Under the same schedules all is right with it, and without it that is seen.

        other: what is taken out in either case. attempts: see ATTEMPTS.
        """
        schedules = [Schedule.parse(text) for text in texts]
        right = subject if other is None else replace(subject, arrange=(*subject.arrange, other))
        with_it = run_schedules(right, schedules, self.folder / "with", self.server)
        assert not with_it.failures, with_it.text()
        without = replace(subject, arrange=(*subject.arrange, safeguard))
        tables = []
        for attempt in range(attempts):
            results = run_schedules(without, schedules, self.folder / f"without-{attempt}", self.server)
            if is_seen(results):
                return
            tables.append(results.text())
        raise AssertionError("\n".join(tables))


def overtaken(results: Results) -> set[str]:
    """How the zombies ended."""
    return {end["code"] for result in results.results for end in result.ends if end["end"] == "failed"}
