"""Killed at every durable step of flows into a database server, inside recovery, by the clock; a zombie that wakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.testing.harness import Result, Schedule, play
from tests.crash.oracle import Count as Counted
from tests.services.database_systems import MYSQL, POSTGRES, System
from tests.stage import ZOMBIES, Count, Stage

pytestmark = [pytest.mark.crash, pytest.mark.parametrize("system", [POSTGRES, MYSQL], ids=str)]


@pytest.fixture
def stage(system: System, request: pytest.FixtureRequest, tmp_path: Path, schedules: Count, seed: int) -> Stage:
    return Stage(tmp_path, request.getfixturevalue(system.forks), schedules, seed)


def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(system: System, stage: Stage) -> None:
    stage.at_every_step(system.flows.LEDGER, 20)


def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(system: System, stage: Stage) -> None:
    stage.inside_recovery(system.flows.LEDGER, 6)


def test_killed_at_random_moments_nothing_is_lost_or_duplicated(system: System, stage: Stage) -> None:
    stage.at_random_moments(system.flows.LEDGER, 6)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("step", ["before {}.write", "before {}.commit", "after {}.commit"])
def test_a_zombie_that_wakes_changes_nothing(step: str, count: int, system: System, stage: Stage) -> None:
    """Frozen with its transaction open, which its successor has to wait for or to outlive."""
    stage.wake_a_zombie(system.flows.LEDGER, f"{step.format(system.steps)}#{count}")


DELIVERED_NOT_RECORDED = Schedule.parse("kill before journal.outcome#1")
ATTEMPTED_NOT_TRIED = Schedule.parse("kill after journal.attempt#1")


def test_the_promised_duplicate_and_the_promised_loss_show(system: System, stage: Stage) -> None:
    flows, folder, server = system.flows, stage.folder, stage.server
    repeated = play(DELIVERED_NOT_RECORDED, flows.AT_LEAST_ONCE, folder / "least", server)
    lost = play(ATTEMPTED_NOT_TRIED, flows.AT_MOST_ONCE, folder / "most", server)
    for result in (repeated, lost):
        assert not result.complaints, result.complaints
    assert repeated.judgement is not None
    assert lost.judgement is not None
    assert repeated.judgement.duplicated > 0
    assert 0 < lost.judgement.lost == given_up(lost)


def test_at_least_once_repeats_at_most_what_was_under_way_and_loses_nothing(system: System, stage: Stage) -> None:
    subject = system.flows.AT_LEAST_ONCE
    for result in stage.at_every_step(subject, 8).results:
        assert isinstance(result.judgement, Counted)
        assert result.judgement.sinks["topic"][2] <= 2, "one kill repeats a delivery once"


def test_at_most_once_loses_at_most_what_it_says_and_repeats_nothing(system: System, stage: Stage) -> None:
    subject = system.flows.AT_MOST_ONCE
    for result in stage.at_every_step(subject, 8).results:
        assert isinstance(result.judgement, Counted)
        assert result.judgement.sinks["topic"][0] <= given_up(result), str(result.schedule)


def given_up(result: Result) -> int:
    """The rows that the last process says may be lost, in all sinks."""
    return sum(result.ends[-1]["given_up"].values())


def test_a_token_that_is_moved_after_the_rows_is_missed(system: System, stage: Stage) -> None:
    texts = [f"kill after {system.steps}.commit#{count}" for count in range(1, 8)]
    stage.miss_a_safeguard(system.flows.LEDGER, system.controls.token_moved_afterwards, texts)


def test_a_token_that_is_not_compared_is_missed(system: System, stage: Stage) -> None:
    controls = system.controls
    stage.miss_a_safeguard(
        system.flows.LEDGER, controls.token_not_compared, ZOMBIES, other=controls.sessions_left_alone
    )
