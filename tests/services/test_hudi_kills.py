"""Flows into Hudi killed at durable steps, inside recovery, by the clock; zombies that wake; safeguards taken out.

The Java process is shared and outlives the dead, as one does that is busy when its parent dies; a few schedules have
one of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onefold.testing import harness_stage
from onefold.testing.harness import ForkServer, Schedule
from tests.services import hudi_controls as controls
from tests.services import hudi_flows as flows
from tests.stage import Count, Stage

pytestmark = pytest.mark.crash

ZOMBIES = ["freeze before hudi.commit#1", "freeze after hudi.write#2", "freeze after hudi.commit#1"]


@pytest.fixture
def stage(
    hudi_server: ForkServer, tmp_path: Path, schedules: Count, seed: int, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    monkeypatch.setattr(harness_stage, "BESIDE_SECONDS", flows.BESIDE_SECONDS)
    return Stage(tmp_path, hudi_server, schedules, seed)


def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    stage.at_every_step(flows.LEDGERS, 8)


def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    stage.inside_recovery(flows.LEDGERS, 3)


def test_killed_at_random_moments_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    stage.at_random_moments(flows.LEDGERS, 3)


@pytest.fixture(scope="module")
def tables(hudi_machine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("tables")
    flows.templates(folder)
    with pytest.MonkeyPatch.context() as named:
        named.setenv(flows.TEMPLATES, str(folder))
        yield


@pytest.mark.usefixtures("tables")
def test_a_reader_that_is_killed_reads_every_row_once(stage: Stage) -> None:
    stage.at_every_step(flows.ONWARD, 10)


@pytest.mark.parametrize("text", ZOMBIES)
def test_a_zombie_that_wakes_changes_nothing(text: str, stage: Stage) -> None:
    stage.wake_a_zombie(flows.LEDGERS, text.removeprefix("freeze "))


@pytest.mark.parametrize("text", ["kill before hudi.commit#1", "kill at 3.2s"])
def test_killed_with_the_java_process_nothing_is_lost_or_duplicated(text: str, stage: Stage) -> None:
    alone = replace(flows.PLAIN, arrange=(controls.own_machine,))
    stage.play(alone, [Schedule.parse(text)])


@pytest.mark.parametrize("guarantee", ["AT_LEAST_ONCE", "AT_MOST_ONCE"])
def test_the_weaker_guarantees_show_their_promise_and_no_other(guarantee: str, stage: Stage) -> None:
    stage.at_every_step(getattr(flows, guarantee), 2)


def test_a_token_that_is_moved_after_the_rows_is_missed(stage: Stage) -> None:
    stage.miss_a_safeguard(flows.PLAIN, controls.token_moved_afterwards, ["kill after hudi.commit#1"])


@pytest.mark.heavy
def test_a_token_that_is_not_compared_is_missed(stage: Stage) -> None:
    stage.miss_a_safeguard(flows.PLAIN, controls.token_not_compared, ["freeze before hudi.write#2"])


@pytest.mark.heavy
def test_a_token_that_is_compared_before_the_rows_are_written_alone_is_missed(stage: Stage) -> None:
    stage.miss_a_safeguard(flows.PLAIN, controls.token_not_compared_at_the_end, ["freeze before hudi.commit#1"])
