"""What a chaos proxy does to the words of a sink with its database server: every act on every message."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence

from onefold.testing.chaos import faults_of
from onefold.testing.harness import Subject
from tests.services.chaos_schedules import Case, Chaos

AT_ONCE = ("cut request {at}", "cut answer {at}", "close answer {at}", "delay answer {at} for 1.5s")
LATE = tuple(
    "strand request {at} until " + until for until in ("request {begin}#1", "answer {begin}#1", "request {move}#2")
)
ACTS = (*AT_ONCE, *LATE, "strand request {at}")
"""Late ones come when the next instance opens, when it has opened, within its next transactions, at the end."""


def every(subject: str, messages: Iterable[tuple[str, int]], kills: Sequence[str], *, begin: str) -> list[Case]:
    """Every act on every message, some of them with a process that is killed. begin: the verb that begins."""
    kill = itertools.cycle(kills)
    faults = [act.format(at=f"{kind}#{count}", begin=begin, move="Update") for kind, count in messages for act in ACTS]
    return [Case(subject, faults_of(fault), next(kill)) for fault in faults]


def play(chaos: Chaos, cases: Iterable[Case], subjects: dict[str, Subject]) -> None:
    """All of them, or the one in ONEFOLD_CHAOS_CASE."""
    only = os.environ.get("ONEFOLD_CHAOS_CASE")
    for case in [Case.parse(only)] if only else cases:
        chaos.play(case, subjects[case.subject])
    print(chaos.text())
