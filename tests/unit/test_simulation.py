"""Seeded schedules of the pure core. `--schedules N` tries more; a failing seed names the command that repeats it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from onefold.testing.simulation import PROFILES, Outcome, PromiseBroken, simulate

SCHEDULES = 20_000
PARTS = 10
TRACE_LINES = 80


def run(seed: int) -> Outcome:
    """One schedule; when it fails, once more with a trace."""
    try:
        return simulate(random.Random(seed))
    except PromiseBroken as error:
        lines: list[str] = []
        with pytest.raises(PromiseBroken):
            simulate(random.Random(seed), note=lines.append)
        trace = "\n".join(lines[-TRACE_LINES:])
        again = f"python -m pytest tests/unit/test_simulation.py -k schedules --schedules 1 --seed {seed}"
        pytest.fail(f"{error}\n\nseed {seed}; again with: {again}\n\n{trace}", pytrace=False)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_in_all_schedules(
    part: int, seed: int, schedules: Callable[[int], int], record_property: Callable[[str, object], None]
) -> None:
    numbers = range(part, schedules(SCHEDULES), PARTS)
    for number in numbers:
        run(seed + number)
    record_property("simulated schedules", len(numbers))


def test_a_schedule_is_the_same_each_time() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        simulate(random.Random(3), note=trace.append)
    assert len(traces[0]) > 20
    assert traces[0] == traces[1]


def test_schedules_meet_every_fault_and_every_ending() -> None:
    outcomes = [run(seed) for seed in range(1000)]
    ends = {(outcome.profile, end) for outcome in outcomes for end in outcome.ends}
    assert {(profile.name, "drained") for profile in PROFILES} <= ends
    assert {"SinkForked", "SinkRestored"} <= {end for _, end in ends}
    stops = {stop for outcome in outcomes for stop in outcome.stops}
    expected = {"DiskFailed", "Fenced", "SinkChanged", "SinkForked", "SinkRestored", "SinkUnavailable", "TokenRefused"}
    assert expected <= stops
