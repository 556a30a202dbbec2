"""What XA transactions of MySQL and MariaDB hold, and for how long; who cannot use them, and what is said then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pymysql
import pytest

import onefold as of
from onefold.connectors.mysql import prepared
from onefold.connectors.mysql.session import Session
from onefold.errors import OutcomeUnknown, SinkRefused
from onefold.plan import Plan
from services.jars import ServiceMissing
from services.mariadb import MariaDB
from tests.services import mysql_flows as flows
from tests.services.database_prepared import batch_of, begun, binding_in, feed, flow_of, leave_prepared

STRANGE = "X'ff00fe',X'c3'"


@pytest.fixture
def plan(mysql_database: str, tmp_path: Path) -> Plan:
    """Of a flow that has run once, with the row 1."""
    feed(tmp_path, "a.jsonl", 1)
    flow = flow_of(tmp_path, flows.table(tmp_path, "target"))
    flow.run(state=tmp_path / "state")
    return flow.plan


def run_again(folder: Path) -> list[tuple[Any, ...]]:
    """The flow to its end, and its rows."""
    flow_of(folder, flows.table(folder, "target")).run(state=folder / "state")
    return flows.rows(folder, "SELECT id FROM target ORDER BY id")


@pytest.fixture(params=[{}, {"log-bin": "binary", "server-id": "1"}], ids=["no binary log", "binary log"])
def own_server(request: pytest.FixtureRequest) -> Iterator[MariaDB]:
    """One that may be killed: not the one that the other tests share."""
    settings: Mapping[str, str] = request.param
    try:
        with MariaDB(settings) as started:
            yield started
    except ServiceMissing as missing:
        pytest.skip(str(missing))


def test_what_is_prepared_and_what_is_committed_survive_a_kill_of_the_server(
    own_server: MariaDB, tmp_path: Path
) -> None:
    feed(tmp_path, "a.jsonl", 1)
    flow = flow_of(tmp_path, of.mysql(own_server.url).table("target", create=True))
    flow.run(state=tmp_path / "state")
    sink, token, head = begun(flow.plan, tmp_path / "state" / "both", seal="e" * 32)
    receipt = sink.prepare(head, [batch_of(flow.plan, 2)])
    own_server.kill()
    own_server.start()
    with flows.connect(own_server.url) as connection:
        flows.ask(connection, "SET innodb_lock_wait_timeout = 1")
        for statement in ("UPDATE _onefold_tokens SET epoch = 9", "UPDATE target SET id = 9 WHERE id = 2"):
            with pytest.raises(pymysql.OperationalError, match="1205"):
                flows.ask(connection, statement)
        assert flows.ask(connection, "SELECT id FROM target") == [(1,)]
    with pytest.raises(OutcomeUnknown):
        sink.commit([receipt], head.move)
    again, found, _ = begun(flow.plan, tmp_path / "state" / "both", seal="e" * 32)
    assert found == token
    assert [handle.detail for handle in again.handles()] == [receipt.detail]
    again.commit([receipt], head.move)
    own_server.kill()
    own_server.start()
    with flows.connect(own_server.url) as connection:
        assert flows.ask(connection, "SELECT id FROM target ORDER BY id") == [(1,), (2,)]
    assert flows.left(own_server.url) == []


def test_transactions_of_strangers_are_left_alone(plan: Plan, mysql_database: str, tmp_path: Path) -> None:
    """Whatever their names are: those of other programs need not be text."""
    leave_prepared(plan, tmp_path / "state" / "both", 2)
    with flows.connect(mysql_database) as stranger:
        flows.ask(stranger, f"USE {flows.database_of(tmp_path)}")
        flows.ask(stranger, "CREATE TABLE theirs (id int)")
        for statement in ("XA START {}", "INSERT INTO theirs VALUES (1)", "XA END {}", "XA PREPARE {}"):
            flows.ask(stranger, statement.format(STRANGE))
        feed(tmp_path, "b.jsonl", 3)
        assert run_again(tmp_path) == [(1,), (3,)]
        flows.ask(stranger, f"XA COMMIT {STRANGE}")
    assert flows.rows(tmp_path, "SELECT id FROM theirs") == [(1,)]


def raises(at: str, code: int, text: str) -> Any:
    """Session.execute that is told so by the server."""
    whole = Session.execute

    def execute(self: Session, sql: Any, values: Any = None) -> Any:
        if str(sql).startswith(at):
            raise pymysql.OperationalError(code, text)
        return whole(self, sql, values)

    return execute


@pytest.mark.parametrize(
    ("at", "code", "says"),
    [("XA RECOVER", 1401, "GRANT XA_RECOVER_ADMIN"), ("XA START", 1235, "commit separately")],
    ids=["not allowed to list", "no such transactions"],
)
def test_who_cannot_prepare_is_told_so_before_anything_is_sealed(
    at: str, code: int, says: str, mysql_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MySQL says it to a user without the right, and MariaDB on a Galera cluster."""
    monkeypatch.setattr(Session, "execute", raises(at, code, "no"))
    feed(tmp_path, "a.jsonl", 1)
    flow = flow_of(tmp_path, flows.table(tmp_path, "target"))
    with pytest.raises(SinkRefused, match="together") as refused:
        flow.run(state=tmp_path / "state")
    assert says in str(refused.value)
    assert flow.status(state=tmp_path / "state").epoch == 0
    [looked] = flow.plan.outputs[-1].sink.check(binding_in(flow.plan, tmp_path / "state" / "both"))
    assert (looked.status, says in str(looked.next_step)) == ("failed", True)
    alone = of.Flow("alone")
    rows = alone.read(of.files(str(tmp_path / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
    rows.append(flows.table(tmp_path, "alone"))
    alone.run(state=tmp_path / "state")
    assert flows.rows(tmp_path, "SELECT id FROM alone") == [(1,)]


def test_a_mysql_that_may_forget_what_is_prepared_is_refused(
    mysql_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Session._set_up

    def set_up(self: Session, label: str) -> None:
        whole(self, label)
        self.is_mariadb, self.version = False, (8, 0, 29)

    monkeypatch.setattr(Session, "_set_up", set_up)
    feed(tmp_path, "a.jsonl", 1)
    with pytest.raises(SinkRefused, match="together") as refused:
        flow_of(tmp_path, flows.table(tmp_path, "target")).run(state=tmp_path / "state")
    assert (refused.value.found, "8.0.30" in str(refused.value.expected)) == ("8.0.29", True)


def test_a_server_that_was_told_to_forget_with_the_session_is_told_otherwise(
    plan: Plan, mysql_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that says so is in some versions of MariaDB only: another one stands for it."""
    monkeypatch.setattr(prepared, "_FORGETS_ON_HANGING_UP", "sql_warnings")
    with flows.connect(mysql_database) as administrator:
        flows.ask(administrator, "SET GLOBAL sql_warnings = 1")
        try:
            sink: Any = begun(plan, tmp_path / "state" / "both", seal="e" * 32)[0]
            assert sink._session.execute("SELECT @@sql_warnings, @@global.sql_warnings").fetchone() == (0, 1)
            sink.close()
        finally:
            flows.ask(administrator, "SET GLOBAL sql_warnings = 0")
