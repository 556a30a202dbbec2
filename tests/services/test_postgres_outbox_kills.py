"""Flows out of an outbox, killed at every durable step, in recovery, by the clock; settled rows that are deleted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.connectors.postgres import outbox_cleaning
from onefold.protocols import Limit
from onefold.testing.harness import Subject
from tests.services import outbox_controls as controls
from tests.services import outbox_tables as tables
from tests.services import postgres_flows as flows
from tests.services.outbox_flows import CLEANED, KEPT
from tests.stage import Stage

pytestmark = pytest.mark.crash

SUBJECTS = pytest.mark.parametrize("subject", [KEPT, CLEANED], ids=["kept", "cleaned"])


@SUBJECTS
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(subject: Subject, database_stage: Stage) -> None:
    database_stage.at_every_step(subject, 18)


@SUBJECTS
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(subject: Subject, database_stage: Stage) -> None:
    database_stage.inside_recovery(subject, 6)


def test_killed_at_random_moments_nothing_is_lost_or_duplicated(database_stage: Stage) -> None:
    database_stage.at_random_moments(CLEANED, 6)


@pytest.mark.parametrize("step", ["before postgres.clean#1", "after journal.seal#2", "before postgres.commit#2"])
def test_a_zombie_that_wakes_changes_nothing(step: str, database_stage: Stage) -> None:
    """It may delete, and what it deletes is settled."""
    database_stage.wake_a_zombie(CLEANED, step)


KILLS = [f"kill before journal.seal#{count}" for count in (1, 2, 4)]


@pytest.mark.parametrize(
    ("subject", "safeguard"), [(CLEANED, controls.cleaned_when_read), (KEPT, controls.position_forgotten)]
)
def test_a_safeguard_taken_out_is_missed(
    subject: Subject, safeguard: Callable[[], None], database_stage: Stage
) -> None:
    database_stage.miss_a_safeguard(subject, safeguard, KILLS)


# ----------------------------------------------------------------------------------------------------------- cleaning


@pytest.fixture
def table(tmp_path: Path, database: str) -> str:
    return tables.make(tmp_path)


def _ids(table: str) -> list[int]:
    with tables.connect() as connection:
        return tables.numbers(connection.execute(f"SELECT id FROM {table} ORDER BY id").fetchall())


def test_what_is_not_settled_is_never_deleted(tmp_path: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when many rows are deleted at a few at a time, and when it is told twice."""
    monkeypatch.setattr(outbox_cleaning, "ROWS_AT_ONCE", 3)
    with tables.connect(autocommit=True) as connection:
        for first in (1, 11, 21):
            tables.insert(connection, table, *range(first, first + 10))
    source = tables.source(tmp_path, delete_settled=True)
    source.open(None)
    read = source.read(tables.PARTITION, {}, Limit(15, 1 << 20), 0.0)
    source.settle({tables.PARTITION: {}})
    assert _ids(table) == list(range(1, 31))
    for _ in range(2):
        source.settle({tables.PARTITION: read.next})
        assert _ids(table) == list(range(16, 31))
    found, end = tables.drained(source, read.next)
    assert found == list(range(16, 31))
    source.close()
    source.settle({tables.PARTITION: end})
    assert _ids(table) == [], "the reading may have ended before the last settling"
    assert tables.drained_anew(tmp_path, end) == []


def test_rows_are_kept_unless_it_is_said(tmp_path: Path, table: str) -> None:
    with tables.connect(autocommit=True) as connection:
        tables.insert(connection, table, 1)
    source = tables.source(tmp_path)
    source.open(None)
    _, end = tables.drained(source, {})
    source.settle({tables.PARTITION: end})
    source.close()
    assert _ids(table) == [1]


@pytest.mark.parametrize("changed", [{"server": "1"}, {"database": 1}, {"timeline": 77}])
def test_nothing_is_deleted_by_a_position_of_another_history(
    changed: dict[str, Any], tmp_path: Path, table: str
) -> None:
    """There, rows of the same transaction ids are others."""
    with tables.connect(autocommit=True) as connection:
        tables.insert(connection, table, 1)
    source = tables.source(tmp_path, delete_settled=True)
    source.open(None)
    _, end = tables.drained(source, {})
    assert isinstance(end, dict)
    source.settle({tables.PARTITION: {**end, **changed}})
    source.close()
    assert _ids(table) == [1]


def test_rows_that_somebody_holds_stay_until_later(
    tmp_path: Path, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    with tables.connect(autocommit=True) as connection:
        tables.insert(connection, table, 1, 2)
    source = tables.source(tmp_path, delete_settled=True)
    source.open(None)
    _, end = tables.drained(source, {})
    with tables.connect() as holder:
        holder.execute(f"SELECT * FROM {table} WHERE id = 2 FOR UPDATE")
        source.settle({tables.PARTITION: end})
        holder.rollback()
    assert "settled rows were not deleted" in caplog.text
    assert _ids(table) == [1, 2]
    source.settle({tables.PARTITION: end})
    assert _ids(table) == []
    source.close()


def test_a_flow_cleans_up_behind_itself_while_others_insert(tmp_path: Path, table: str) -> None:
    flow = of.Flow("cleaning", settle_every="20 milliseconds", fence_every="50 milliseconds")
    endpoint = flows.database(tmp_path).outbox("outbox", schema=flows.schema_of(tmp_path), delete_settled=True)
    flow.read(endpoint, schema={"id": "BIGINT", "n": "BIGINT"}).append(flows.table(tmp_path, "mirror"))
    done = threading.Event()
    with flow.start(state=tmp_path / "state"), tables.connect(autocommit=True) as connection:
        for first in range(1, 301, 10):
            tables.insert(connection, table, *range(first, first + 10))
        for _ in range(200):
            if not _ids(table):
                break
            done.wait(0.05)
    assert _ids(table) == []
    assert sorted(flows.rows(tmp_path, "SELECT id, n FROM mirror")) == [(n, 10 * n) for n in range(1, 301)]
