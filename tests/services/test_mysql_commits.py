"""Commits of the MySQL sink that fail, and those of which nobody knows: what is said, and what is there afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest

from onefold.connectors.mysql import MysqlSink, session
from onefold.connectors.mysql.session import Session
from onefold.errors import OutcomeUnknown, SinkRefused, SinkUnavailable
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered, token
from tests.services import mysql_flows as flows


@pytest.fixture
def bench(mysql_database: str, tmp_path: Path) -> Iterator[SinkBench]:
    """An upsert whose table holds the keys 1 and 2."""
    case = SinkCase(
        "mysql", lambda folder, table, mode, key: flows.table(folder, table).as_sink(mode, key), fences=True
    )
    made = SinkBench(case, tmp_path, "upsert", ("id",))
    sink, _ = made.instance()
    sink.commit([made.prepare(sink, 1, numbered(1, 2))], move(0, 1))
    yield made
    made.close()


@pytest.fixture
def foreign(bench: SinkBench, mysql_database: str) -> Iterator[Any]:
    """Somebody else in a transaction."""
    connection = flows.connect(mysql_database)
    flows.ask(connection, f"USE {flows.database_of(bench.folder)}")
    flows.ask(connection, "START TRANSACTION")
    yield connection
    connection.close()


def answer(at: str, error: Exception, *, is_done: bool) -> Any:
    """Session.execute that loses the answer to one statement, done or not, and with it the connection.

    at: how the statement begins. Only the first of them: whoever tries again is answered.
    """
    whole, lost = Session.execute, [error]

    def execute(self: Session, sql: Any, values: Any = None) -> Any:
        if str(sql).startswith(at) and lost:
            if is_done:
                whole(self, sql, values)
            self._connection._force_close()
            raise lost.pop()
        return whole(self, sql, values)

    return execute


@pytest.mark.parametrize("is_done", [True, False], ids=["landed", "lost"])
def test_a_commit_without_an_answer_is_unknown_and_the_token_tells(
    is_done: bool, bench: SinkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, _ = bench.instance(2)
    receipt = bench.prepare(sink, 2, numbered(3))
    with monkeypatch.context() as patch:
        patch.setattr(Session, "execute", answer("COMMIT", LOST, is_done=is_done))
        with pytest.raises(OutcomeUnknown, match="did not answer a commit"):
            sink.commit([receipt], move(1, 2))
    with pytest.raises(SinkUnavailable, match="is to be opened again"):
        sink.commit([receipt], move(1, 2))
    _, found = bench.instance(3)
    assert found == (token(2) if is_done else token(1))
    assert bench.ids() == ([1, 2, 3] if is_done else [1, 2])


LOST = pymysql.OperationalError(2013, "Lost connection to MySQL server during query")


@pytest.mark.parametrize("is_done", [True, False], ids=["landed", "lost"])
@pytest.mark.parametrize("at", ["XA START", "UPDATE", "INSERT INTO", "XA END", "XA PREPARE"])
def test_a_prepare_without_an_answer_is_done_again_under_its_name(
    at: str, is_done: bool, bench: SinkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, _ = bench.instance(2)
    assert isinstance(sink, MysqlSink)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "execute", answer(at, LOST, is_done=is_done))
        receipt = bench.prepare(sink, 2, numbered(3), move=move(1, 2))
    assert [handle.detail for handle in sink.handles()] == [receipt.detail]
    assert (bench.ids(), bench.look()[1]) == ([1, 2], token(1))
    sink.commit([receipt], move(1, 2))
    assert (bench.ids(), bench.look()[1], flows.left()) == ([1, 2, 3], token(2), [])


@pytest.mark.parametrize("is_done", [True, False], ids=["landed", "lost"])
def test_the_commit_of_what_is_prepared_without_an_answer_is_unknown_and_the_token_tells(
    is_done: bool, bench: SinkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, _ = bench.instance(2)
    receipt = bench.prepare(sink, 2, numbered(3), move=move(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(Session, "execute", answer("XA COMMIT", LOST, is_done=is_done))
        with pytest.raises(OutcomeUnknown, match="did not answer a commit"):
            sink.commit([receipt], move(1, 2))
    again, found = bench.instance(3)
    assert isinstance(again, MysqlSink)
    if is_done:
        assert (found, again.handles()) == (token(2), [])
        with pytest.raises(OutcomeUnknown):  # a second time: decided, and nothing is doubled
            again.commit([receipt], move(1, 2))
    else:
        assert (found, [handle.detail for handle in again.handles()]) == (token(1), [receipt.detail])
        again.commit([receipt], move(1, 2))
    assert (bench.ids(), bench.look()[1], flows.left()) == ([1, 2, 3], token(2), [])


def test_a_session_that_is_killed_before_it_commits_has_written_nothing(bench: SinkBench, mysql_database: str) -> None:
    sink, _ = bench.instance(2)
    receipt = bench.prepare(sink, 2, numbered(3))
    assert isinstance(sink, MysqlSink)
    assert sink._session is not None
    number = sink._session.execute("SELECT connection_id()").fetchone()[0]
    with flows.connect(mysql_database) as administrator:
        flows.ask(administrator, f"KILL CONNECTION {number}")
    with pytest.raises(SinkUnavailable):
        sink.commit([receipt], move(1, 2))
    again, found = bench.instance(3)
    assert (found, bench.ids()) == (token(1), [1, 2])
    again.commit([receipt], move(1, 2))
    assert bench.ids() == [1, 2, 3]


def test_a_lock_that_is_not_given_in_time_rolls_the_whole_transaction_back(
    bench: SinkBench, foreign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself takes back one statement only: the token would stay moved."""
    monkeypatch.setattr(session, "SETTINGS", {**session.SETTINGS, "innodb_lock_wait_timeout": "1"})
    flows.ask(foreign, "UPDATE target SET name = 'theirs' WHERE id = 2")
    sink, _ = bench.instance(2)
    receipt = bench.prepare(sink, 2, numbered(1, 2, 3))
    with pytest.raises(SinkUnavailable) as waited:
        sink.commit([receipt], move(1, 2))
    assert "1205" in str(waited.value.found)
    foreign.rollback()
    assert bench.look()[1] == token(1)
    assert bench.ids() == [1, 2]
    sink.commit([receipt], move(1, 2))
    assert (bench.ids(), bench.look()[1]) == ([1, 2, 3], token(2))


