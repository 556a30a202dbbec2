"""What a table of PostgreSQL may be, what is said when it may not, and what others do to it meanwhile."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

import onefold as of
from onefold.errors import OnefoldError, RowsRefused, SchemaError, SinkRefused, TargetTaken
from onefold.testing.contract_case import SinkBench, SinkCase
from tests.services import postgres_flows as flows

SCHEMA = {"id": "BIGINT", "name": "VARCHAR", "amount": "DECIMAL(18,2)", "at": "TIMESTAMP"}
ROW = {"id": 1, "name": "a", "amount": "1.50", "at": "2026-01-01T00:00:00"}


@pytest.fixture
def sql(database: str, tmp_path: Path) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {flows.schema_of(tmp_path)}")
        connection.execute(f"SET search_path TO {flows.schema_of(tmp_path)}")
        yield connection


def feed(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def flow_of(
    folder: Path, *, key: Sequence[str] = (), is_made: bool = False, table: str = "target", name: str = "flow"
) -> of.Flow:
    flow = of.Flow(name)
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl")), schema=SCHEMA, name="in")
    target = flows.database(folder).table(table, schema=flows.schema_of(folder), create=is_made)
    if key:
        rows.upsert(target, key=list(key), name="out")
    else:
        rows.append(target, name="out")
    return flow


def run(folder: Path, **how: Any) -> Any:
    return flow_of(folder, **how).run(state=folder / "state")


ROWS_OF_ALL_KINDS = "id bigint, name text, amount numeric(18,2), at timestamp"


@pytest.mark.parametrize(
    ("columns", "key", "said"),
    [
        ("id bigint, name text, amount numeric(18,2)", (), "Column at of"),
        ("id integer, name text, amount numeric(18,2), at timestamp", (), "Column id of"),
        ("id bigint, name char(3), amount numeric(18,2), at timestamp", (), "Column name of"),
        ("id bigint, name text, amount numeric(18,1), at timestamp", (), "Column amount of"),
        ("id bigint, name text, amount numeric(18,2), at timestamp(3)", (), "Column at of"),
        ("id bigint, name text, amount numeric(18,2), at timestamptz", (), "Column at of"),
        (f"{ROWS_OF_ALL_KINDS}, more text NOT NULL", (), "Column more of"),
        (f"{ROWS_OF_ALL_KINDS}, PRIMARY KEY (id, name)", ("id",), "no unique key"),
        (ROWS_OF_ALL_KINDS, ("id",), "no unique key"),
        (f"{ROWS_OF_ALL_KINDS}, UNIQUE (id) DEFERRABLE", ("id",), "no unique key"),
    ],
)
def test_a_table_that_cannot_take_the_rows_is_refused_before_anything_is_sealed(
    columns: str, key: Sequence[str], said: str, tmp_path: Path, sql: Any
) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    sql.execute(f"CREATE TABLE target ({columns})")
    with pytest.raises(SchemaError, match=said) as refused:
        run(tmp_path, key=key)
    assert refused.value.next_step
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (0,)
    assert flow_of(tmp_path, key=key).status(state=tmp_path / "state").epoch == 0


def test_keys_under_a_collation_that_equates_different_texts_are_refused(tmp_path: Path, sql: Any) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    sql.execute("CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    sql.execute("CREATE TABLE target (id bigint, name text COLLATE ci UNIQUE, amount numeric(18,2), at timestamp)")
    with pytest.raises(SchemaError, match="Column name of") as refused:
        run(tmp_path, key=["name"])
    assert "collation" in str(refused.value.found)


@pytest.mark.parametrize(("kind", "other"), [("uuid", "bigint"), ("jsonb", "bigint"), ("citext", "bigint")])
def test_keys_of_a_type_under_which_different_texts_are_equal_are_refused(
    kind: str, other: str, tmp_path: Path, sql: Any
) -> None:
    """A0… and a0… would be one row over two epochs."""
    feed(tmp_path, "a.jsonl", ROW)
    if kind == "citext":
        sql.execute(f"CREATE EXTENSION citext SCHEMA {flows.schema_of(tmp_path)}")
        kind = f"{flows.schema_of(tmp_path)}.citext"
    sql.execute(f"CREATE TABLE target (id {other}, name {kind} UNIQUE, amount numeric(18,2), at timestamp)")
    with pytest.raises(SchemaError, match="Column name of") as refused:
        run(tmp_path, key=["name"])
    assert kind in str(refused.value.found)


@pytest.mark.parametrize("key", [["id"], ["id", "name"]])
def test_only_the_columns_that_an_index_is_over_are_its_key(key: list[str], tmp_path: Path, sql: Any) -> None:
    """Not those that it only holds besides."""
    feed(tmp_path, "a.jsonl", ROW, {**ROW, "name": "b"})
    sql.execute(f"CREATE TABLE target ({ROWS_OF_ALL_KINDS}, UNIQUE (id) INCLUDE (name))")
    if key == ["id"]:
        run(tmp_path, key=key)
        assert sql.execute("SELECT id, name FROM target").fetchall() == [(1, "b")]
        return
    with pytest.raises(SchemaError, match="no unique key") as refused:
        run(tmp_path, key=key)
    assert refused.value.found == "id"


PARTED = f"CREATE TABLE target ({ROWS_OF_ALL_KINDS}) PARTITION BY RANGE (id)"


@pytest.mark.parametrize(
    "tables",
    [
        [f"CREATE UNLOGGED TABLE target ({ROWS_OF_ALL_KINDS})"],
        [PARTED, "CREATE UNLOGGED TABLE part PARTITION OF target FOR VALUES FROM (0) TO (9)"],
        [
            PARTED,
            "CREATE TABLE middle PARTITION OF target FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id)",
            "CREATE UNLOGGED TABLE part PARTITION OF middle FOR VALUES FROM (0) TO (9)",
        ],
    ],
    ids=["table", "partition", "partition of a partition"],
)
def test_a_table_that_a_crash_empties_is_refused(tables: list[str], tmp_path: Path, sql: Any) -> None:
    """The token would say that its rows are there."""
    for each in tables:
        sql.execute(each)
    feed(tmp_path, "a.jsonl", ROW)
    with pytest.raises(SinkRefused, match="does not keep rows") as refused:
        run(tmp_path)
    assert "is unlogged" in str(refused.value.found)
    assert flow_of(tmp_path).status(state=tmp_path / "state").epoch == 0
    sql.execute(refused.value.next_step)
    run(tmp_path)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (1,)


def test_a_partition_on_another_server_is_refused(tmp_path: Path, sql: Any) -> None:
    """What goes there is committed by itself."""
    schema = flows.schema_of(tmp_path)
    sql.execute("CREATE EXTENSION IF NOT EXISTS file_fdw")
    sql.execute(f"CREATE SERVER {schema} FOREIGN DATA WRAPPER file_fdw")
    sql.execute(PARTED)
    sql.execute(
        f"CREATE FOREIGN TABLE part PARTITION OF target FOR VALUES FROM (0) TO (9) SERVER {schema} "
        "OPTIONS (filename '/dev/null')"
    )
    feed(tmp_path, "a.jsonl", ROW)
    with pytest.raises(SinkRefused, match="does not keep rows") as refused:
        run(tmp_path)
    assert "foreign table" in str(refused.value.found)


def test_a_table_of_tokens_that_a_crash_empties_is_refused(tmp_path: Path, sql: Any) -> None:
    """Rows would be there, and be written again."""
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path, is_made=True)
    sql.execute(f'ALTER TABLE "{flows.schema_of(tmp_path)} tokens"._onefold_tokens SET UNLOGGED')
    feed(tmp_path, "b.jsonl", {**ROW, "id": 2})
    with pytest.raises(SinkRefused, match="_onefold_tokens"):
        run(tmp_path)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (1,)


@pytest.fixture
def poor(tmp_path: Path, sql: Any, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user whom the flows come as, who may make tokens and nothing else."""
    name, parts = f"poor_{flows.schema_of(tmp_path)}", urlsplit(database)
    sql.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    sql.execute(f"GRANT USAGE ON SCHEMA {flows.schema_of(tmp_path)} TO {name}")
    sql.execute(f"GRANT CREATE ON DATABASE {parts.path[1:]} TO {name}")
    monkeypatch.setenv(flows.PROXIED, f"postgresql://{name}:secret@{parts.hostname}:{parts.port}{parts.path}")
    yield name
    sql.execute(f"DROP OWNED BY {name} CASCADE")
    sql.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("key", [(), ("id",)], ids=["append", "upsert"])
