"""Seeded schedules of the pure core. `--schedules N` tries more; a failing seed names the command that repeats it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from onefold.testing.simulation import PACED, PROFILES, Outcome, Profile, PromiseBroken, simulate

SCHEDULES = 20_000
PARTS = 10
TRACE_LINES = 80


def run(seed: int, profiles: Sequence[Profile] = PROFILES, name: str = "schedules") -> Outcome:
    """One schedule; when it fails, once more with a trace. name: of the test that repeats it."""
    try:
        return simulate(random.Random(seed), profiles=profiles)
    except PromiseBroken as error:
        lines: list[str] = []
        with pytest.raises(PromiseBroken):
            simulate(random.Random(seed), note=lines.append, profiles=profiles)
        trace = "\n".join(lines[-TRACE_LINES:])
        again = f"python -m pytest tests/unit/test_simulation.py -k {name} --schedules 1 --seed {seed}"
        pytest.fail(f"{error}\n\nseed {seed}; again with: {again}\n\n{trace}", pytrace=False)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_in_all_schedules(
    part: int, seed: int, schedules: Callable[[int], int], record_property: Callable[[str, object], None]
) -> None:
    numbers = range(part, schedules(SCHEDULES), PARTS)
    for number in numbers:
        run(seed + number)
    record_property("simulated schedules", len(numbers))


def test_every_promise_holds_when_deliveries_are_paced(
    seed: int, schedules: Callable[[int], int], record_property: Callable[[str, object], None]
) -> None:
    outcomes = [run(seed + number, PACED, "paced") for number in range(schedules(2_000))]
    record_property("simulated schedules", len(outcomes))
    assert any("drained" in outcome.ends for outcome in outcomes)


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
