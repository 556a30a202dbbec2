"""Iceberg tables of Apache Iceberg's own REST catalog: the contract, killed flows, a catalog that is killed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.connectors.iceberg import iceberg
from onefold.testing.contract_case import SinkCase
from onefold.testing.contracts import sink_contracts
from onefold.testing.harness import ForkServer
from services.iceberg import VARIABLE, IcebergCatalog, running
from services.jars import ServiceMissing
from tests.crash import iceberg_controls as controls
from tests.services import iceberg_rest_flows as flows
from tests.services import under_load
from tests.services.iceberg_rest_oracle import namespace_of, rows_by_duckdb
from tests.stage import Count, Stage

CASE = SinkCase(
    "iceberg-rest",
    lambda folder, table, mode, key: iceberg((namespace_of(folder), table), flows.CATALOG).as_sink(mode, key),
    fences=True,
)

SOON_SECONDS = 60.0


@pytest.fixture(scope="module")
def catalog() -> Iterator[str]:
    """Named in the environment, so that the processes under test find it."""
    with pytest.MonkeyPatch.context() as named:
        try:
            with running() as address:
                named.setenv(VARIABLE, address)
                yield address
        except ServiceMissing as missing:
            pytest.skip(str(missing))


@pytest.fixture(scope="module")
def catalog_server(catalog: str) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture
def stage(catalog_server: ForkServer, tmp_path: Path, schedules: Count, seed: int) -> Stage:
    return Stage(tmp_path, catalog_server, schedules, seed)


@pytest.mark.parametrize("name", [one.name for one in sink_contracts(CASE)])
@pytest.mark.usefixtures("catalog")
def test_the_sink_keeps(name: str, tmp_path: Path) -> None:
    [contract] = [one for one in sink_contracts(CASE) if one.name == name]
    contract.run(tmp_path)


@pytest.mark.crash
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    stage.at_every_step(flows.LEDGER, 8)


@pytest.mark.crash
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    stage.inside_recovery(flows.LEDGER, 3)


@pytest.mark.crash
@pytest.mark.parametrize("step", ["before iceberg.commit#2", "after iceberg.commit#2"])
def test_a_zombie_that_wakes_between_check_and_commit_changes_nothing(step: str, stage: Stage) -> None:
    stage.wake_a_zombie(flows.PLAIN, step)


@pytest.mark.crash
def test_a_token_that_is_moved_after_the_rows_is_missed(stage: Stage) -> None:
    texts = [f"kill after iceberg.commit#{count}" for count in (2, 4)]
    stage.miss_a_safeguard(flows.PLAIN, controls.token_moved_afterwards, texts)


@pytest.mark.crash
def test_a_token_that_is_not_compared_is_missed(stage: Stage) -> None:
    stage.miss_a_safeguard(flows.PLAIN, controls.token_not_compared, ["freeze after journal.seal#1"])


@pytest.mark.crash
@pytest.mark.timeout(600)
def test_a_catalog_that_is_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, schedules: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a commit landed whose answer never came, the token says."""
    inbox, stopping = tmp_path / "in", threading.Event()
    inbox.mkdir()
    written: list[int] = []
    writer = threading.Thread(target=_write, args=(inbox, written, stopping), daemon=True)
    try:
        with IcebergCatalog() as own:
            monkeypatch.setenv(VARIABLE, own.address)
            writer.start()
            with under_load.running(_flow(tmp_path), tmp_path / "state"):
                under_load.kill([own] * schedules(3), up_seconds=1.5, down_seconds=0.5)
                stopping.set()
                writer.join()
                deadline = time.monotonic() + SOON_SECONDS
                while len(_copied(tmp_path)) < len(written) and time.monotonic() < deadline:
                    time.sleep(0.2)
            assert Counter(_copied(tmp_path)) == Counter(written)
            assert len(written) > 100
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    finally:
        stopping.set()


def _flow(folder: Path) -> of.Flow:
    flow = of.Flow("away", epoch_rows=20, settle_every="50 milliseconds")
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl"), complete="rename"), schema={"id": "BIGINT"}, name="in")
    rows.append(flows.table(folder, "ledger"), name="copy")
    return flow


def _write(inbox: Path, written: list[int], stopping: threading.Event) -> None:
    while not stopping.wait(0.05):
        number = len(written)
        partial = inbox / f"{number:08}.part"
        partial.write_text(f'{{"id": {number}}}\n')
        partial.rename(partial.with_suffix(".jsonl"))
        written.append(number)


def _copied(folder: Path) -> list[Any]:
    return [row[0] for row in rows_by_duckdb(folder, "ledger", ["id"])]