def test_row_security_that_holds_for_the_user_is_refused(
    key: Sequence[str], tmp_path: Path, sql: Any, poor: str
) -> None:
    """COPY does not go there, and an upsert does not see what is hidden."""
    sql.execute(f"CREATE TABLE target ({ROWS_OF_ALL_KINDS}, UNIQUE (id))")
    sql.execute("ALTER TABLE target ENABLE ROW LEVEL SECURITY")
    sql.execute("CREATE POLICY all_rows ON target USING (true) WITH CHECK (true)")
    sql.execute(f"GRANT ALL ON target TO {poor}")
    feed(tmp_path, "a.jsonl", ROW)
    with pytest.raises(SinkRefused, match="row security") as refused:
        run(tmp_path, key=key)
    assert poor in str(refused.value.next_step)
    assert flow_of(tmp_path, key=key).status(state=tmp_path / "state").epoch == 0
    sql.execute(f"ALTER ROLE {poor} BYPASSRLS")
    run(tmp_path, key=key)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (1,)


def test_who_may_only_insert_may_append(tmp_path: Path, sql: Any, poor: str) -> None:
    sql.execute(f"CREATE TABLE target ({ROWS_OF_ALL_KINDS})")
    sql.execute(f"GRANT INSERT ON target TO {poor}")
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (1,)


