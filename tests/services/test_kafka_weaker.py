"""The weaker guarantees over topics: the promised duplicate or loss shows, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.testing.harness import ForkServer, Schedule, play
from tests.crash.oracle import Count
from tests.services.kafka_flows import AT_LEAST_ONCE, AT_MOST_ONCE
from tests.stage import Stage

pytestmark = pytest.mark.crash

DELIVERED_NOT_RECORDED = Schedule.parse("kill before journal.outcome#1")
ATTEMPTED_NOT_TRIED = Schedule.parse("kill after journal.attempt#1")


def test_the_promised_duplicate_and_the_promised_loss_show(tmp_path: Path, server: ForkServer) -> None:
    repeated = play(DELIVERED_NOT_RECORDED, AT_LEAST_ONCE, tmp_path / "least", server)
    lost = play(ATTEMPTED_NOT_TRIED, AT_MOST_ONCE, tmp_path / "most", server)
    for result in (repeated, lost):
        assert not result.complaints, result.complaints
        assert result.judgement is not None
    assert repeated.judgement.duplicated > 0
    assert 0 < lost.judgement.lost == sum(lost.ends[-1]["given_up"].values())


def test_at_least_once_repeats_at_most_what_was_under_way_and_loses_nothing(stage: Stage) -> None:
    for result in stage.at_every_step(AT_LEAST_ONCE, 8).results:
        assert isinstance(result.judgement, Count)
        assert result.judgement.sinks["topic"][2] <= 2, "one kill repeats a delivery once"


def test_at_most_once_loses_at_most_what_it_says_and_repeats_nothing(stage: Stage) -> None:
    for result in stage.at_every_step(AT_MOST_ONCE, 8).results:
        assert isinstance(result.judgement, Count)
        assert result.judgement.sinks["topic"][0] <= sum(result.ends[-1]["given_up"].values()), str(result.schedule)
