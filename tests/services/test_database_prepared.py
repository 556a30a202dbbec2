"""What is left behind when a sink refuses an epoch (nothing), and what is listed of that which is undecided."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import onefold as of
from onefold import disk
from onefold.cli.status import prepared_lines
from onefold.connectors import preparing
from onefold.connectors.mysql import session as mysql_session
from onefold.connectors.postgres import connection as postgres_connection
from onefold.errors import RowsRefused, SinkUnavailable
from tests.services.database_prepared import batch_of, begun, feed, findings, flow_of, lake_files, leave_prepared
from tests.services.database_systems import MYSQL, POSTGRES, System

one_server = pytest.mark.parametrize("system", [POSTGRES, MYSQL], ids=str)


@pytest.fixture(autouse=True)
def server(system: System, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(system.server)


POSITIVE = "CONSTRAINT positive CHECK (id > 0)"
PARENT = "CONSTRAINT parent FOREIGN KEY (id) REFERENCES parents (id)"

REFUSALS = {
    "postgres, at once": (POSTGRES, POSITIVE, "-5"),
    "postgres, when it is prepared": (POSTGRES, "CONSTRAINT one UNIQUE (id) DEFERRABLE INITIALLY DEFERRED", "7"),
    "mysql, check": (MYSQL, POSITIVE, "(-5)"),
    "mysql, unique": (MYSQL, "CONSTRAINT one UNIQUE (id)", "(7)"),
    "mysql, foreign key": (MYSQL, PARENT, "(-5)"),
}


@pytest.mark.parametrize(("system", "constraint", "row"), REFUSALS.values(), ids=list(REFUSALS))
@pytest.mark.parametrize("names", [("target",), ("target", "other")], ids=["refuses last", "refuses first"])
def test_rows_that_one_sink_refuses_leave_no_trace_in_any(
    system: System, constraint: str, row: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    name = constraint.split()[1]
    execute, rows = system.flows.execute, system.flows.rows
    execute(tmp_path, "CREATE TABLE parents (id bigint PRIMARY KEY)", "INSERT INTO parents VALUES (7)")
    execute(tmp_path, f"CREATE TABLE target (id bigint, {constraint})", "CREATE TABLE other (id bigint)")
    feed(tmp_path, "a.jsonl", 7, -5, 7)
    flow = flow_of(tmp_path, *(system.flows.table(tmp_path, each) for each in names))
    with pytest.raises(RowsRefused) as refused:
        flow.run(state=tmp_path / "state")
    assert name in str(refused.value.found)
    assert row in str(refused.value.found)
    assert [rows(tmp_path, f"SELECT id FROM {each}") for each in ("target", "other")] == [[], []]
    assert (system.flows.left(), lake_files(tmp_path)) == ([], [])
    assert flow.status(state=tmp_path / "state").epoch == 0
    execute(tmp_path, f"ALTER TABLE target DROP CONSTRAINT {name}")
    flow.run(state=tmp_path / "state")
    for each in names:
        assert rows(tmp_path, f"SELECT id FROM {each} ORDER BY id") == [(-5,), (7,), (7,)]
    assert (system.flows.left(), len(lake_files(tmp_path))) == ([], 1)


@one_server
def test_doctor_and_the_next_run_find_what_dead_processes_prepared(system: System, tmp_path: Path) -> None:
    feed(tmp_path, "a.jsonl", 1)
    flow, state = flow_of(tmp_path, system.flows.table(tmp_path, "target")), tmp_path / "state"
    flow.run(state=state)
    assert findings(flow.plan, state / "both") == []
    leave_prepared(flow.plan, state / "both", 2)
    [found] = findings(flow.plan, state / "both")
    assert found.status == "warning"
    assert "onefold:" in found.found
    assert "both" in found.found
    assert len(system.flows.left()) == 1
    feed(tmp_path, "b.jsonl", 3)
    flow_of(tmp_path, system.flows.table(tmp_path, "target")).run(state=state)
    assert (findings(flow.plan, state / "both"), system.flows.left()) == ([], [])
    assert system.flows.rows(tmp_path, "SELECT id FROM target ORDER BY id") == [(1,), (3,)]


class Died(BaseException):
    """The process ends here."""


@one_server
@pytest.mark.parametrize(("step", "is_decided"), [("{}.prepare", False), ("journal.seal", True)])
def test_status_and_doctor_tell_what_is_decided_from_what_is_not(
    step: str, is_decided: bool, system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name: killed behind the sink's prepare, and behind the seal."""
    feed(tmp_path, "a.jsonl", 1)
    flow, state = flow_of(tmp_path, system.flows.table(tmp_path, "target")), tmp_path / "state"

    def die(at: str, moment: str) -> None:
        if (at, moment) == (step.format(system.steps), "after"):
            raise Died

    monkeypatch.setattr(disk, "observer", die)
    with pytest.raises(Died):
        flow.run(state=state)
    monkeypatch.setattr(disk, "observer", None)
    again = flow_of(tmp_path, system.flows.table(tmp_path, "target"))
    told = again.status(state=state)
    [sink] = [one for one in told.sinks if one.name == "target"]
    [found] = findings(again.plan, state / "both")
    assert len(system.flows.left()) == 1
    [name] = sink.decided if is_decided else sink.undecided or ()
    assert "onefold:" in name
    [shown] = [str(line) for line in prepared_lines(told) if "target" in str(line)]
    assert shown.split()[:2] == ["decided" if is_decided else "undecided", "target:"]
    assert name in shown
    assert (sink.prepared, len(sink.decided), sink.undecided) == ((1, 1, ()) if is_decided else (0, 0, (name,)))
    assert found.found == f"{'decided, to be committed' if is_decided else 'undecided'}: {name}"
    again.run(state=state)
    assert (system.flows.left(), system.flows.rows(tmp_path, "SELECT id FROM target")) == ([], [(1,)])
    [sink] = [one for one in again.status(state=state).sinks if one.name == "target"]
    assert (sink.prepared, sink.decided, sink.undecided) == (0, (), ())