def test_who_may_make_no_temporary_table_is_told_so_before_anything_is_sealed(
    tmp_path: Path, sql: Any, poor: str, database: str
) -> None:
    """An upsert's rows wait in one."""
    name = urlsplit(database).path[1:]
    sql.execute(f"CREATE TABLE target ({ROWS_OF_ALL_KINDS}, UNIQUE (id))")
    sql.execute(f"GRANT ALL ON target TO {poor}")
    sql.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    feed(tmp_path, "a.jsonl", ROW)
    try:
        with pytest.raises(SinkRefused, match="lacks a permission"):
            run(tmp_path, key=["id"])
    finally:
        sql.execute(f"GRANT TEMPORARY ON DATABASE {name} TO PUBLIC")
    assert flow_of(tmp_path, key=["id"]).status(state=tmp_path / "state").epoch == 0


@pytest.mark.parametrize(
    "columns",
    [
        ROWS_OF_ALL_KINDS,
        f"{ROWS_OF_ALL_KINDS}, more text DEFAULT 'x', number bigint GENERATED BY DEFAULT AS IDENTITY",
        "at timestamp, amount numeric(20,4), name varchar(10), id numeric(30,0)",
        "id bigint, name jsonb, amount numeric, at timestamp",
    ],
)
@pytest.mark.parametrize("key", [(), ("id",)], ids=["append", "upsert"])
def test_a_table_may_be_wider_than_the_rows(columns: str, key: Sequence[str], tmp_path: Path, sql: Any) -> None:
    feed(tmp_path, "a.jsonl", {**ROW, "name": '{"a": 1}'}, {**ROW, "id": 2, "name": None, "amount": None})
    sql.execute(f"CREATE TABLE target ({columns}{', UNIQUE (id)' if key else ''})")
    run(tmp_path, key=key)
    feed(tmp_path, "b.jsonl", {**ROW, "id": 3 if not key else 1, "name": "[]"})
    run(tmp_path, key=key)
    found = sql.execute("SELECT id::bigint, name::text, amount::numeric(18,2)::text FROM target ORDER BY 1").fetchall()
    wanted = [(1, '{"a": 1}', "1.50"), (2, None, None), (3, "[]", "1.50")]
    assert found == (wanted if not key else [(1, "[]", "1.50"), wanted[1]])


def test_a_table_that_is_not_there_is_made_only_when_asked(tmp_path: Path, sql: Any) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    with pytest.raises(SinkRefused, match="does not exist") as refused:
        run(tmp_path)
    assert "create=True" in refused.value.next_step
    run(tmp_path, is_made=True)
    assert sql.execute("SELECT id, name FROM target").fetchall() == [(1, "a")]


def test_a_table_that_was_dropped_with_its_rows_is_missed(tmp_path: Path, sql: Any) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path, is_made=True)
    sql.execute("DROP TABLE target")
    feed(tmp_path, "b.jsonl", {**ROW, "id": 2})
    with pytest.raises(OnefoldError, match="is gone"):
        run(tmp_path, is_made=True)


