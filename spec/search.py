"""Breadth-first search: every reachable state once; the first violation found has the shortest schedule."""

from __future__ import annotations

import time
from typing import NamedTuple

from spec.journal import Label
from spec.model import Setting, World
from spec.properties import Recovery, violation
from spec.world import first_world, moves

__all__ = ["Finding", "Searched", "search"]

Origins = dict[World, tuple[World, Label] | None]
"""Every state seen, with the state and the step it was first reached by."""


class Finding(NamedTuple):
    """A counter-example: what is wrong, the schedule to it, and the calm recovery that shows it (may be empty)."""

    wrong: str
    schedule: list[Label]
    recovery: list[Label]


class Searched(NamedTuple):
    """finding None: no violation within the bounds.

    longest: a schedule to a state of the last depth, if asked for. kinds: of the steps that were met.
    """

    finding: Finding | None
    states: int
    steps: int
    depth: int
    seconds: float
    longest: list[Label]
    kinds: frozenset[str]


def search(setting: Setting, *, keep_last: bool = False) -> Searched:
    """Visit all states of a scenario. Stops at the first violation."""
    began = time.perf_counter()
    first = first_world(setting)
    came: Origins = {first: None}
    recovery = Recovery(setting)
    frontier, depth, steps = [first], 0, 0
    finding: Finding | None = None
    last = first
    kinds: set[object] = set()
    while frontier and finding is None:
        depth += 1
        following: list[World] = []
        for world in frontier:
            for label, after in moves(setting, world):
                steps += 1
                kinds.add(label[0])
                if after in came:
                    continue
                came[after] = (world, label)
                following.append(after)
                wrong = violation(setting, after) or recovery.violation(after)
                if wrong:
                    finding = Finding(wrong, _schedule(came, after), _calm(setting, after))
                    break
            if finding is not None:
                break
        frontier = following
        last = frontier[-1] if frontier else last
    longest = _schedule(came, last) if keep_last else []
    return Searched(finding, len(came), steps, depth, time.perf_counter() - began, longest, frozenset(map(str, kinds)))


def _schedule(came: Origins, world: World) -> list[Label]:
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