@one_server
def test_an_alter_table_that_waits_for_what_is_prepared_is_not_waited_for(system: System, tmp_path: Path) -> None:
    """It lets nobody write, or even look, before it is done: the flow would wait for it, and it for the flow."""
    feed(tmp_path, "a.jsonl", 1)
    flow, state = flow_of(tmp_path, system.flows.table(tmp_path, "target")), tmp_path / "state"
    flow.run(state=state)
    leave_prepared(flow.plan, state / "both", 2)
    altering = threading.Thread(target=system.flows.execute, args=(tmp_path, "ALTER TABLE target ADD COLUMN more int"))
    altering.start()
    deadline = time.monotonic() + 20
    while not system.flows.is_altering_held_up():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    feed(tmp_path, "b.jsonl", 3)
    began = time.monotonic()
    flow_of(tmp_path, system.flows.table(tmp_path, "target")).run(state=state)
    assert time.monotonic() - began < MOST_SECONDS
    altering.join()
    assert system.flows.rows(tmp_path, "SELECT id, more FROM target ORDER BY id") == [(1, None), (3, None)]


MOST_SECONDS = 15.0
"""Half of what a sink waits for a lock."""


@one_server
def test_what_a_zombie_prepares_after_its_successor_has_listed_is_found_by_the_next(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor can only wait for it, and gives up: it does not touch what it does not know."""
    monkeypatch.setattr(mysql_session, "SETTINGS", {**mysql_session.SETTINGS, "innodb_lock_wait_timeout": "1"})
    monkeypatch.setattr(postgres_connection, "LOCK_SECONDS", 1)
    monkeypatch.setattr(preparing, "PREPARE_SECONDS", 0.5)
    state = tmp_path / "state" / "both"

    def flow() -> of.Flow:
        return flow_of(tmp_path, system.flows.table(tmp_path, "target"))

    feed(tmp_path, "a.jsonl", 1)
    flow().run(state=tmp_path / "state")
    plan, successor_plan = flow().plan, flow().plan
    zombie, _, late = begun(plan, state, seal="a" * 32)
    successor, _, head = begun(successor_plan, state, seal="b" * 32)
    assert list(successor.handles()) == []
    zombie.prepare(late, [batch_of(plan, 2)])
    with pytest.raises(SinkUnavailable, match="took too long"):
        successor.prepare(head, [batch_of(successor_plan, 3)])
    [left] = system.flows.left()
    assert "a" * 32 in left
    for sink in (zombie, successor):
        sink.close()
    feed(tmp_path, "b.jsonl", 4)
    flow().run(state=tmp_path / "state")
    assert system.flows.rows(tmp_path, "SELECT id FROM target ORDER BY id") == [(1,), (4,)]
    assert system.flows.left() == []
