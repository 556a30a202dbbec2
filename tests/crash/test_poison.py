"""Input that is bad from one end to the other fills the dead letters, not the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.testing.harness import ForkServer, Life, Schedule, Stage, Subject
from tests.crash import flows, inputs

pytestmark = pytest.mark.crash

MOST_BYTES = 1280 << 20
"""Bounded queues of epochs of 48 MiB, decoded; not proportional to the input: 1, 2 and 4 million lines took 941, 969
and 1,050 MiB."""


def arrive_few(folder: Path, life: int) -> bool:
    if life == 0:
        inputs.poison(folder, 200_000)
    return True


def arrive_many(folder: Path, life: int) -> bool:
    if life == 0:
        inputs.poison(folder, 2_000_000)
    return True


@pytest.mark.parametrize(
    "arrive", [arrive_few, pytest.param(arrive_many, marks=pytest.mark.heavy)], ids=["200,000", "2,000,000"]
)
def test_malformed_lines_do_not_exhaust_memory(arrive: object, tmp_path: Path, server: ForkServer) -> None:
    subject = Subject(build=flows.poisoned, arrive=arrive, judge=flows.judge_poisoned)  # type: ignore[arg-type]
    stage = Stage(Schedule(()), subject, tmp_path / "flow", server)
    stage.live(Life("kill", "sqlite.commit", 1, "after"))
    end = stage.live(None, seconds=300.0)
    print(f"{end['most_memory_bytes'] >> 20} MiB, {end['seconds']:.1f} s")
    assert not stage.judge().complaints, stage.result.complaints
    assert end["most_memory_bytes"] < MOST_BYTES
