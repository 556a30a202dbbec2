"""Killed before and after every durable step, at random moments, twice: nothing lost, nothing duplicated."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.testing.harness import ForkServer, Subject, at_every_step, run_schedules, steps_of
from tests.crash import flows, inputs

pytestmark = pytest.mark.crash

REVENUE = Subject(build=flows.revenue, arrive=inputs.arrive, judge=flows.judge_revenue)


def test_killed_at_every_durable_step_the_main_job_is_exactly_once(tmp_path: Path, server: ForkServer) -> None:
    steps = steps_of(REVENUE, tmp_path / "untouched", server)
    results = run_schedules(REVENUE, at_every_step(steps), tmp_path, server)
    print(results.text())
    assert not results.failures, results.text()
