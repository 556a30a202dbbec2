"""Which servers and sinks cannot commit together, and what is said then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

import onefold as of
from onefold.connectors import preparing
from onefold.connectors.postgres.connection import Server
from onefold.engines.embedded.outputs import binding_of
from onefold.errors import GuaranteeRefused, OnefoldError, SinkRefused, SinkUnavailable
from onefold.types import Incarnation
from services.jars import ServiceMissing
from services.postgres import Postgres
from tests.services import postgres_flows as flows
from tests.services.database_prepared import feed, flow_of


def test_a_server_that_keeps_no_prepared_transactions_is_told_so_before_anything_is_sealed(tmp_path: Path) -> None:
    feed(tmp_path, "a.jsonl", 1)
    try:
        with Postgres({"max_prepared_transactions": "0"}) as server:
            flow = flow_of(tmp_path, of.postgres(server.url).table("target", create=True))
            with pytest.raises(SinkRefused, match="together") as refused:
                flow.run(state=tmp_path / "state")
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    assert "max_prepared_transactions" in str(refused.value)
    assert flow.status(state=tmp_path / "state").epoch == 0


def test_a_server_without_room_for_another_prepared_transaction_is_told_so_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others take the room while the flow is under way."""
    monkeypatch.setattr(preparing, "PREPARE_SECONDS", 1.0)
    try:
        with Postgres({"max_prepared_transactions": "1"}) as server:
            flow = flow_of(tmp_path, of.postgres(server.url).table("target", create=True))
            feed(tmp_path, "a.jsonl", 1)
            flow.run(state=tmp_path / "state")
            feed(tmp_path, "b.jsonl", 2, 3)
            with psycopg.connect(server.url, autocommit=True) as other:
                for statement in ("CREATE TABLE theirs ()", "BEGIN", "TABLE theirs", "PREPARE TRANSACTION 'theirs'"):
                    other.execute(statement)
                with pytest.raises(OnefoldError) as refused:
                    flow.run(state=tmp_path / "state")
                assert "maximum number of prepared transactions" in str(refused.value)
                assert flow.status(state=tmp_path / "state").epoch == 1
                other.execute("ROLLBACK PREPARED 'theirs'")
                flow.run(state=tmp_path / "state")
                assert other.execute("SELECT id FROM target ORDER BY id").fetchall() == [(1,), (2,), (3,)]
    except ServiceMissing as missing:
        pytest.skip(str(missing))


def test_doctor_says_that_a_server_went_away_while_it_was_asked(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the connection and the first answer."""
    plan = flow_of(tmp_path, flows.table(tmp_path, "target")).plan
    sink: Any = plan.outputs[-1].sink
    connect = Server.connect

    def connect_and_lose(self: Server, *args: Any, **named: Any) -> Any:
        connection = connect(self, *args, **named)
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        return connection

    monkeypatch.setattr(Server, "connect", connect_and_lose)
    [finding] = sink.check(None)
    assert finding.status == "failed"
    assert "terminating connection" in finding.found
    with pytest.raises(SinkUnavailable, match="does not answer"):
        sink.read_back(binding_of(plan.outputs[-1], plan, journal="j", incarnation=Incarnation(1), spool=None))


def test_sinks_whose_prepare_does_not_hold_are_refused_when_the_flow_is_built(tmp_path: Path) -> None:
    flow = of.Flow("both", commit="together")
    rows = flow.read(of.files(str(tmp_path / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
    for target in (of.sqlite("a.sqlite").table("t"), of.duckdb("a.duckdb").table("t")):
        with pytest.raises(GuaranteeRefused, match="does not hold until decided"):
            rows.append(target)
