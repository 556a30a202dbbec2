"""The weaker guarantees: the promised duplicate or loss shows when a process is killed, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.testing.harness import ForkServer, Schedule, play
from tests.crash import oracle
from tests.crash.oracle import Count
from tests.crash.subjects import AT_LEAST_ONCE, AT_MOST_ONCE, WEAKER_SINKS
from tests.stage import Stage

pytestmark = pytest.mark.crash

DELIVERED_NOT_RECORDED = Schedule.parse("kill before journal.outcome#1")
ATTEMPTED_NOT_TRIED = Schedule.parse("kill after journal.attempt#1")
"""What shows here is in no thread's hand."""


def test_at_least_once_repeats_what_was_delivered_and_not_recorded(tmp_path: Path, server: ForkServer) -> None:
    result = play(DELIVERED_NOT_RECORDED, AT_LEAST_ONCE, tmp_path / "flow", server)
    assert not result.complaints, result.complaints
    assert result.judgement is not None
    assert result.judgement.duplicated > 0


def test_at_most_once_loses_what_was_attempted_and_not_tried(tmp_path: Path, server: ForkServer) -> None:
    result = play(ATTEMPTED_NOT_TRIED, AT_MOST_ONCE, tmp_path / "flow", server)
    assert not result.complaints, result.complaints
    assert result.judgement is not None
    assert 0 < result.judgement.lost == sum(result.ends[-1]["given_up"].values())


def test_at_least_once_repeats_at_most_what_was_under_way_and_loses_nothing(stage: Stage) -> None:
    for result in stage.at_every_step(AT_LEAST_ONCE, 24).results:
        assert isinstance(result.judgement, Count)
        assert max(result.judgement.sinks[sink][2] for sink in WEAKER_SINKS) <= 2, "one kill repeats a delivery once"


def test_at_most_once_loses_at_most_what_it_says_and_repeats_nothing(stage: Stage) -> None:
    for result in stage.at_every_step(AT_MOST_ONCE, 24).results:
        assert isinstance(result.judgement, Count)
        lost = sum(result.judgement.sinks[sink][0] for sink in WEAKER_SINKS)
        assert lost <= sum(result.ends[-1]["given_up"].values()), str(result.schedule)


def test_a_torn_line_makes_no_row_of_two(tmp_path: Path) -> None:
    """The process that printed the first was killed in the middle of a name."""
    whole = "event_id=e93  merchant=m1  amount=5.38  paid_at=2024-01-01 00:55:53\n"
    (tmp_path / "printed").write_text(f"event_id=e83  merchant={whole}event_id=e94  merch")
    assert [row[:2] for row in oracle.console_rows(tmp_path / "printed")] == [("e93", "m1")]
