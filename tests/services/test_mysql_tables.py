"""What a table of MySQL or MariaDB may be, what is said when it may not, and what others do to it meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest

import onefold as of
from onefold.errors import OnefoldError, RowsRefused, SchemaError, SinkRefused, TargetTaken
from tests.services import mysql_flows as flows

SCHEMA = {"id": "BIGINT", "name": "VARCHAR", "amount": "DECIMAL(18,2)", "at": "TIMESTAMP"}
ROW = {"id": 1, "name": "a", "amount": "1.50", "at": "2026-01-01T00:00:00"}
KINDS = "id bigint, name varchar(20), amount decimal(18,2), at datetime(6)"


class Sql:
    """A connection in the folder's database."""

    def __init__(self, url: str, folder: Path) -> None:
        self.connection = flows.connect(url)
        name = flows.database_of(folder)
        self(f"CREATE DATABASE {name}")
        self(f"USE {name}")
        self.is_mariadb = "MariaDB" in self("SELECT version()")[0][0]
        self.exact = "utf8mb4_nopad_bin" if self.is_mariadb else "utf8mb4_0900_bin"

    def __call__(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        return flows.ask(self.connection, query, values)


@pytest.fixture
def sql(mysql_database: str, tmp_path: Path) -> Iterator[Sql]:
    made = Sql(mysql_database, tmp_path)
    yield made
    made.connection.close()


def feed(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def flow_of(
    folder: Path, *, key: Sequence[str] = (), is_made: bool = False, name: str = "flow", schema: Any = SCHEMA
) -> of.Flow:
    flow = of.Flow(name)
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl")), schema=schema, name="in")
    target = flows.database(folder).table("target", database=flows.database_of(folder), create=is_made)
    if key:
        rows.upsert(target, key=list(key), name="out")
    else:
        rows.append(target, name="out")
    return flow


def run(folder: Path, **how: Any) -> Any:
    return flow_of(folder, **how).run(state=folder / "state")


REFUSED = [
    ("id bigint, name text, amount decimal(18,2)", (), "Column at of"),
    (KINDS.replace("bigint", "int"), (), "Column id of"),
    (KINDS.replace("bigint", "bigint unsigned"), (), "Column id of"),
    (KINDS.replace("varchar(20)", "char(3)"), (), "Column name of"),
    (KINDS.replace("varchar(20)", "enum('a','b')"), (), "Column name of"),
    (KINDS.replace("18,2", "18,1"), (), "Column amount of"),
    (KINDS.replace("datetime(6)", "datetime(3)"), (), "Column at of"),
    (KINDS.replace("datetime(6)", "timestamp(6) NULL"), (), "Column at of"),
    (KINDS.replace("amount decimal(18,2)", "amount decimal(18,2) AS (id + 1)"), (), "Column amount of"),
    (f"{KINDS}, more varchar(5) NOT NULL", (), "Column more of"),
    (f"{KINDS}, PRIMARY KEY (id, name)", ("id",), "no unique key"),
    (KINDS, ("id",), "no unique key"),
    (f"{KINDS}, KEY (id)", ("id",), "no unique key"),
    (f"{KINDS} COLLATE 'EXACT', UNIQUE (name(5))".replace("varchar(20)", "varchar(20) COLLATE EXACT").replace(
        "datetime(6) COLLATE 'EXACT'", "datetime(6)"), ("name",), "no unique key"),
    (f"{KINDS}, UNIQUE (id), UNIQUE (at)", ("id",), "another unique index"),
    (f"{KINDS}, UNIQUE (id), UNIQUE (name(3))", ("id",), "another unique index"),
    (f"{KINDS}, more int DEFAULT 7, UNIQUE (id), UNIQUE (more)", ("id",), "another unique index"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "key", "said"), REFUSED)
def test_a_table_that_cannot_take_the_rows_is_refused_before_anything_is_sealed(
    columns: str, key: Sequence[str], said: str, tmp_path: Path, sql: Sql
) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    sql(f"CREATE TABLE target ({columns.replace('EXACT', sql.exact)})")
    with pytest.raises(SchemaError, match=said) as refused:
        run(tmp_path, key=key)
    assert refused.value.next_step
    assert sql("SELECT count(*) FROM target") == [(0,)]
    assert flow_of(tmp_path, key=key).status(state=tmp_path / "state").epoch == 0


@pytest.mark.parametrize("collation", ["utf8mb4_general_ci", "utf8mb4_bin", "latin1_bin"])
def test_keys_that_equate_different_texts_are_refused_with_what_mends_them(
    collation: str, tmp_path: Path, sql: Sql
) -> None:
    """utf8mb4_bin ignores spaces at the end."""
    feed(tmp_path, "a.jsonl", *({**ROW, "name": name} for name in ("a", "A", "a ", "á")))
    kind = f"varchar(20) CHARACTER SET {collation.split('_', maxsplit=1)[0]} COLLATE {collation} UNIQUE"
    sql(f"CREATE TABLE target ({KINDS.replace('varchar(20)', kind)})")
    with pytest.raises(SchemaError, match="Column name of") as refused:
        run(tmp_path, key=["name"])
    assert collation in str(refused.value.found)
    sql(str(refused.value.next_step))
    run(tmp_path, key=["name"])
    assert sorted(row[0] for row in sql("SELECT name FROM target")) == sorted(["a", "A", "a ", "á"])


def test_a_text_key_without_a_length_is_refused_with_what_mends_it(tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    kinds = KINDS.replace("varchar(20)", f"text COLLATE {sql.exact}")
    sql(f"CREATE TABLE target ({kinds}, UNIQUE (name(100)))")
    with pytest.raises(SchemaError, match="Column name of") as refused:
        run(tmp_path, key=["name"])
    sql("ALTER TABLE target DROP INDEX name")
    sql(str(refused.value.next_step))
    sql("ALTER TABLE target ADD UNIQUE (name)")
    run(tmp_path, key=["name"])
    assert sql("SELECT name FROM target") == [("a",)]


@pytest.mark.parametrize("engine", ["MyISAM", "Aria", "MEMORY"])
def test_a_table_without_transactions_is_refused(engine: str, tmp_path: Path, sql: Sql) -> None:
    if engine == "Aria" and not sql.is_mariadb:
        return
    feed(tmp_path, "a.jsonl", ROW)
    sql(f"CREATE TABLE target ({KINDS}) ENGINE={engine}")
    with pytest.raises(SinkRefused, match="no transactions") as refused:
        run(tmp_path)
    sql(str(refused.value.next_step))
    run(tmp_path)
    assert sql("SELECT id FROM target") == [(1,)]


WIDER = [
    KINDS,
    f"{KINDS}, more varchar(3) DEFAULT 'x', number bigint AUTO_INCREMENT, KEY (number)",
    "at datetime(6), amount decimal(20,4), name text CHARACTER SET latin1, id decimal(30,0)",
    "id bigint, name json, amount decimal(18,2), at datetime(6), twice bigint AS (id * 2)",
    f"{KINDS}, PRIMARY KEY (id)",
    f"{KINDS}, number bigint AUTO_INCREMENT PRIMARY KEY, UNIQUE (id, name)",
]


@pytest.mark.parametrize("columns", WIDER)
@pytest.mark.parametrize("key", [(), ("id",)], ids=["append", "upsert"])
def test_a_table_may_be_wider_than_the_rows(columns: str, key: Sequence[str], tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", {**ROW, "name": '{"a": 1}'}, {**ROW, "id": 2, "name": None, "amount": None})
    sql(f"CREATE TABLE target ({columns}{', UNIQUE (id)' if key and 'PRIMARY KEY (id)' not in columns else ''})")
    run(tmp_path, key=key)
    feed(tmp_path, "b.jsonl", {**ROW, "id": 3 if not key else 1, "name": "[]"})
    run(tmp_path, key=key)
    found = sql("SELECT cast(id AS signed), cast(name AS char), cast(amount AS decimal(18,2)) FROM target ORDER BY 1")
    seen = [(number, text, None if amount is None else str(amount)) for number, text, amount in found]
    wanted = [(1, '{"a": 1}', "1.50"), (2, None, None), (3, "[]", "1.50")]
    assert seen == (wanted if not key else [(1, "[]", "1.50"), wanted[1]])


def test_a_table_that_is_not_there_is_made_only_when_asked(tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    with pytest.raises(SinkRefused, match="does not exist") as refused:
        run(tmp_path)
    assert "create=True" in refused.value.next_step
    run(tmp_path, is_made=True)
    assert sql("SELECT id, name FROM target") == [(1, "a")]


def test_a_key_of_a_table_that_we_make_differs_by_every_byte(tmp_path: Path, sql: Sql) -> None:
    names = ["a", "A", "a ", "á", "a\u0301", "\U0001f600", "'", "\\", "\\'", "%s", "\u0000"]
    feed(tmp_path, "a.jsonl", *({**ROW, "id": at, "name": name} for at, name in enumerate(names)))
    run(tmp_path, key=["name"], is_made=True)
    feed(tmp_path, "b.jsonl", *({**ROW, "id": -at, "name": name} for at, name in enumerate(names)))
    run(tmp_path, key=["name"], is_made=True)
    assert sorted(sql("SELECT id, name FROM target")) == sorted((-at, name) for at, name in enumerate(names))


def test_a_view_is_no_table(tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    sql(f"CREATE TABLE hidden ({KINDS})")
    sql("CREATE VIEW target AS SELECT * FROM hidden")
    with pytest.raises(SinkRefused, match="does not exist"):
        run(tmp_path, is_made=True)


def test_a_table_that_was_dropped_with_its_rows_is_missed(tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path, is_made=True)
    sql("DROP TABLE target")
    feed(tmp_path, "b.jsonl", {**ROW, "id": 2})
    with pytest.raises(OnefoldError, match="is gone"):
        run(tmp_path, is_made=True)


def test_a_table_of_another_flow_is_taken(tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path, is_made=True)
    with pytest.raises(TargetTaken, match="Another flow"):
        run(tmp_path, name="other")
    assert sql("SELECT count(*) FROM target") == [(1,)]


def test_a_row_that_violates_a_constraint_leaves_nothing_and_is_told(tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", ROW, {**ROW, "id": -5}, {**ROW, "id": 2})
    sql(f"CREATE TABLE target ({KINDS}, CONSTRAINT positive CHECK (id > 0))")
    refused = run(tmp_path).stopped_sinks["out"]
    assert isinstance(refused, RowsRefused)
    assert "positive" in str(refused.found)
    assert sql("SELECT count(*) FROM target") == [(0,)]
    sql("ALTER TABLE target DROP CONSTRAINT positive")
    run(tmp_path)
    assert sql("SELECT count(*) FROM target") == [(3,)]


def test_what_a_trigger_refuses_leaves_nothing(tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", ROW, {**ROW, "id": 13})
    sql(f"CREATE TABLE target ({KINDS})")
    sql(
        "CREATE TRIGGER no BEFORE INSERT ON target FOR EACH ROW "
        "IF NEW.id = 13 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not that one'; END IF"
    )
    refused = run(tmp_path).stopped_sinks["out"]
    assert isinstance(refused, RowsRefused)
    assert "not that one" in str(refused.found)
    assert sql("SELECT count(*) FROM target") == [(0,)]


ODD = [
    ({"x": "DOUBLE"}, [{"x": "NaN"}], "x double", "neither NaN nor infinity"),
    ({"x": "DOUBLE"}, [{"x": "-Infinity"}], "x double", "neither NaN nor infinity"),
    ({"x": "VARCHAR"}, [{"x": "12345678901"}], "x varchar(10)", "at most 10"),
    ({"x": "VARCHAR"}, [{"x": "1234567890 "}], "x varchar(10)", "at most 10"),
    ({"x": "VARCHAR"}, [{"x": "é" * 128}], "x tinytext", "at most 255"),
    ({"x": "BIGINT"}, [{"x": None}], "x bigint NOT NULL DEFAULT 5", "NOT NULL"),
    ({"x": "BIGINT"}, [{"x": None}], "x bigint AUTO_INCREMENT PRIMARY KEY", "NOT NULL"),
]


@pytest.mark.parametrize(("schema", "rows", "column", "expected"), ODD)
def test_what_the_table_cannot_keep_is_refused_before_it_is_sealed(
    schema: Any, rows: Any, column: str, expected: str, tmp_path: Path, sql: Sql
) -> None:
    """Also what the server would cut off, or make up, without a word."""
    feed(tmp_path, "a.jsonl", *rows)
    sql(f"CREATE TABLE target ({column})")
    with pytest.raises(RowsRefused) as refused:
        run(tmp_path, schema=schema)
    assert expected in str(refused.value.expected)
    assert flow_of(tmp_path, schema=schema).status(state=tmp_path / "state").epoch == 0
    assert sql("SELECT count(*) FROM target") == [(0,)]


def test_a_time_at_the_end_of_its_day_is_refused_before_it_is_sealed(tmp_path: Path, sql: Sql) -> None:
    """DuckDB has 24:00, which Arrow does not write as a text."""
    feed(tmp_path, "a.jsonl", {"x": "24:00:00"})
    sql("CREATE TABLE target (x time(6))")
    flow = of.Flow("times")
    stream = flow.read(of.files(str(tmp_path / "in" / "*.jsonl")), schema={"x": "VARCHAR"}, name="in")
    stream.select(x="CAST(x AS TIME)").append(
        flows.database(tmp_path).table("target", database=flows.database_of(tmp_path))
    )
    with pytest.raises(RowsRefused, match="cannot keep a time"):
        flow.run(state=tmp_path / "state", until="drained")
    assert flow.status(state=tmp_path / "state").epoch == 0


@pytest.mark.parametrize(
    ("column", "value"), [("x text CHARACTER SET latin1", "日"), ("x text CHARACTER SET utf8mb3", "\U0001f600")]
)
def test_what_a_character_set_cannot_keep_is_refused(column: str, value: str, tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", {"x": "fine"}, {"x": value})
    sql(f"CREATE TABLE target ({column})")
    assert isinstance(run(tmp_path, schema={"x": "VARCHAR"}).stopped_sinks["out"], RowsRefused)
    assert sql("SELECT count(*) FROM target") == [(0,)]


def test_a_zero_stays_a_zero_in_a_numbered_column(tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", ROW, {**ROW, "id": 0})
    sql(f"CREATE TABLE target ({KINDS.replace('bigint', 'bigint AUTO_INCREMENT PRIMARY KEY')})")
    run(tmp_path)
    assert sql("SELECT id FROM target ORDER BY id") == [(0,), (1,)]


@pytest.fixture
def packet(sql: Sql) -> Iterator[int]:
    """max_allowed_packet, of sessions that begin now."""
    before = sql("SELECT @@global.max_allowed_packet")[0][0]
    sql("SET GLOBAL max_allowed_packet = 2097152")
    yield 2097152
    sql(f"SET GLOBAL max_allowed_packet = {before}")


def test_a_row_that_no_statement_can_hold_is_refused_before_it_is_sealed(tmp_path: Path, sql: Sql, packet: int) -> None:
    schema = {"id": "BIGINT", "x": "VARCHAR"}
    feed(tmp_path, "a.jsonl", {"id": 1, "x": "x"}, {"id": 2, "x": "'" * (packet // 2)})
    with pytest.raises(RowsRefused) as refused:
        run(tmp_path, schema=schema, is_made=True)
    assert "max_allowed_packet" in str(refused.value.expected)
    assert flow_of(tmp_path, schema=schema).status(state=tmp_path / "state").epoch == 0
    feed(tmp_path, "a.jsonl", {"id": 1, "x": "x"}, {"id": 2, "x": "x" * (packet - 2000)}, {"id": 3, "x": "'"})
    run(tmp_path, schema=schema, is_made=True)
    assert sql("SELECT id, length(x) FROM target ORDER BY id") == [(1, 1), (2, packet - 2000), (3, 1)]


def test_an_instance_that_sleeps_on_its_locks_is_hung_up_on(
    tmp_path: Path, sql: Sql, mysql_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its successor would wait for as long as it sleeps."""
    names: list[str] = []
    from onefold.connectors.mysql import sink as sinks

    whole = sinks.end_sessions_of
    monkeypatch.setattr(sinks, "end_sessions_of", lambda session, name: (names.append(name), whole(session, name))[1])
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path, is_made=True)
    sleeper = flows.connect(mysql_database)
    assert flows.ask(sleeper, "SELECT get_lock(%s, 5)", [names[0]]) == [(1,)]
    flows.ask(sleeper, "START TRANSACTION")
    flows.ask(sleeper, f"SELECT * FROM `{flows.database_of(tmp_path)} 100% tokens`._onefold_tokens FOR UPDATE")
    feed(tmp_path, "b.jsonl", {**ROW, "id": 2})
    began = time.monotonic()
    run(tmp_path)
    assert time.monotonic() - began < 20
    with pytest.raises(pymysql.OperationalError):
        flows.ask(sleeper, "SELECT 1")
    assert sql("SELECT count(*) FROM target") == [(2,)]


def test_a_foreign_writer_of_the_same_keys_is_waited_for(tmp_path: Path, sql: Sql, mysql_database: str) -> None:
    """It inserts a key of the upsert first, and commits while the upsert waits for it."""
    sql(f"CREATE TABLE target ({KINDS}, UNIQUE (id))")
    feed(tmp_path, "a.jsonl", ROW, {**ROW, "id": 2})
    foreign = flows.connect(mysql_database)
    flows.ask(foreign, f"USE {flows.database_of(tmp_path)}")
    flows.ask(foreign, "START TRANSACTION")
    flows.ask(foreign, "INSERT INTO target (id, name) VALUES (2, 'theirs')")
    committing = threading.Timer(2.0, foreign.commit)
    committing.start()
    run(tmp_path, key=["id"])
    committing.join()
    foreign.close()
    assert sql("SELECT id, name FROM target ORDER BY id") == [(1, "a"), (2, "a")]


def altered_while_it_runs(folder: Path, sql: Sql, change: str, **how: Any) -> OnefoldError:
    """What stops a flow whose table is changed between two deliveries, the second of id 2 and 3 with an odd name."""
    feed(folder, "a.jsonl", ROW)
    with pytest.raises(OnefoldError) as stopped, flow_of(folder, **how).start(state=folder / "state") as running:  # noqa: PT012
        deadline = time.monotonic() + 20
        while sql("SELECT count(*) FROM target") == [(0,)] and time.monotonic() < deadline:
            time.sleep(0.05)
        sql(change)
        feed(folder, "b.jsonl", {**ROW, "id": 2, "amount": "1.25", "name": "b"}, {**ROW, "id": 1, "name": "c"})
        running.wait(30)
    return stopped.value


@pytest.mark.parametrize(
    ("change", "back", "said"),
    [
        ("DROP COLUMN amount", "ADD COLUMN amount decimal(18,2)", "amount"),
        ("MODIFY amount decimal(18,1)", "MODIFY amount decimal(18,2)", "amount"),
        ("DROP INDEX id", "ADD UNIQUE KEY id (id)", "no unique key"),
        ("ENGINE=MyISAM", "ENGINE=InnoDB", "no transactions"),
    ],
)
def test_a_table_that_is_altered_while_the_flow_runs_stops_it_with_nothing_lost(
    change: str, back: str, said: str, tmp_path: Path, sql: Sql
) -> None:
    """Even where the server would go on: without its index an upsert would double a key."""
    sql(f"CREATE TABLE target ({KINDS}, UNIQUE KEY id (id))")
    stopped = altered_while_it_runs(tmp_path, sql, f"ALTER TABLE target {change}", key=["id"])
    assert said in str(stopped)
    assert sql("SELECT id FROM target") == [(1,)]
    sql(f"ALTER TABLE target {back}")
    run(tmp_path, key=["id"])
    assert sql("SELECT id, name FROM target ORDER BY id") == [(1, "c"), (2, "b")]


def test_a_harmless_change_of_the_table_is_lived_with(tmp_path: Path, sql: Sql) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    sql(f"CREATE TABLE target ({KINDS}, UNIQUE KEY id (id))")
    with flow_of(tmp_path, key=["id"]).start(state=tmp_path / "state") as running:
        for count, change in enumerate(("ADD COLUMN more int", "ADD KEY (name)", "COMMENT 'x'"), 1):
            deadline = time.monotonic() + 20
            while sql("SELECT count(*) FROM target") != [(count,)] and time.monotonic() < deadline:
                time.sleep(0.05)
            sql(f"ALTER TABLE target {change}")
            feed(tmp_path, f"b{count}.jsonl", {**ROW, "id": count + 1})
        while sql("SELECT count(*) FROM target") != [(4,)] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running.is_running
    assert sql("SELECT count(*) FROM target") == [(4,)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("onefold:", "nobody-here:", 1), "user name or password is wrong"),
        (lambda url: url.replace(urlsplit(url).password or "", "secret-word", 1), "user name or password is wrong"),
        (lambda url: url + "-not", "there is no such database"),
    ],
)
def test_who_is_not_let_in_is_told_so_and_no_password_is_shown(
    change: Any, said: str, tmp_path: Path, sql: Sql, mysql_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    monkeypatch.setenv(flows.VARIABLE, change(mysql_database))
    with pytest.raises(SinkRefused, match=said) as refused:
        run(tmp_path)
    assert "secret-word" not in str(refused.value)


def test_few_rights_are_enough(tmp_path: Path, sql: Sql, mysql_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one database: to read, insert, update and delete rows, where the tables have been made."""
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path, key=["id"], is_made=True)
    place, user = flows.database_of(tmp_path), flows.database_of(tmp_path)[:12]
    sql(f"CREATE USER {user} IDENTIFIED BY 'påss wörd'")
    for database in (place, f"{place} 100% tokens"):
        sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{database}`.* TO {user}")
    parts = urlsplit(mysql_database)
    monkeypatch.setenv(
        flows.VARIABLE, f"mysql://{user}:p%C3%A5ss%20w%C3%B6rd@{parts.hostname}:{parts.port}/{place}?ssl_mode=PREFERRED"
    )
    feed(tmp_path, "b.jsonl", {**ROW, "id": 2})
    run(tmp_path, key=["id"])
    assert sql("SELECT count(*) FROM target") == [(2,)]
    sql(f"REVOKE UPDATE ON `{place}`.* FROM {user}")
    feed(tmp_path, "c.jsonl", {**ROW, "id": 3})
    with pytest.raises(SinkRefused, match="lacks a permission"):
        run(tmp_path, key=["id"])
    assert flow_of(tmp_path, key=["id"]).status(state=tmp_path / "state").epoch == 2
    assert sql("SELECT count(*) FROM target") == [(2,)]