def test_a_table_of_another_flow_is_taken(tmp_path: Path, sql: Any) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path, is_made=True)
    with pytest.raises(TargetTaken, match="Another flow"):
        run(tmp_path, name="other")
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (1,)


def test_a_row_that_violates_a_constraint_leaves_nothing_and_is_named(tmp_path: Path, sql: Any) -> None:
    feed(tmp_path, "a.jsonl", ROW, {**ROW, "id": -5}, {**ROW, "id": 2})
    sql.execute(f"CREATE TABLE target ({ROWS_OF_ALL_KINDS}, CONSTRAINT positive CHECK (id > 0))")
    refused = run(tmp_path).stopped_sinks["out"]
    assert isinstance(refused, RowsRefused)
    assert "positive" in str(refused.found)
    assert "-5" in str(refused.found)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (0,)
    sql.execute("ALTER TABLE target DROP CONSTRAINT positive")
    run(tmp_path)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (3,)


@pytest.mark.parametrize(
    ("columns", "bad", "said"),
    [
        ("id bigint, name text, amount numeric(5,2), at timestamp", {"amount": "123456.00"}, "numeric field overflow"),
        ("id bigint, name uuid, amount numeric(18,2), at timestamp", {"name": "nope"}, "type uuid"),
    ],
)
@pytest.mark.parametrize("key", [(), ("id",)], ids=["append", "upsert"])
def test_a_row_with_a_value_that_does_not_fit_is_named(
    columns: str, bad: dict[str, Any], said: str, key: Sequence[str], tmp_path: Path, sql: Any
) -> None:
    """The server says what is wrong with the value, and not which row has it."""
    fine = {**ROW, "name": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}
    sql.execute(f"CREATE TABLE target ({columns}, UNIQUE (id))")
    feed(tmp_path, "a.jsonl", *({**fine, "id": number, **(bad if number in (37, 71) else {})} for number in range(100)))
    refused = run(tmp_path, key=key).stopped_sinks["out"]
    assert isinstance(refused, RowsRefused)
    assert said in str(refused.found)
    assert "row: id = 37, " in str(refused.found)
    assert next(iter(bad.values())) in str(refused.found)
    assert refused.where["sink"] == "out"
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (0,)
    feed(tmp_path, "b.jsonl", {**fine, "id": 107})
    sql.execute("ALTER TABLE target ALTER amount TYPE numeric(18,2), ALTER name TYPE text")
    run(tmp_path, key=key)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (101,)


def test_an_instance_that_sleeps_on_its_locks_is_hung_up_on(tmp_path: Path, sql: Any) -> None:
    """Else its successor would wait for as long as it sleeps."""
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path, is_made=True)
    tokens = f'"{flows.schema_of(tmp_path)} tokens"._onefold_tokens'
    name = sql.execute("SELECT 1").fetchone() and _session_name(tmp_path)
    with psycopg.connect(os.environ[flows.VARIABLE], application_name=name) as sleeper:
        sleeper.execute(f"SELECT * FROM {tokens} FOR UPDATE")
        feed(tmp_path, "b.jsonl", {**ROW, "id": 2})
        run(tmp_path)
        with pytest.raises(psycopg.OperationalError):
            sleeper.execute("SELECT 1")
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (2,)


def _session_name(folder: Path) -> str:
    """As the sink names its sessions, seen while it is at work."""
    found: list[str] = []
    stopping = threading.Event()

    def look() -> None:
        with psycopg.connect(os.environ[flows.VARIABLE], autocommit=True) as connection:
            while not stopping.is_set() and not found:
                rows = connection.execute(
                    "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'onefold %'"
                ).fetchall()
                found.extend(row[0] for row in rows)

    looking = threading.Thread(target=look)
    looking.start()
    with flow_of(folder).start(state=folder / "state"):
        deadline = time.monotonic() + 20
        while not found and time.monotonic() < deadline:
            time.sleep(0.05)
    stopping.set()
    looking.join()
    return found[0]


