"""Killed at every durable step of flows into Iceberg tables, inside recovery, by the clock; zombies that wake.

What is there is read by pyiceberg and by DuckDB. Safeguards that are taken out are missed.
"""

from __future__ import annotations

import pytest

from onefold.testing.harness import Schedule
from tests.crash import iceberg_controls as controls
from tests.crash import iceberg_flows as flows
from tests.stage import ZOMBIES, Stage

pytestmark = pytest.mark.crash

EVERY_STEP = {"LEDGER": 46, "STAGED": 32, "PARTED": 10, "TOTALS": 20, "PACED": 12, "TOGETHER": 12}
AGAIN = {"LEDGER": 8, "STAGED": 6, "TOTALS": 4}

ASLEEP = [
    *(f"before iceberg.{step}" for step in ("rows#1", "manifest#2", "manifest#3", "commit#2", "metadata#3")),
    *(f"after iceberg.{step}" for step in ("rows#2", "manifest#3", "metadata#3", "commit#2", "catalog-sync#3")),
]
"""The first commit of rows, and before them: its check is made; the fence has its own steps before these."""

ASLEEP_STAGED = ["before iceberg.stage#1", "after iceberg.stage-sync#2", "before iceberg.commit#2"]
ASLEEP_OPENING = ["before iceberg.create#1", "before iceberg.commit#1", "after iceberg.metadata#2"]


@pytest.mark.parametrize("name", EVERY_STEP)
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.at_every_step(getattr(flows, name), EVERY_STEP[name])


@pytest.mark.parametrize("name", AGAIN)
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.inside_recovery(getattr(flows, name), AGAIN[name])


def test_killed_at_random_moments_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    stage.at_random_moments(flows.LEDGER, 8)


@pytest.mark.parametrize("step", ASLEEP)
def test_a_zombie_that_wakes_between_check_and_commit_changes_nothing(step: str, stage: Stage) -> None:
    stage.wake_a_zombie(flows.LEDGER, step)


@pytest.mark.parametrize("step", ["before iceberg.rows#1", "before iceberg.commit#3", "after iceberg.metadata#4"])
def test_a_zombie_that_upserts_changes_nothing(step: str, stage: Stage) -> None:
    stage.wake_a_zombie(flows.TOTALS, step)


@pytest.mark.parametrize("step", [*ASLEEP_STAGED, *ASLEEP_OPENING])
def test_a_zombie_that_stages_or_opens_changes_nothing(step: str, stage: Stage) -> None:
    stage.wake_a_zombie(flows.STAGED, step)


@pytest.mark.parametrize("step", ["after journal.seal#1", "before iceberg.commit#2", "after iceberg.metadata#3"])
def test_a_zombie_of_a_copied_journal_changes_nothing(step: str, stage: Stage) -> None:
    stage.play(flows.LEDGER, [Schedule.parse(f"fork {step}")])


FULL = ["full before iceberg.stage#1", "full before iceberg.metadata#3", "fail before iceberg.manifest#2"]


@pytest.mark.parametrize("text", FULL)
def test_a_disk_that_fails_while_rows_are_staged_or_committed_loses_nothing(text: str, stage: Stage) -> None:
    stage.play(flows.STAGED, [Schedule.parse(text)])


def test_a_table_that_is_read_and_another_that_is_written_lose_nothing(stage: Stage) -> None:
    stage.at_every_step(flows.ONWARD, 8)


@pytest.mark.parametrize("guarantee", ["AT_LEAST_ONCE", "AT_MOST_ONCE"])
def test_the_weaker_guarantees_show_their_promise_and_no_other(guarantee: str, stage: Stage) -> None:
    stage.at_every_step(getattr(flows, guarantee), 8)


# -------------------------------------------------------------------------------------------------- negative controls


def test_a_token_that_is_moved_after_the_rows_is_missed(stage: Stage) -> None:
    texts = [f"kill after iceberg.commit#{count}" for count in (2, 4)]
    stage.miss_a_safeguard(flows.LEDGER, controls.token_moved_afterwards, texts)


def test_a_token_that_moves_by_properties_alone_is_missed(stage: Stage) -> None:
    texts = [f"kill after iceberg.commit#{count}" for count in (2, 3)]
    stage.miss_a_safeguard(flows.LEDGER, controls.token_in_a_commit_without_rows, texts)


def test_a_token_that_is_not_compared_is_missed(stage: Stage) -> None:
    stage.miss_a_safeguard(flows.LEDGER, controls.token_not_compared, ZOMBIES)


def test_a_refused_commit_that_is_built_anew_is_missed(stage: Stage) -> None:
    texts = [f"freeze {step}" for step in ("before iceberg.manifest#2", "before iceberg.commit#2")]
    stage.miss_a_safeguard(flows.LEDGER, controls.built_anew_without_asking, texts)


def test_staged_files_that_nobody_lists_are_missed(stage: Stage) -> None:
    texts = ["kill after journal.seal#1", "kill before iceberg.commit#2"]
    stage.miss_a_safeguard(flows.STAGED, controls.staged_files_not_listed, texts)
