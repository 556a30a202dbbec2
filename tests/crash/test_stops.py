"""Stopped cleanly, out of disk, or told that a sync failed, at any durable step: running again makes it whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onefold.testing.harness import Act, ForkServer, at_every_step, chosen, run_schedules, steps_of
from tests.crash.subjects import SUBJECTS

pytestmark = pytest.mark.crash

SHARES: dict[tuple[str, Act], int] = {
    ("revenue", "stop"): 12,
    ("running", "stop"): 8,
    ("revenue", "full"): 14,
    ("running", "full"): 20,
    ("together", "full"): 14,
    ("ledgers", "fail"): 14,
    ("running", "fail"): 20,
}


@pytest.mark.parametrize(("name", "act"), SHARES)
def test_after_it_nothing_is_lost_or_duplicated(
    name: str, act: Act, tmp_path: Path, server: ForkServer, schedules: Callable[[int], int], seed: int
) -> None:
    subject = SUBJECTS[name]
    steps = chosen(steps_of(subject, tmp_path / "untouched", server), schedules(SHARES[name, act]), seed=seed)
    results = run_schedules(subject, at_every_step(steps, act), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()
