"""What is said when sinks cannot commit together, what is left behind then (nothing), and what is listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

import onefold as of
from onefold.engines.embedded.examination import examine
from onefold.engines.embedded.outputs import binding_of
from onefold.engines.embedded.status import history_of
from onefold.errors import GuaranteeRefused, RowsRefused, SinkRefused
from onefold.protocols import CheckResult
from onefold.spool import FolderSpool
from onefold.types import EpochHead, EpochNumber, SealId, Token, TokenMove
from services.jars import ServiceMissing
from services.postgres import Postgres
from tests.services import postgres_flows as flows


@pytest.fixture
def sql(database: str, tmp_path: Path) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {flows.schema_of(tmp_path)}")
        connection.execute(f"SET search_path TO {flows.schema_of(tmp_path)}")
        yield connection


def feed(folder: Path, name: str, *ids: int) -> None:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_text("".join(json.dumps({"id": number}) + "\n" for number in ids))


def flow_of(folder: Path, target: Any = None) -> of.Flow:
    """A data set first, then a table: when that one refuses, the other has staged its rows already."""
    flow = of.Flow("both", commit="together")
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
    rows.append(of.files(str(folder / "lake")), name="lake")
    target = target or flows.database(folder).table("target", schema=flows.schema_of(folder))
    rows.append(target, name="target")
    return flow


def traces(folder: Path, sql: Any) -> tuple[list[Any], list[Any], list[Path]]:
    """Rows of the table, prepared transactions, files of the data set, staged ones included."""
    rows = [row[0] for row in sql.execute("SELECT id FROM target ORDER BY id")]
    prepared = sql.execute("SELECT gid FROM pg_prepared_xacts").fetchall()
    return rows, prepared, sorted((folder / "lake").rglob("*.parquet*"))


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("CONSTRAINT positive CHECK (id > 0)", ("positive", "-5")),
        ("CONSTRAINT one UNIQUE (id) DEFERRABLE INITIALLY DEFERRED", ("one", "7")),
    ],
    ids=["at once", "when it is prepared"],
)
def test_rows_that_one_sink_refuses_leave_no_trace_in_any(
    constraint: str, words: tuple[str, str], tmp_path: Path, sql: Any
) -> None:
    sql.execute(f"CREATE TABLE target (id bigint, {constraint})")
    feed(tmp_path, "a.jsonl", 7, -5, 7)
    with pytest.raises(RowsRefused) as refused:
        flow_of(tmp_path).run(state=tmp_path / "state")
    assert all(word in str(refused.value.found) for word in words)
    assert traces(tmp_path, sql) == ([], [], [])
    assert flow_of(tmp_path).status(state=tmp_path / "state").epoch == 0
    sql.execute(f"ALTER TABLE target DROP CONSTRAINT {words[0]}")
    flow_of(tmp_path).run(state=tmp_path / "state")
    rows, prepared, files = traces(tmp_path, sql)
    assert (rows, prepared, len(files)) == ([-5, 7, 7], [], 1)


def test_a_server_that_keeps_no_prepared_transactions_is_told_so_before_anything_is_sealed(tmp_path: Path) -> None:
    feed(tmp_path, "a.jsonl", 1)
    try:
        with Postgres({"max_prepared_transactions": "0"}) as server:
            flow = flow_of(tmp_path, of.postgres(server.url).table("target", create=True))
            with pytest.raises(SinkRefused, match="together") as refused:
                flow.run(state=tmp_path / "state")
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    assert "max_prepared_transactions" in refused.value.next_step
    assert flow.status(state=tmp_path / "state").epoch == 0


def test_doctor_names_what_is_prepared_and_undecided(tmp_path: Path, sql: Any) -> None:
    sql.execute("CREATE TABLE target (id bigint)")
    feed(tmp_path, "a.jsonl", 1)
    flow_of(tmp_path).run(state=tmp_path / "state")
    assert [finding.status for finding in _prepared(tmp_path)] == []
    _leave_prepared(tmp_path)
    [finding] = _prepared(tmp_path)
    assert finding.status == "warning"
    assert "onefold:both%20target:" in finding.found
    flow_of(tmp_path).run(state=tmp_path / "state")
    assert _prepared(tmp_path) == []


def _prepared(folder: Path) -> list[CheckResult]:
    findings = examine(flow_of(folder).plan, folder / "state" / "both")
    return [finding for finding in findings if finding.what.endswith("prepared transactions")]


def _leave_prepared(folder: Path) -> None:
    """As a process leaves it that dies before its seal."""
    history, journal = history_of("both", folder / "state" / "both")
    output = flow_of(folder).plan.outputs[-1]
    spool = FolderSpool(folder / "spool")
    binding = binding_of(output, flow="both", journal=journal, incarnation=history.incarnation, spool=spool)
    token = output.sink.open(binding)
    number, seal = EpochNumber(history.head + 1), SealId("f" * 32)
    batch = pa.RecordBatch.from_pylist([{"id": 2}], output.schema)
    output.sink.prepare(EpochHead(number, seal, TokenMove(token, Token(number, seal))), [batch])
    output.sink.close()


def test_sinks_whose_prepare_does_not_hold_are_refused_when_the_flow_is_built(tmp_path: Path) -> None:
    flow = of.Flow("both", commit="together")
    rows = flow.read(of.files(str(tmp_path / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
    for target in (of.sqlite("a.sqlite").table("t"), of.duckdb("a.duckdb").table("t")):
        with pytest.raises(GuaranteeRefused, match="does not hold until decided"):
            rows.append(target)
