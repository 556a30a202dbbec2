"""What cannot be read as an outbox is refused before anything is read, with the statements that mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest

import onefold as of
from onefold.connectors.postgres import OutboxSource, outbox
from onefold.errors import InputLost, SchemaError, SourceRefused, SourceUnavailable
from tests.services import outbox_tables as tables
from tests.services import postgres_flows as flows

WHOLE = "id bigint PRIMARY KEY, n bigint"
FILLED = tables.COLUMN
INDEX = "CREATE INDEX ON outbox (transaction_id, id)"


@pytest.fixture
def sql(database: str, tmp_path: Path) -> Iterator[Any]:
    with tables.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {flows.schema_of(tmp_path)}")
        connection.execute(f"SET search_path TO {flows.schema_of(tmp_path)}")
        yield connection


def refused(folder: Path, **how: Any) -> SourceRefused:
    source = tables.source(folder, **how)
    with pytest.raises(SourceRefused) as caught:
        source.open(None)
    [finding] = source.check(None)
    assert (finding.status, finding.found) == ("failed", caught.value.summary)
    source.close()
    return caught.value


def run_mended(sql: Any, folder: Path, error: SourceRefused) -> list[int]:
    """What the source gives when the statements of the error were run as they stand."""
    statements = re.match(r"((?:[^;']|'[^']*')+;\s*)+", error.next_step)
    assert statements, error.next_step
    for statement in statements.group().split(";"):
        if statement.strip():
            sql.execute(statement)
    source = tables.source(folder)
    source.open(None)
    found, _ = tables.drained(source, {})
    source.close()
    return found


@pytest.mark.parametrize(
    ("columns", "index", "said"),
    [
        (WHOLE, "", "it has no column transaction_id"),
        (f"{WHOLE}, transaction_id bigint", "", "has the type bigint, not xid8"),
        (f"{WHOLE}, transaction_id xid8", INDEX, "is filled by nothing"),
        (f"{WHOLE}, transaction_id xid8 NOT NULL DEFAULT '7'", INDEX, "is filled by '7'::xid8"),
        (f"{WHOLE}, transaction_id xid8 DEFAULT pg_current_xact_id()", INDEX, "may be NULL"),
        (f"{WHOLE}, {FILLED}", "", "it has no index over"),
        (f"{WHOLE}, {FILLED}", "CREATE INDEX ON outbox (id, transaction_id)", "it has no index over"),
        (f"{WHOLE}, {FILLED}", f"{INDEX} WHERE n > 0", "it has no index over"),
        (f"{WHOLE}, {FILLED}", "CREATE INDEX ON outbox (transaction_id, id DESC)", "it has no index over"),
        (f"id bigint NOT NULL, n bigint, {FILLED}", INDEX, "nothing keeps two rows"),
        (f"id bigint NOT NULL, n bigint, {FILLED}, UNIQUE (id, n)", INDEX, "nothing keeps two rows"),
        (f"id bigint UNIQUE, n bigint, {FILLED}", INDEX, "the column id may be NULL"),
    ],
)
def test_a_table_that_is_no_outbox_is_mended_by_what_the_error_says(
    columns: str, index: str, said: str, tmp_path: Path, sql: Any
) -> None:
    """And rows that are there already are read, once."""
    sql.execute(f"CREATE TABLE outbox ({columns})")
    if index:
        sql.execute(index)
    sql.execute("INSERT INTO outbox (id, n) SELECT g, g FROM generate_series(1, 5) g")
    error = refused(tmp_path)
    assert said in error.summary
    found: list[int] = []
    for _ in range(3):  # one thing is named at a time
        try:
            found = run_mended(sql, tmp_path, error)
            break
        except SourceRefused as next_error:
            error = next_error
    assert sorted(found) == [1, 2, 3, 4, 5]


def test_who_may_not_add_a_column_is_told_of_the_changes(tmp_path: Path, sql: Any) -> None:
    sql.execute(f"CREATE TABLE outbox ({WHOLE})")
    error = refused(tmp_path)
    assert "pg.changes('outbox')" in error.next_step
    assert "rows that commit late are lost" in error.summary


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ("CREATE VIEW outbox AS SELECT 1 AS id", "it is no table"),
        (f"CREATE UNLOGGED TABLE outbox ({WHOLE}, {FILLED}); {INDEX}", "a crash of the server empties it"),
        (
            f"CREATE TABLE outbox ({WHOLE}, {FILLED}); {INDEX}; CREATE TABLE heir () INHERITS (outbox)",
            "inherit from it",
        ),
        ("CREATE TABLE outbox (key bigint PRIMARY KEY)", "has no column id"),
        ("CREATE TABLE outbox (id text PRIMARY KEY)", "the column id cannot be the id"),
        ("SELECT 1", "does not exist"),
    ],
)
def test_what_cannot_be_mended_is_refused(statements: str, said: str, tmp_path: Path, sql: Any) -> None:
    sql.execute(statements)
    assert said in refused(tmp_path).summary


def test_a_partitioned_table_is_read_across_its_partitions(tmp_path: Path, sql: Any) -> None:
    sql.execute(f"CREATE TABLE outbox (id bigint PRIMARY KEY, n bigint, {FILLED}) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE low PARTITION OF outbox FOR VALUES FROM (0) TO (10)")
    sql.execute("CREATE TABLE high PARTITION OF outbox FOR VALUES FROM (10) TO (100)")
    error = refused(tmp_path)
    assert "CONCURRENTLY" not in error.next_step
    for number in (11, 2, 12, 3):
        tables.insert(sql, "outbox", number)
    assert run_mended(sql, tmp_path, error) == [11, 2, 12, 3]


def test_a_declared_column_that_is_not_there_is_named(tmp_path: Path, sql: Any) -> None:
    sql.execute(f"CREATE TABLE outbox ({WHOLE}, {FILLED})")
    sql.execute(INDEX)
    flow = of.Flow("flow")
    endpoint = flows.database(tmp_path).outbox("outbox", schema=flows.schema_of(tmp_path))
    flow.read(endpoint, schema={"n": "BIGINT", "amount": "DECIMAL(18,2)"}).append(of.memory("none"))
    with pytest.raises(SchemaError, match="has no column amount") as error:
        flow.run(state=tmp_path / "state")
    assert error.value.found == "id, n, transaction_id"


# ------------------------------------------------------------------------------------------------------------- rights


@pytest.fixture
def plain(sql: Any, database: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a user who may read the outbox and nothing else."""
    user = f"u{flows.schema_of(tmp_path)}"
    sql.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'se/cret'")
    sql.execute(f"CREATE TABLE outbox ({WHOLE}, {FILLED})")
    sql.execute(INDEX)
    sql.execute(f"GRANT USAGE ON SCHEMA {flows.schema_of(tmp_path)} TO {user}; GRANT SELECT ON outbox TO {user}")
    parts = urlsplit(database)
    place = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"{user}:{quote('se/cret', safe='')}@{place}"))
    sql.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")


