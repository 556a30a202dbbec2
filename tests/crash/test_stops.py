"""Stopped cleanly, out of disk, or told that a sync failed, at any durable step: running again makes it whole."""

from __future__ import annotations

import pytest

from onefold.testing.harness import Act
from tests.crash.subjects import SUBJECTS
from tests.stage import Stage

pytestmark = pytest.mark.crash

SHARES: dict[tuple[str, Act], int] = {
    ("revenue", "stop"): 8,
    ("running", "stop"): 6,
    ("revenue", "full"): 12,
    ("running", "full"): 14,
    ("together", "full"): 10,
    ("ledgers", "fail"): 12,
    ("running", "fail"): 14,
}


@pytest.mark.parametrize(("name", "act"), SHARES)
def test_after_it_nothing_is_lost_or_duplicated(name: str, act: Act, stage: Stage) -> None:
    stage.at_every_step(SUBJECTS[name], SHARES[name, act], act)
