"""A table that others alter while a flow writes to it: nothing is rounded, cut, reinterpreted or doubled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import onefold as of
from onefold import disk
from onefold.errors import SinkRefused
from tests.services import postgres_flows as flows

SCHEMA = {"id": "BIGINT", "name": "VARCHAR", "amount": "DECIMAL(18,2)", "at": "TIMESTAMP", "share": "DOUBLE"}
FIRST = {"id": 1, "name": "a", "amount": "1.50", "at": "2026-01-01T00:00:00", "share": 1.0}
SECOND = {"id": 2, "name": "b", "amount": "2.57", "at": "2026-01-01T00:00:00.7", "share": 2.5}
COLUMNS = "id bigint, name text, amount numeric(18,2), at timestamp, share double precision, more int"
KEYED = "ALTER TABLE target ADD CONSTRAINT one UNIQUE (id)"

WAYS = ("append", "upsert", "together", "upsert together")

every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def sql(database: str, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "in").mkdir()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {flows.schema_of(tmp_path)}")
        connection.execute(f"SET search_path TO {flows.schema_of(tmp_path)}")
        connection.execute(f"CREATE TABLE target ({COLUMNS})")
        connection.execute("CREATE TABLE other (id bigint)")
        yield connection


def feed(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    being_written = folder / "in" / f"{name}.part"
    being_written.write_text("".join(json.dumps(row) + "\n" for row in rows))
    being_written.rename(folder / "in" / name)


def flow_of(folder: Path, way: str) -> of.Flow:
    """Into `target`; together, into `other` as well, of the same transaction."""
    flow = of.Flow("flow", commit="together" if "together" in way else "separately")
    files = of.files(str(folder / "in" / "*.jsonl"), complete="rename")
    rows = flow.read(files, schema=SCHEMA, name="in")
    target = flows.database(folder).table("target", schema=flows.schema_of(folder))
    if "upsert" in way:
        rows.upsert(target, key="id", name="out")
    else:
        rows.append(target, name="out")
    if "together" in way:
        rows.select("id").append(flows.table(folder, "other"), name="other")
    return flow


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def altered_while_it_runs(folder: Path, sql: Any, change: str, way: str) -> SinkRefused:
    """What stops a flow whose table is changed between its two rows."""
    feed(folder, "a.jsonl", FIRST)
    with pytest.raises(SinkRefused) as stopped, flow_of(folder, way).start(state=folder / "state") as running:  # noqa: PT012
        until(lambda: sql.execute("SELECT count(*) FROM target").fetchone() == (1,))
        sql.execute(change)
        feed(folder, "b.jsonl", SECOND)
        running.wait(30)
    return stopped.value


@every_way
@pytest.mark.parametrize(
    ("change", "back", "said"),
    [
        ("ALTER amount TYPE numeric(18,1)", "ALTER amount TYPE numeric(18,2)", "amount"),
        ("ALTER at TYPE timestamp(0)", "ALTER at TYPE timestamp", "at"),
        ("ALTER share TYPE bigint", "ALTER share TYPE double precision", "share"),
        ("ALTER name TYPE char(3)", "ALTER name TYPE text", "name"),
        ("DROP COLUMN amount", "ADD COLUMN amount numeric(18,2)", "amount"),
        ("ALTER more TYPE int USING 1, ALTER more SET NOT NULL", "ALTER more DROP NOT NULL", "more"),
    ],
)
def test_a_table_that_is_altered_while_the_flow_runs_stops_it_with_nothing_lost(
    change: str, back: str, said: str, way: str, tmp_path: Path, sql: Any
) -> None:
    sql.execute(KEYED if "upsert" in way else "SELECT 1")
    stopped = altered_while_it_runs(tmp_path, sql, f"ALTER TABLE target {change}", way)
    assert "was changed meanwhile" in stopped.summary
    assert said in str(stopped.found)
    assert sql.execute("SELECT id FROM target").fetchall() == [(1,)]
    assert flows.left() == []
    sql.execute(f"ALTER TABLE target {back}")
    flow_of(tmp_path, way).run(state=tmp_path / "state")
    found = sql.execute("SELECT id, name, amount::text, share, extract(milliseconds FROM at)::int FROM target")
    assert found.fetchall()[-1] == (2, "b", "2.57", 2.5, 700)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (2,)


@pytest.mark.parametrize("way", ["upsert", "upsert together"])
def test_an_upsert_stops_when_its_index_is_gone(way: str, tmp_path: Path, sql: Any) -> None:
    sql.execute(KEYED)
    stopped = altered_while_it_runs(tmp_path, sql, "ALTER TABLE target DROP CONSTRAINT one", way)
    assert "no unique key" in str(stopped.found)
    sql.execute(KEYED)
    flow_of(tmp_path, way).run(state=tmp_path / "state")
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (2,)


@every_way
def test_a_change_that_still_keeps_what_is_written_is_lived_with(way: str, tmp_path: Path, sql: Any) -> None:
    """COPY's bytes are those of the declared type: a wider column needs another way into the table."""
    sql.execute(KEYED if "upsert" in way else "SELECT 1")
    feed(tmp_path, "a.jsonl", FIRST)
    changes = (
        "ALTER id TYPE numeric",
        "ALTER name TYPE varchar(9)",
        "ALTER more SET DEFAULT 7",
        "SET (fillfactor=50)",
    )
    with flow_of(tmp_path, way).start(state=tmp_path / "state") as running:
        for number, change in enumerate(changes, 2):
            until(lambda: sql.execute("SELECT count(*) FROM target").fetchone() == (number - 1,))
            sql.execute(f"ALTER TABLE target {change}")
            feed(tmp_path, f"b{number}.jsonl", {**SECOND, "id": number})
        until(lambda: sql.execute("SELECT count(*) FROM target").fetchone() == (len(changes) + 1,))
        assert running.is_running
    found = sql.execute("SELECT id::text, name, amount::text, more FROM target ORDER BY id").fetchall()
    assert found[0] == ("1", "a", "1.50", None)
    assert found[1:] == [(str(number), "b", "2.57", 7 if number > 3 else None) for number in range(2, 6)]


@every_way
def test_nobody_alters_the_table_between_the_look_at_it_and_the_commit(
    way: str, tmp_path: Path, sql: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is there when the first row is written, and held to the end of the transaction."""
    sql.execute(KEYED if "upsert" in way else "SELECT 1")
    found: list[str] = []

    def alter(name: str, moment: disk.Moment) -> None:
        if (name, moment) == ("postgres.prepare" if "together" in way else "postgres.commit", "before"):
            with psycopg.connect(database, autocommit=True, options="-c lock_timeout=100ms") as other:
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    other.execute(f"ALTER TABLE {flows.schema_of(tmp_path)}.target ALTER amount TYPE numeric(18,1)")
                found.append(name)

    feed(tmp_path, "a.jsonl", SECOND)
    monkeypatch.setattr(disk, "observer", alter)
    flow_of(tmp_path, way).run(state=tmp_path / "state")
    assert found
    assert sql.execute("SELECT amount::text FROM target").fetchall() == [("2.57",)]


def test_a_partition_that_a_crash_will_empty_stops_the_flow(tmp_path: Path, sql: Any) -> None:
    """It is altered by itself: its table stays as it was."""
    sql.execute("DROP TABLE target")
    sql.execute(f"CREATE TABLE target ({COLUMNS}) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE part PARTITION OF target FOR VALUES FROM (0) TO (9)")
    stopped = altered_while_it_runs(tmp_path, sql, "ALTER TABLE part SET UNLOGGED", "append")
    assert "part is unlogged" in str(stopped.found)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (1,)
