"""The bounded configurations that are searched: which faults, how many, on how much input."""

from __future__ import annotations

from typing import Any

from spec.model import Budget, Scenario

__all__ = ["SCENARIOS", "recordable", "scenario"]

_ONE = ("exactly",)
_TWO = ("exactly", "exactly")
_THREE = ("exactly", "exactly", "exactly")

_LIST = (
    Scenario("crash", "two sinks at their own paces, killed at every step, answers lost and late",
             ((3, 3),), _TWO, Budget(starts=1, delays=1), cut=2, zombies=False),
    Scenario("zombie", "older processes go on at any time",
             ((1, 1),), _ONE, Budget(starts=1, delays=1)),
    Scenario("empty", "epochs that are empty for one sink or for all",
             ((1, 2, 0),), _TWO, Budget(starts=1), cut=2, zombies=False),
    Scenario("failed-seal", "an append fails, durable or not", ((3, 3),), _TWO, Budget(starts=1, failed_seals=1),
             zombies=False),
    Scenario("sink-added", "a later version has one more sink",
             ((3, 3),), _TWO, Budget(starts=2), versions=(1, 3), zombies=False),
    Scenario("sink-moved", "a later version has another target for a sink: one sink leaves, one joins",
             ((7, 5),), _THREE, Budget(starts=1), versions=(3, 5), zombies=False),
    Scenario("restore-journal", "the journal goes back to any older state, the old process dead or alive",
             ((1, 1),), _ONE, Budget(starts=1, journal_restores=1), frees=False),
    Scenario("restore-journal-two", "the same with two sinks and results that differ",
             ((1,), (2,)), _TWO, Budget(starts=1, journal_restores=1), frees=False),
    Scenario("copy-journal", "two machines run copies of one journal",
             ((1, 1),), _ONE, Budget(starts=1, copies=1)),
    Scenario("copy-journal-two", "the same with two sinks and results that differ",
             ((1,), (2,)), _TWO, Budget(starts=1, copies=1), frees=False),
    Scenario("copy-journal-empty", "the same with one sink, and an epoch may turn out empty",
             ((0,), (1,)), _ONE, Budget(starts=1, copies=1)),
    Scenario("restore-sink", "a sink goes back to any older state",
             ((1, 1),), _ONE, Budget(starts=1, sink_restores=1)),
    Scenario("least", "at-least-once", ((1, 1),), ("least",), Budget(starts=1, delays=1), frees=False),
    Scenario("most", "at-most-once", ((1, 1),), ("most",), Budget(starts=1, delays=1), frees=False),
    Scenario("mixed", "exactly-once beside at-most-once", ((3, 3),), ("exactly", "most"), Budget(starts=1),
             zombies=False, frees=False),
    Scenario("together", "two-phase commit, older processes go on, answers are lost and late",
             ((3,),), _TWO, Budget(starts=1, delays=1), together=True, frees=False),
    Scenario("together-empty", "two-phase commit, prepares fail, epochs are empty for one sink",
             ((1, 2, 3),), _TWO, Budget(starts=1, delays=1, failed_prepares=1), together=True, zombies=False,
             frees=False),
    Scenario("together-lake", "two-phase commit with staged files that hold no lock",
             ((3,),), _TWO, Budget(starts=1, delays=1), together=True, locks=False, frees=False),
    Scenario("together-restore", "two-phase commit, the journal goes back to any older state, the old process is dead",
             ((3, 3),), _TWO, Budget(starts=1, journal_restores=1), together=True, zombies=False, frees=False),
    Scenario("together-copy", "two-phase commit, two machines run copies of one journal",
             ((3,),), _TWO, Budget(starts=1, copies=1), together=True, frees=False),
    Scenario("together-fresh", "two-phase commit, a second journal is begun for the same flow and sinks",
             ((3,),), _TWO, Budget(starts=1, fresh=1), together=True, frees=False),
    Scenario("together-moved", "two-phase commit, a later version has another target for a sink",
             ((7,),), _THREE, Budget(starts=2, delays=1), versions=(3, 5), together=True, zombies=False, frees=False,
             fences=True),
)  # fmt: skip

SCENARIOS = {item.name: item for item in _LIST}

_LARGER: dict[str, dict[str, Any]] = {
    "crash": {"budget": Budget(starts=2, delays=2)},
    "zombie": {"budget": Budget(starts=1, delays=1), "routes": ((3, 3),), "guarantees": _TWO},
    "empty": {"budget": Budget(starts=1, delays=1), "zombies": True},
    "failed-seal": {
        "budget": Budget(starts=2, failed_seals=1),
        "zombies": True,
        "guarantees": _ONE,
        "routes": ((1, 1),),
    },
    "sink-added": {"budget": Budget(starts=2, delays=1)},
    "sink-moved": {"budget": Budget(starts=2, delays=1)},
    "restore-journal": {"budget": Budget(starts=2, journal_restores=1), "frees": True},
    "restore-journal-two": {"budget": Budget(starts=2, journal_restores=1)},
    "copy-journal": {"budget": Budget(starts=2, copies=1)},
    "copy-journal-two": {"budget": Budget(starts=2, copies=1)},
    "copy-journal-empty": {"budget": Budget(starts=2, copies=1, delays=1)},
    "restore-sink": {"budget": Budget(starts=2, delays=1, sink_restores=1)},
    "least": {"budget": Budget(starts=1, delays=2), "cut": 2, "frees": True},
    "most": {"budget": Budget(starts=1, delays=2), "cut": 2, "frees": True},
    "mixed": {"budget": Budget(starts=1, delays=1), "cut": 2},
    "together": {"budget": Budget(starts=2, delays=1)},
    "together-empty": {"budget": Budget(starts=2, delays=1, failed_prepares=1), "cut": 2},
    "together-lake": {"budget": Budget(starts=2, delays=1)},
    "together-restore": {"budget": Budget(starts=2, journal_restores=1, delays=1), "fences": True},
    "together-copy": {"budget": Budget(starts=2, copies=1)},
    "together-fresh": {"budget": Budget(starts=2, fresh=1)},
    "together-moved": {"budget": Budget(starts=2, delays=1, failed_prepares=1)},
}


def scenario(name: str, *, is_deep: bool = False) -> Scenario:
    """A scenario by its name, in its usual or its larger bounds. Raises KeyError that lists the names."""
    if name not in SCENARIOS:
        raise KeyError(f"no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    found = SCENARIOS[name]
    return found._replace(**_LARGER[name]) if is_deep else found


def recordable(found: Scenario) -> Scenario:
    """The same without what no recording holds: older processes that go on, and what is restored or copied."""
    budget = found.budget._replace(journal_restores=0, copies=0, fresh=0, sink_restores=0)
    return found._replace(zombies=False, budget=budget)
