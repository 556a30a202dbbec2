"""Flows into Delta and Iceberg tables of an S3-compatible store, killed and frozen at their durable steps.

What the server does not show: see s3_server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onefold.testing.harness import ForkServer
from tests.crash import delta_controls, iceberg_controls
from tests.services import lake_s3_flows as flows
from tests.services.s3_server import S3
from tests.stage import Count, Stage

pytestmark = pytest.mark.crash

BESIDE_SECONDS = 8.0
"""A successor over this server takes longer than over a disk, and is to be done before the zombie wakes. It waits 10
seconds for a lock on SQLite's files, which the zombie may hold."""


@pytest.fixture(scope="module")
def store(s3_server: S3) -> Iterator[S3]:
    """Named in the environment, so that the processes under test find it."""
    with pytest.MonkeyPatch.context() as named:
        named.setenv(flows.STORE, s3_server.url)
        yield s3_server


@pytest.fixture(scope="module")
def store_forks(store: S3) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture
def stage(
    store_forks: ForkServer, tmp_path: Path, schedules: Count, seed: int, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    monkeypatch.setattr("onefold.testing.harness_stage.BESIDE_SECONDS", BESIDE_SECONDS)
    return Stage(tmp_path, store_forks, schedules, seed)


KILLED = ["DELTA_LEDGER", "DELTA_STAGED", "DELTA_TOTALS", "ICEBERG_LEDGER", "ICEBERG_STAGED", "ICEBERG_TOTALS"]

ZOMBIES = [
    ("DELTA_LEDGER", "before delta.commit#1"),
    ("DELTA_STAGED", "after journal.seal#1"),
    ("ICEBERG_LEDGER", "before iceberg.commit#2"),
    ("ICEBERG_STAGED", "after journal.seal#1"),
]


@pytest.mark.parametrize("name", KILLED)
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.at_every_step(getattr(flows, name), 3)


@pytest.mark.parametrize("name", ["DELTA_STAGED", "DELTA_TOTALS", "ICEBERG_STAGED", "ICEBERG_TOTALS"])
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(name: str, stage: Stage) -> None:
    stage.inside_recovery(getattr(flows, name), 1)


@pytest.mark.parametrize(("name", "step"), ZOMBIES)
def test_a_zombie_that_wakes_changes_nothing(name: str, step: str, stage: Stage) -> None:
    stage.wake_a_zombie(getattr(flows, name), step)


def test_a_version_of_a_delta_table_that_is_taken_anew_is_missed(stage: Stage) -> None:
    """Without it the store's refusal of a version that is there already protects from nothing."""
    texts = ["freeze before delta.commit#1"]
    stage.miss_a_safeguard(flows.DELTA_LEDGER, delta_controls.handle_taken_anew, texts)


def test_a_refused_commit_of_an_iceberg_table_that_is_built_anew_is_missed(stage: Stage) -> None:
    texts = ["freeze before iceberg.commit#2"]
    stage.miss_a_safeguard(flows.ICEBERG_LEDGER, iceberg_controls.built_anew_without_asking, texts)