def test_a_deadlock_rolls_the_whole_transaction_back(bench: SinkBench, foreign: Any) -> None:
    """The one that has written less is the victim, and that is the sink."""
    flows.ask(foreign, "INSERT INTO target (id) VALUES " + ", ".join(f"({number})" for number in range(1000, 3000)))
    flows.ask(foreign, "UPDATE target SET name = 'theirs' WHERE id = 2")
    sink, _ = bench.instance(2)
    receipt = bench.prepare(sink, 2, numbered(1, 2))
    failed: list[Exception] = []

    def deliver() -> None:
        try:
            sink.commit([receipt], move(1, 2))
        except SinkUnavailable as error:
            failed.append(error)

    delivering = threading.Thread(target=deliver)
    delivering.start()
    waiting = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    deadline = time.monotonic() + 20
    while flows.ask(foreign, waiting) == [(0,)] and time.monotonic() < deadline:
        time.sleep(0.2)  # what it shows is as old as the last look, if that was just now
    flows.ask(foreign, "UPDATE target SET name = 'theirs' WHERE id = 1")
    foreign.rollback()
    delivering.join()
    assert failed
    assert "1213" in str(failed[0])
    assert bench.look()[1] == token(1)
    sink.commit([receipt], move(1, 2))
    assert (bench.ids(), bench.look()[1]) == ([1, 2], token(2))


def test_opening_waits_for_a_commit_that_is_under_way(bench: SinkBench, mysql_database: str) -> None:
    """Of a session that could not be ended: it bears no name of ours."""
    old = flows.connect(mysql_database)
    tokens = f"`{flows.database_of(bench.folder)} 100% tokens`._onefold_tokens"
    flows.ask(old, "START TRANSACTION")
    new = [token(2).seal, token(2).to_json()]
    flows.ask(old, f"UPDATE {tokens} SET epoch = 2, seal = %s, ends = %s".replace("100%", "100%%"), new)
    committing = threading.Timer(1.5, old.commit)
    committing.start()
    _, found = bench.instance(2)
    assert found == token(2)
    committing.join()
    old.close()


def test_a_user_who_may_not_end_the_earlier_session_is_told(
    bench: SinkBench, mysql_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = flows.database_of(bench.folder)[:12]
    with flows.connect(mysql_database) as administrator:
        flows.ask(administrator, f"CREATE USER {user} IDENTIFIED BY 'x'")
        for place in (flows.database_of(bench.folder), f"{flows.database_of(bench.folder)} 100% tokens"):
            flows.ask(administrator, f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{place}`.* TO {user}")
    parts = urlsplit(mysql_database)
    place = f"{parts.hostname}:{parts.port}/{flows.database_of(bench.folder)}"
    with monkeypatch.context() as patch:
        patch.setenv(flows.VARIABLE, f"mysql://{user}:x@{place}")
        with pytest.raises(SinkRefused, match="may not end a session"):
            bench.instance(2)
    bench.close()
    monkeypatch.setenv(flows.VARIABLE, f"mysql://{user}:x@{place}")
    assert bench.instance(2)[1] == token(1)