def test_a_foreign_writer_of_the_same_keys_is_waited_for(tmp_path: Path, sql: Any) -> None:
    """It inserts a key of the upsert first, and commits while the upsert waits for it."""
    sql.execute(f"CREATE TABLE target ({ROWS_OF_ALL_KINDS}, UNIQUE (id))")
    feed(tmp_path, "a.jsonl", ROW, {**ROW, "id": 2})
    with psycopg.connect(os.environ[flows.VARIABLE]) as foreign:
        foreign.execute(f"SET search_path TO {flows.schema_of(tmp_path)}")
        foreign.execute("INSERT INTO target (id, name) VALUES (2, 'theirs')")
        committing = threading.Timer(2.0, foreign.commit)
        committing.start()
        run(tmp_path, key=["id"])
        committing.join()
    assert sql.execute("SELECT id, name FROM target ORDER BY id").fetchall() == [(1, "a"), (2, "a")]


@pytest.mark.parametrize("key", [(), ("id",)], ids=["append", "upsert"])
def test_a_foreign_writer_that_is_serializable_takes_no_row_away(
    key: Sequence[str], tmp_path: Path, sql: Any, database: str
) -> None:
    """Where everybody is serializable unless told otherwise: the sink is told, and waits for whom it meets."""
    sql.execute(f"CREATE TABLE target ({ROWS_OF_ALL_KINDS}, UNIQUE (id))")
    sql.execute("ALTER ROLE CURRENT_USER SET default_transaction_isolation = serializable")
    try:
        for number in range(3):
            feed(tmp_path, f"{number}.jsonl", {**ROW, "id": 1 if key else number}, {**ROW, "id": 100 + number})
            with psycopg.connect(database) as foreign:
                foreign.execute(f"SET search_path TO {flows.schema_of(tmp_path)}")
                assert foreign.execute("SHOW transaction_isolation").fetchone() == ("serializable",)
                foreign.execute("SELECT sum(id) FROM target")
                foreign.execute("UPDATE target SET name = 'theirs' WHERE id = 1")
                foreign.execute("INSERT INTO target (id, name) VALUES (%s, 'theirs')", [1000 + number])
                committing = threading.Timer(1.0, foreign.commit)
                committing.start()
                run(tmp_path, key=key)
                committing.join()
    finally:
        sql.execute("ALTER ROLE CURRENT_USER RESET default_transaction_isolation")
    found = sql.execute("SELECT id FROM target WHERE id < 1000 ORDER BY id").fetchall()
    assert found == [*((number,) for number in ((1,) if key else (0, 1, 2))), (100,), (101,), (102,)]
    assert sql.execute("SELECT count(*) FROM target WHERE id >= 1000").fetchone() == (3,)


def _commit_when_waited_for(foreign: Any, sql: Any) -> None:
    deadline = time.monotonic() + 20
    query = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    while sql.execute(query, [foreign.info.backend_pid]).fetchone() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    foreign.commit()


