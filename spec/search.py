"""Breadth-first search: every reachable state once; the first violation found has the shortest schedule."""

from __future__ import annotations

import time
from typing import NamedTuple

from spec.journal import Label
from spec.model import Setting, World
from spec.properties import Recovery, violation
from spec.world import first_world, moves

__all__ = ["Finding", "Searched", "search"]


class Finding(NamedTuple):
    """A counter-example: what is wrong, the schedule to it, and the calm recovery that shows it (may be empty)."""

    wrong: str
    schedule: list[Label]
    recovery: list[Label]


class Searched(NamedTuple):
    """finding None: no violation within the bounds. is_complete False: the limit of states was reached first."""

    finding: Finding | None
    states: int
    steps: int
    depth: int
    seconds: float
    is_complete: bool


def search(setting: Setting, *, most_states: int = 5_000_000) -> Searched:
    """Visit all states of a scenario. Stops at the first violation."""
    began = time.perf_counter()
    first = first_world(setting)
    came: dict[World, tuple[World, Label] | None] = {first: None}
    recovery = Recovery(setting)
    frontier, depth, steps = [first], 0, 0
    while frontier:
        depth += 1
        following: list[World] = []
        for world in frontier:
            for label, after in moves(setting, world):
                steps += 1
                if after in came:
                    continue
                came[after] = (world, label)
                wrong = violation(setting, after) or recovery.violation(after)
                if wrong or len(came) >= most_states:
                    seconds = time.perf_counter() - began
                    finding = Finding(wrong, _schedule(came, after), _calm(setting, after)) if wrong else None
                    return Searched(finding, len(came), steps, depth, seconds, is_complete=False)
                following.append(after)
        frontier = following
    return Searched(None, len(came), steps, depth, time.perf_counter() - began, is_complete=True)


def _schedule(came: dict[World, tuple[World, Label] | None], world: World) -> list[Label]:
    schedule: list[Label] = []
    step = came[world]
    while step is not None:
        schedule.append(step[1])
        step = came[step[0]]
    return schedule[::-1]


def _calm(setting: Setting, world: World) -> list[Label]:
    if violation(setting, world):
        return []
    recovery = Recovery(setting)
    recovery.violation(world)
    return recovery.path
