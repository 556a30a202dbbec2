"""Stopped cleanly, out of disk, or told that a sync failed, at any durable step: running again makes it whole."""

from __future__ import annotations

import pytest

from onefold.testing.harness import Act
from tests.crash.subjects import SUBJECTS
from tests.stage import Stage

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
def test_after_it_nothing_is_lost_or_duplicated(name: str, act: Act, stage: Stage) -> None:
    stage.at_every_step(SUBJECTS[name], SHARES[name, act], act)
