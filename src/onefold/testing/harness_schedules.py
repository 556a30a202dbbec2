"""What is done to processes and when, as values and as text. No randomness of its own: schedules follow from a seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onefold.errors import check

__all__ = ["Act", "Life", "Schedule", "at_every_step", "at_random_moments", "at_two_steps", "chosen"]

Act = Literal["kill", "stop", "full", "fail", "freeze", "fork"]
"""kill: SIGKILL. stop: a clean stop is asked for. full, fail: the step raises ENOSPC, EIO. freeze: SIGSTOP, a second
process runs beside it on the same folder without the lock, SIGCONT. fork: the same on a copied state folder."""


@dataclass(frozen=True)
class Life:
    """One process's fate: what is done to it, and when.

    Args:
        act: see Act.
        step: the durable step at which, "*" for any name; "" when it is a matter of time.
        count: which one of that name, from 1.
        moment: before or after the step.
        seconds: after so long, where step is "" (kill only).
    """

    act: Act
    step: str = ""
    count: int = 1
    moment: Literal["before", "after"] = "before"
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.act} {self.moment} {self.step}#{self.count}" if self.step else f"{self.act} at {self.seconds}s"


@dataclass(frozen=True)
class Schedule:
    """The fates of one process after the other. str() and `parse` are each other's inverse."""

    lives: tuple[Life, ...]

    def __str__(self) -> str:
        return " then ".join(map(str, self.lives)) or "untouched"

    @staticmethod
    def parse(text: str) -> Schedule:
        """From text, such as "kill before journal.seal#3 then kill at 0.25s". Raises ValueError."""
        if text == "untouched":
            return Schedule(())
        return Schedule(tuple(map(_parse_life, text.split(" then "))))


def _parse_life(text: str) -> Life:
    match = re.fullmatch(r"(\w+) (?:at ([\d.]+)s|(before|after) ([^ #]+)#(\d+))", text)
    if match is None:
        raise ValueError(f"{text!r} is no life; for instance: kill before journal.seal#3")
    act: Any = match[1]
    moment: Any = match[3]
    return Life(act, seconds=float(match[2])) if match[2] else Life(act, match[4], int(match[5]), moment)


def at_every_step(steps: Iterable[str], act: Act = "kill") -> list[Schedule]:
    """One schedule for each step of an untouched run (see `steps_of`), before and after."""
    return [Schedule((_life(act, step),)) for step in steps]


def at_random_moments(count: int, seconds: float, *, seed: int) -> list[Schedule]:
    """Kills by the clock, one to three in a row, spread over `seconds`."""
    found = []
    for number in range(count):
        lives = 1 + _pick(3, seed, number, "lives")
        moments = [_pick(1000, seed, number, life) / 1000 * seconds for life in range(lives)]
        found.append(Schedule(tuple(Life("kill", seconds=round(moment, 4)) for moment in moments)))
    return found


def at_two_steps(count: int, steps: Sequence[str], *, seed: int, within: int = 24) -> list[Schedule]:
    """A kill at some step, and a second at one of the first steps of the next process: inside its recovery."""
    found = []
    for number in range(count):
        first = _life("kill", steps[_pick(len(steps), seed, number, "first")])
        moment: Literal["before", "after"] = "before" if _pick(2, seed, number, "moment") else "after"
        second = Life("kill", "*", 1 + _pick(within, seed, number, "second"), moment)
        found.append(Schedule((first, second)))
    return found


def chosen(steps: Sequence[str], count: int, *, seed: int) -> list[str]:
    """At most `count` of the steps, drawn by seed; a small count meets as many kinds (names and moments) as it can.

    First one end of every kind, its first or its last step; then the other ends; then the rest.
    """
    kinds: dict[str, list[str]] = {}
    for step in steps:
        kinds.setdefault(step.partition("#")[0], []).append(step)
    ranks: dict[str, int] = {}
    for kind, same in kinds.items():
        end = _pick(2, seed, kind) - 1
        ranks[same[-1 - end]] = 1
        ranks[same[end]] = 0  # after the other end, which may be the same step
    return sorted(steps, key=lambda step: (ranks.get(step, 2), _pick(1 << 60, seed, step)))[:count]


def _life(act: Act, step: str) -> Life:
    match = re.fullmatch(r"(before|after) ([^ #]+)#(\d+)", step)
    check(match is not None, "a step is written like: before journal.seal#3", found=step)
    groups: Any = match
    return Life(act, groups[2], int(groups[3]), groups[1])


def _pick(below: int, *about: object) -> int:
    """A number below `below`, drawn by hashing: the same everywhere for the same seed."""
    digest = hashlib.blake2b(repr(about).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % below