def as_user(url: str, folder: Path, **how: Any) -> OutboxSource:
    made: OutboxSource = of.postgres(url).outbox("outbox", schema=flows.schema_of(folder), **how).as_source(None)
    return made


def test_reading_needs_no_right_but_select(tmp_path: Path, sql: Any, plain: str) -> None:
    tables.insert(sql, "outbox", 1, 2)
    source = as_user(plain, tmp_path)
    source.open(None)
    found, start = tables.drained(source, {})
    assert found == [1, 2]
    assert isinstance(start, dict)
    assert start["server"], "which server it is, anyone may ask"
    assert source.check(None)[0].status == "ok"
    source.close()


def test_who_may_not_delete_cannot_have_settled_rows_deleted(tmp_path: Path, sql: Any, plain: str) -> None:
    source = as_user(plain, tmp_path, delete_settled=True)
    with pytest.raises(SourceRefused, match="may not DELETE") as error:
        source.open(None)
    sql.execute(error.value.next_step)
    tables.insert(sql, "outbox", 1)
    source.open(None)
    _, start = tables.drained(source, {})
    source.settle({tables.PARTITION: start})
    source.close()
    assert sql.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def test_rows_that_row_security_hides_would_be_lost(tmp_path: Path, sql: Any, plain: str) -> None:
    sql.execute("ALTER TABLE outbox ENABLE ROW LEVEL SECURITY")
    with pytest.raises(SourceRefused, match="row security hides rows"):
        as_user(plain, tmp_path).open(None)


def test_passwords_are_in_no_error(tmp_path: Path, sql: Any, plain: str) -> None:
    source = as_user(plain.replace("se%2Fcret", "wr%2Fong"), tmp_path)
    with pytest.raises(SourceRefused) as error:
        source.open(None)
    texts = [str(error.value), repr(source), str(source.check(None)), source.promise.gap]
    assert not any(word in text for text in texts for word in ("wr%2Fong", "wr/ong"))
    source = as_user(re.sub(r":\d+/", ":1/", plain), tmp_path)
    with pytest.raises(SourceUnavailable) as away:
        source.open(None)
    assert "se/cret" not in str(away.value)
    assert "se%2Fcret" not in str(away.value)