def test_a_row_that_a_foreign_writer_moves_to_another_partition_costs_another_try(
    tmp_path: Path, sql: Any, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An UPDATE that waited for it is answered 40001: the delivery is made again, and finds the key free."""
    sql.execute(
        "CREATE TABLE target (id bigint, name text, amount numeric(18,2), at timestamp, place int DEFAULT 0, "
        "UNIQUE NULLS NOT DISTINCT (id, place)) PARTITION BY LIST (place)"
    )
    for place in range(2):
        sql.execute(f"CREATE TABLE part{place} PARTITION OF target FOR VALUES IN ({place})")
    sql.execute("INSERT INTO target (id, name, place) VALUES (NULL, 'old', 0)")
    flow = of.Flow("flow")
    schema = {**SCHEMA, "place": "INTEGER"}
    rows = flow.read(of.files(str(tmp_path / "in" / "*.jsonl")), schema=schema, name="in")
    rows.upsert(
        flows.database(tmp_path).table("target", schema=flows.schema_of(tmp_path)), key=["id", "place"], name="out"
    )
    feed(tmp_path, "a.jsonl", {**ROW, "id": None, "place": 0})
    with psycopg.connect(database) as foreign:
        foreign.execute(f"SET search_path TO {flows.schema_of(tmp_path)}")
        foreign.execute("UPDATE target SET place = 1")
        committing = threading.Thread(target=_commit_when_waited_for, args=(foreign, sql))
        committing.start()
        flow.run(state=tmp_path / "state")
        committing.join()
    assert "moved to another partition" in caplog.text
    found = sql.execute("SELECT id, name, place FROM target ORDER BY place").fetchall()
    assert found == [(None, "a", 0), (None, "old", 1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"user": "nobody-here", "password": "secret-word"}, "the server does not let|password|role"),
        ({"database": "not-there"}, "there is no such database"),
    ],
)
def test_who_is_not_let_in_is_told_so_and_no_password_is_shown(
    change: dict[str, str], said: str, tmp_path: Path, sql: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    parts = urlsplit(database)
    user, password = change.get("user", parts.username), change.get("password", parts.password)
    place = f"//{user}:{password}@{parts.hostname}:{parts.port}/{change.get('database', parts.path[1:])}"
    monkeypatch.setenv(flows.VARIABLE, f"postgresql:{place}")
    with pytest.raises(SinkRefused, match=said) as refused:
        run(tmp_path)
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize(("usual", "ours"), [("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")])
def test_a_commit_is_answered_when_it_is_durable_whatever_the_server_is_set_to(
    usual: str, ours: str, tmp_path: Path, sql: Any
) -> None:
    sql.execute(f"ALTER ROLE CURRENT_USER SET synchronous_commit = {usual}")
    try:
        bench = SinkBench(
            SinkCase("postgres", lambda folder, *_: flows.table(folder, "t").as_sink("append", ())), tmp_path
        )
        sink, _ = bench.instance()
        assert sink._session.connection.execute("SHOW synchronous_commit").fetchone() == (ours,)  # type: ignore[attr-defined]
    finally:
        sql.execute("ALTER ROLE CURRENT_USER RESET synchronous_commit")


@pytest.mark.parametrize("name", ["longer", "abcd  "])
def test_a_text_that_would_be_cut_off_is_refused(name: str, tmp_path: Path, sql: Any) -> None:
    sql.execute("CREATE TABLE target (id bigint, name varchar(4), amount numeric(18,2), at timestamp)")
    feed(tmp_path, "a.jsonl", {**ROW, "name": name})
    refused = run(tmp_path).stopped_sinks["out"]
    assert isinstance(refused, RowsRefused)
    assert name in str(refused.found)
    assert sql.execute("SELECT count(*) FROM target").fetchone() == (0,)


@pytest.mark.parametrize(("key", "lacks"), [((), "INSERT"), (("id",), "INSERT"), (("id",), "UPDATE")])
def test_who_may_not_write_is_told_so_before_anything_is_sealed(
    key: Sequence[str], lacks: str, tmp_path: Path, sql: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(tmp_path, "a.jsonl", ROW)
    run(tmp_path, is_made=True, key=key)  # its tokens are there
    schema, parts = flows.schema_of(tmp_path), urlsplit(database)
    sql.execute("CREATE ROLE poor LOGIN PASSWORD 'secret'")
    try:
        for each in (schema, f'"{schema} tokens"'):
            sql.execute(f"GRANT USAGE ON SCHEMA {each} TO poor")
            sql.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {each} TO poor")
        sql.execute(f"REVOKE {lacks} ON target FROM poor")
        way = f"postgresql://poor:secret@{parts.hostname}:{parts.port}{parts.path}"
        monkeypatch.setenv(flows.PROXIED, way)
        feed(tmp_path, "b.jsonl", {**ROW, "id": 2})
        with pytest.raises(SinkRefused, match="lacks a permission"):
            run(tmp_path, key=key)
    finally:
        sql.execute("DROP OWNED BY poor")
        sql.execute("DROP ROLE poor")
    assert flow_of(tmp_path, key=key).status(state=tmp_path / "state").epoch == 1


def test_tokens_that_are_kept_elsewhere_from_now_on_double_nothing(tmp_path: Path, database: str) -> None:
    """What was delivered is still kept, and the new place has no token."""
    (tmp_path / "in").mkdir()

    def carry(tokens: str, name: str) -> None:
        (tmp_path / "in" / name).write_text('{"id": 1}\n')
        flow = of.Flow("moved")
        rows = flow.read(of.files(str(tmp_path / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
        target = of.postgres(database, tokens=f"{flows.schema_of(tmp_path)} {tokens}")
        rows.append(target.table("moved", schema=flows.schema_of(tmp_path), create=True))
        flow.run(state=tmp_path / "state")

    for number, tokens in enumerate(("here", "there", "there")):
        carry(tokens, f"{number}.jsonl")
    assert flows.rows(tmp_path, "SELECT id FROM moved") == [(1,)] * 3
