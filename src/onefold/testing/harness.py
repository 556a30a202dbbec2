"""The crash harness: a flow run by real processes that are really killed, and a judge that sees only input and sinks.

    from onefold.testing.harness import ForkServer, Subject, at_every_step, run_schedules

    subject = Subject(build=my_flow, arrive=my_input, judge=my_oracle)
    with ForkServer() as server:
        results = run_schedules(subject, at_every_step(steps_of(subject, folder, server)), folder, server)
    assert not results.failures, results.text()

A schedule is text as well: `kill before journal.seal#3 then kill after *#2` kills the first process before its third
seal, and the next one (inside its recovery) after its second durable step of any name; then processes run untouched
until all input has arrived and is drained.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onefold.errors import check
from onefold.testing.harness_fork import ForkServer
from onefold.testing.harness_schedules import (
    Act,
    Life,
    Schedule,
    at_every_step,
    at_random_moments,
    at_two_steps,
    chosen,
)
from onefold.testing.harness_stage import OVERTAKEN, Judgement, Result, Stage, Subject, exactly_once

__all__ = [
    "Act", "ForkServer", "Judgement", "Life", "OVERTAKEN", "Result", "Results", "Schedule", "Subject", "at_every_step",
    "Stage", "at_random_moments", "at_two_steps", "chosen", "exactly_once", "play", "run_schedules", "steps_of",
]  # fmt: skip

MOST_FAILURES = 5
"""So many failing schedules tell enough: the others are left out."""


@dataclass
class Results:
    """All schedules of one run."""

    results: list[Result] = field(default_factory=list)

    @property
    def failures(self) -> list[Result]:
        """Those with complaints."""
        return [result for result in self.results if result.complaints]

    def columns(self) -> dict[str, float]:
        """The table's one row: schedules, steps killed at, restarts, events, lost, duplicated, longest recovery."""
        judged = [result.judgement for result in self.results if result.judgement is not None]
        return {
            "schedules": len(self.results),
            "steps killed at": len({met for result in self.results for met in result.met}),
            "restarts": sum(max(0, len(result.ends) - 1) for result in self.results),
            "events": sum(one.events for one in judged),
            "lost": sum(one.lost for one in judged),
            "duplicated": sum(one.duplicated for one in judged),
            "longest recovery, s": round(max((one.recovery_seconds for one in self.results), default=0.0), 2),
        }

    def text(self) -> str:
        """The table, then every failure with the schedule that repeats it."""
        columns = self.columns()
        lines = [" | ".join(columns), " | ".join(f"{value:g}" for value in columns.values())]
        for result in self.failures:
            lines += ["", f"ONEFOLD_SCHEDULE='{result.schedule}'", f"  folder: {result.folder}"]
            lines += [f"  {complaint}" for complaint in result.complaints[:8]]
            lines += [f"  process {number}: {_short(end)}" for number, end in enumerate(result.ends)]
        return "\n".join(lines)


def _short(end: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value}"
        for name, value in end.items()
        if name not in ("steps", "recovery", "error", "most_memory_bytes")
    )


def steps_of(subject: Subject, folder: Path, server: ForkServer) -> list[str]:
    """Every durable step of an untouched run, as "before journal.seal#3", of its first process."""
    result = play(Schedule(()), subject, folder, server, lists_steps=True)
    check(not result.complaints, "an untouched run is right", found="\n".join(result.complaints))
    first = result.ends[0]["steps"]
    counts: dict[str, int] = {}
    found = []
    for line in first:
        counts[line] = counts.get(line, 0) + 1
        found.append(f"{line}#{counts[line]}")
    return found


# ------------------------------------------------------------------------------------------------------------- playing


def run_schedules(
    subject: Subject,
    schedules: Iterable[Schedule],
    folder: Path,
    server: ForkServer,
    *,
    most_failures: int = MOST_FAILURES,
) -> Results:
    """Play each schedule in a folder of its own below `folder`; the folders of good ones are removed.

    Ends early after `most_failures`. With ONEFOLD_SCHEDULE in the environment that schedule alone is played.
    """
    only = os.environ.get("ONEFOLD_SCHEDULE")
    results = Results()
    for number, schedule in enumerate([Schedule.parse(only)] if only else schedules):
        place = folder / f"{number:04d}"
        result = play(schedule, subject, place, server)
        results.results.append(result)
        if not result.complaints:
            shutil.rmtree(place)
        if len(results.failures) >= most_failures:
            break
    return results


def play(
    schedule: Schedule, subject: Subject, folder: Path, server: ForkServer, *, lists_steps: bool = False
) -> Result:
    """Play one schedule: the ordered lives, then untouched ones until everything is drained; then judge."""
    stage = Stage(schedule, subject, folder, server)
    stage.lists_steps = lists_steps
    for life in schedule.lives:
        stage.live(life)
    stage.finish()
    return stage.judge()
