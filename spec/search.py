"""Breadth-first search: every reachable state once; the first violation found has the shortest schedule."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

from spec.journal import Label
from spec.model import Setting, World
from spec.properties import Recovery, violation
from spec.world import first_world, moves

__all__ = ["Finding", "Searched", "explore", "search"]

State = TypeVar("State", bound=Hashable)

Origins = dict[State, tuple[State, Label] | None]
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
    recovery = Recovery(setting)
    return explore(
        first_world(setting),
        lambda world: moves(setting, world),
        lambda world: violation(setting, world) or recovery.violation(world),
        calm=lambda world: _calm(setting, world),
        keep_last=keep_last,
    )


def explore(
    first: State,
    steps_of: Callable[[State], Iterable[tuple[Label, State]]],
    wrong_in: Callable[[State], str],
    *,
    calm: Callable[[State], list[Label]] = lambda _: [],
    keep_last: bool = False,
) -> Searched:
    """Visit all states that are reached from one, whatever they are. calm: the recovery that shows what is wrong."""
    began = time.perf_counter()
    came: Origins[State] = {first: None}
    frontier, depth, steps = [first], 0, 0
    finding: Finding | None = None
    last = first
    kinds: set[object] = set()
    while frontier and finding is None:
        depth += 1
        following: list[State] = []
        for world in frontier:
            for label, after in steps_of(world):
                steps += 1
                kinds.add(label[0])
                if after in came:
                    continue
                came[after] = (world, label)
                following.append(after)
                wrong = wrong_in(after)
                if wrong:
                    finding = Finding(wrong, _schedule(came, after), calm(after))
                    break
            if finding is not None:
                break
        frontier = following
        last = frontier[-1] if frontier else last
    longest = _schedule(came, last) if keep_last else []
    return Searched(finding, len(came), steps, depth, time.perf_counter() - began, longest, frozenset(map(str, kinds)))


def _schedule(came: Origins[State], world: State) -> list[Label]:
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