# ------------------------------------------------------------------------------------------------- other transactions


def test_rows_with_transactions_of_another_server_are_refused_and_not_waited_for(tmp_path: Path, sql: Any) -> None:
    """As a restored dump brings them."""
    sql.execute(f"CREATE TABLE outbox ({WHOLE}, {FILLED})")
    sql.execute(INDEX)
    tables.insert(sql, "outbox", 1)
    source = tables.source(tmp_path)
    source.open(None)
    found, start = tables.drained(source, {})
    with sql.cursor().copy("COPY outbox (id, n, transaction_id) FROM STDIN") as copy:
        copy.write("7\t70\t999999999\n8\t80\t999999999\n")
    with pytest.raises(SourceRefused, match="transactions that this server has not had") as error:
        tables.take(source, start)
    assert "transaction 999999999, id 8" in str(error.value.found)
    sql.execute(error.value.next_step.partition(";")[0])
    assert found + tables.drained(source, start)[0] == [1, 7, 8]
    source.close()


def test_a_table_that_a_subscription_fills_is_refused(tmp_path: Path, sql: Any) -> None:
    sql.execute(f"CREATE TABLE outbox ({WHOLE}, {FILLED})")
    sql.execute(INDEX)
    schema = flows.schema_of(tmp_path)
    try:
        sql.execute(f"CREATE SUBSCRIPTION {schema} CONNECTION 'dbname=none' PUBLICATION none WITH (connect = false)")
        sql.execute("SET allow_system_table_mods TO on")
        sql.execute(
            "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) "
            "SELECT oid, %s::regclass, 'i' FROM pg_subscription WHERE subname = %s",
            [f"{schema}.outbox", schema],
        )
        assert "a subscription fills it" in refused(tmp_path).summary
    finally:
        sql.execute(f"ALTER SUBSCRIPTION {schema} SET (slot_name = NONE)")
        sql.execute(f"DROP SUBSCRIPTION {schema}")


def test_a_position_of_another_server_or_database_is_refused(tmp_path: Path, sql: Any) -> None:
    sql.execute(f"CREATE TABLE outbox ({WHOLE}, {FILLED})")
    sql.execute(INDEX)
    tables.insert(sql, "outbox", 1, 2)
    source = tables.source(tmp_path)
    source.open(None)
    _, start = tables.drained(source, {})
    assert isinstance(start, dict)
    for changed in ({"server": "1"}, {"database": 1}):
        with pytest.raises(InputLost, match="the position is of another database") as error:
            tables.take(source, {**start, **changed})
        assert error.value.skip.to == start, "after pg_upgrade it is the same place"
    tables.insert(sql, "outbox", 3)
    assert tables.take(source, error.value.skip.to)[0] == [3]
    source.close()


def test_a_position_ahead_of_the_server_is_input_that_is_lost(tmp_path: Path, sql: Any) -> None:
    sql.execute(f"CREATE TABLE outbox ({WHOLE}, {FILLED})")
    sql.execute(INDEX)
    tables.insert(sql, "outbox", 1, 2)
    source = tables.source(tmp_path)
    source.open(None)
    _, start = tables.drained(source, {})
    assert isinstance(start, dict)
    with pytest.raises(InputLost, match="it was restored from a backup") as error:
        tables.take(source, {**start, "transaction": 10**12})
    assert "1000000000000" in str(error.value.expected)
    assert error.value.skip.to == start
    with pytest.raises(InputLost, match="the position is of another database") as error:
        tables.take(source, {**start, "server": "1", "transaction": 10**12})
    assert error.value.skip.to == start, "the end: what its position says means nothing here"
    source.close()


def test_a_server_that_lets_us_in_and_never_answers_ends_the_flow(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a connection was made does not count as its return."""

    def refuse(*_: Any) -> Any:
        raise psycopg.errors.LockNotAvailable("held")

    tables.make(tmp_path)
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(outbox, "OUTAGE_SECONDS", 0.1)
    source = tables.source(tmp_path)
    source.open(None)
    monkeypatch.setattr(outbox, "look", refuse)
    with pytest.raises(SourceUnavailable, match="does not answer"):  # noqa: PT012
        for _ in range(200):
            source.read(tables.PARTITION, {}, tables.AMPLE, 0.05)
    source.close()
