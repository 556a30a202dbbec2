"""DuckDB and SQLite: tables of the user, locks, what the source of a table notices."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from onefold.connectors.duckdb import DuckdbFile
from onefold.connectors.sqlite import SqliteFile
from onefold.connectors.sqlite import sink as sqlite_sink
from onefold.errors import (
    InputLost,
    NotSupported,
    RowsRefused,
    SchemaError,
    SinkRefused,
    SinkRestored,
    SinkUnavailable,
    SourceError,
    TargetTaken,
)
from onefold.protocols import Limit
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered, token
from onefold.types import PartitionId

DUCKDB = SinkCase(
    "duckdb", lambda root, table, mode, key: DuckdbFile(str(root / "x.db")).table(table).as_sink(mode, key)
)
SQLITE = SinkCase(
    "sqlite", lambda root, table, mode, key: SqliteFile(str(root / "x.db")).table(table).as_sink(mode, key)
)
TABLE = PartitionId("table")
AMPLE = Limit(1000, 1 << 20)


@pytest.fixture(params=[DUCKDB, SQLITE], ids=["duckdb", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> SinkBench:
    return SinkBench(request.param, tmp_path)


def run(bench: SinkBench, *statements: str) -> None:
    """As the owner of the database."""
    connection: Any = (duckdb if bench.case.name == "duckdb" else sqlite3).connect(str(bench.folder / "x.db"))
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def commit(bench: SinkBench, rows: list[dict[str, Any]]) -> None:
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, rows)], move(0, 1))


def test_a_table_of_the_user_is_used_when_it_fits(bench: SinkBench) -> None:
    run(bench, "CREATE TABLE target (name VARCHAR, id BIGINT)", "INSERT INTO target VALUES ('theirs', 0)")
    commit(bench, numbered(1))
    assert bench.ids() == [0, 1]


@pytest.mark.parametrize(
    ("ddl", "column"),
    [
        ("CREATE TABLE target (id BIGINT)", "name"),
        ("CREATE TABLE target (id BIGINT, name VARCHAR, more BIGINT)", "more"),
        ("CREATE TABLE target (id DOUBLE, name VARCHAR)", "id"),
        ("CREATE TABLE target (id BIGINT, name DECIMAL(10,2))", "name"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_column(bench: SinkBench, ddl: str, column: str) -> None:
    run(bench, ddl)
    with pytest.raises(SchemaError, match=f"Column {column} of") as caught:
        bench.instance()
    assert caught.value.found != caught.value.expected


PRICES = pa.schema([("id", pa.int64()), ("price", pa.decimal128(18, 2)), ("share", pa.float64())])


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("duckdb", ["ALTER TABLE target ALTER price TYPE DECIMAL(18,1)"]),
        ("duckdb", ["ALTER TABLE target ALTER share TYPE INTEGER"]),
        ("duckdb", ["ALTER TABLE target ADD COLUMN more INTEGER"]),
        ("duckdb", ["DROP TABLE target", "CREATE TABLE target (id INTEGER, price DECIMAL(18,2), share DOUBLE)"]),
        ("sqlite", ["DROP TABLE target", "CREATE TABLE target (id INTEGER, price NUMERIC, share REAL)"]),
        ("sqlite", ["DROP TABLE target", "CREATE TABLE target (id INTEGER, price TEXT, share INTEGER)"]),
        ("sqlite", ["ALTER TABLE target ADD COLUMN more INTEGER"]),
    ],
)
def test_a_table_that_is_altered_between_deliveries_is_refused_and_nothing_is_rounded(
    name: str, changes: list[str], mode: Any, tmp_path: Path
) -> None:
    bench = SinkBench(DUCKDB if name == "duckdb" else SQLITE, tmp_path, schema=PRICES)
    bench = bench.under(mode=mode, key=("id",)) if mode == "upsert" else bench
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, [{"id": 1, "price": Decimal("1.50"), "share": 0.5}])], move(0, 1))
    receipt = bench.prepare(sink, 2, [{"id": 2, "price": Decimal("2.57"), "share": 2.5}])
    run(bench, *changes)
    with pytest.raises(SinkRefused, match="was changed meanwhile") as refused:
        sink.commit([receipt], move(1, 2))
    assert "Column" in str(refused.value.found)
    run(bench, "DROP TABLE target", "CREATE TABLE target (id BIGINT, price DECIMAL(18,2), share DOUBLE)")
    if name == "sqlite":
        run(bench, "DROP TABLE target", "CREATE TABLE target (id INTEGER, price TEXT, share REAL)")
    sink.commit([receipt], move(1, 2))
    assert bench.look() == ([{"id": 2, "price": Decimal("2.57"), "share": 2.5}], token(2))


def test_a_view_is_refused_also_when_it_takes_the_place_of_the_table(bench: SinkBench) -> None:
    run(bench, "CREATE TABLE other (id BIGINT, name VARCHAR)", "CREATE VIEW target AS SELECT * FROM other")
    with pytest.raises(SchemaError, match="is a view"):
        bench.instance()
    run(bench, "DROP VIEW target")
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    run(bench, "DROP TABLE target", "CREATE VIEW target AS SELECT * FROM other")
    with pytest.raises(SinkRefused, match="was changed meanwhile"):
        sink.commit([bench.prepare(sink, 2, numbered(2))], move(1, 2))


def test_rows_that_a_constraint_refuses_leave_nothing(bench: SinkBench) -> None:
    run(bench, "CREATE TABLE target (id BIGINT CHECK (id < 5), name VARCHAR)")
    sink, _ = bench.instance()
    with pytest.raises(RowsRefused):
        sink.commit([bench.prepare(sink, 1, numbered(1, 9))], move(0, 1))
    assert bench.look() == ([], None)
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    assert bench.ids() == [1]


@pytest.mark.parametrize("name", ["_onefold_order", "ID", ""])
def test_column_names_that_would_collide_are_refused(bench: SinkBench, name: str) -> None:
    with pytest.raises(SchemaError):
        bench.under(schema=pa.schema([("id", pa.int64()), (name, pa.string())])).instance()


def test_an_upsert_into_a_table_with_a_primary_key(bench: SinkBench) -> None:
    run(bench, "CREATE TABLE target (id BIGINT PRIMARY KEY, name VARCHAR)", "INSERT INTO target VALUES (1, 'old')")
    keyed = bench.under(mode="upsert", key=("id",))
    commit(keyed, [{"id": 1, "name": "new"}, {"id": 2, "name": "x"}, {"id": 1, "name": "newer"}])
    assert sorted(row["name"] for row in keyed.look()[0]) == ["newer", "x"]


OLD_TOKENS = """
    CREATE TABLE "_onefold_tokens" (
        flow VARCHAR NOT NULL, lane VARCHAR NOT NULL, sink VARCHAR NOT NULL,
        epoch BIGINT NOT NULL, seal VARCHAR NOT NULL, ends VARCHAR NOT NULL, PRIMARY KEY (flow, lane, sink))
"""


def test_tokens_older_than_the_column_target_stay_and_get_theirs_with_the_next_move(bench: SinkBench) -> None:
    rows = [f"('{flow}', '0', 'sink', 1, '{token(1).seal}', '{{}}')" for flow in ("flow", "another")]
    ends = token(1).to_json().replace("'", "''")
    values = ", ".join(rows).replace("{}", ends)
    run(bench, OLD_TOKENS, f'INSERT INTO "_onefold_tokens" VALUES {values}')
    sink, found = bench.instance()
    assert found == token(1)
    other = bench.under(flow="another")
    assert other.instance()[1] == token(1)
    sink.commit([bench.prepare(sink, 2, numbered(2))], move(1, 2))
    assert bench.look() == (numbered(2), token(2))
    with pytest.raises(TargetTaken) as refused:
        other.instance()
    assert refused.value.found == "flow flow, sink sink"


def test_a_table_is_taken_however_its_name_is_written_and_no_other_is(bench: SinkBench) -> None:
    commit(bench, numbered(1))
    with pytest.raises(TargetTaken):
        bench.under(flow="another", table="TARGET").instance()
    for name in ("targets", "t%", "main.target"):
        bench.under(flow="another", table=name).instance()


def test_a_refused_target_is_left_as_it_was(bench: SinkBench) -> None:
    commit(bench, numbered(1))
    wider = bench.under(flow="another", mode="upsert", key=("id",), schema=pa.schema([("id", pa.int64())]))
    with pytest.raises(TargetTaken):
        wider.instance()
    run(bench, "ALTER TABLE target ADD COLUMN more VARCHAR", "ALTER TABLE target DROP COLUMN more")
    assert bench.look() == (numbered(1), token(1))


def test_many_sinks_of_one_process_share_a_file(bench: SinkBench) -> None:
    errors: list[Exception] = []

    def work(name: str) -> None:
        try:
            own = bench.under(sink=name, table=f"t_{name}")
            sink, _ = own.instance()
            for epoch in range(1, 6):
                sink.commit([own.prepare(sink, epoch, numbered(epoch))], move(epoch - 1, epoch))
        except Exception as error:  # noqa: BLE001  (told to the test below)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    for name in "abcd":
        assert bench.under(sink=name, table=f"t_{name}").ids() == [1, 2, 3, 4, 5]


HOLD = {
    "duckdb": "import duckdb; c = duckdb.connect({path!r})",
    "sqlite": "import sqlite3; c = sqlite3.connect({path!r}); c.execute('BEGIN EXCLUSIVE')",
}


def test_a_file_held_by_another_process_is_unavailable_until_it_is_let_go(
    bench: SinkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_sink, "BUSY_SECONDS", 0.05)
    sink, _ = bench.instance()
    receipt = bench.prepare(sink, 1, numbered(1))
    hold = HOLD[bench.case.name].format(path=str(bench.folder / "x.db"))
    other = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; print('held', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    try:
        with pytest.raises(SinkUnavailable) as caught:
            sink.commit([receipt], move(0, 1))
        assert "lock" in str(caught.value.found).lower()
    finally:
        other.communicate("\n", timeout=30)
    sink.commit([receipt], move(0, 1))
    assert (bench.ids(), bench.look()[1]) == ([1], token(1))


def test_others_may_read_between_deliveries(bench: SinkBench) -> None:
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    module = "duckdb" if bench.case.name == "duckdb" else "sqlite3"
    path = str(bench.folder / "x.db")
    script = f"import {module} as m; print(m.connect({path!r}).execute('SELECT id FROM target').fetchall())"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "[(1,)]\n"


class TestDuckdb:
    """Only there."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> SinkBench:
        return SinkBench(DUCKDB, tmp_path)

    def test_a_connection_of_the_same_process_with_other_settings_is_named(self, bench: SinkBench) -> None:
        sink, _ = bench.instance()
        with duckdb.connect(str(bench.folder / "x.db"), read_only=True), pytest.raises(SinkUnavailable) as caught:
            sink.commit([], move(0, 1))
        assert "different configuration" in str(caught.value.found)

    def test_upserts_into_a_collated_table_are_refused(self, bench: SinkBench) -> None:
        run(bench, "CREATE TABLE target (id BIGINT, name VARCHAR COLLATE nocase)")
        with pytest.raises(SchemaError, match="collation"):
            bench.under(mode="upsert", key=("name",)).instance()

    def test_nan_is_a_key_value_like_any_other(self, bench: SinkBench) -> None:
        keyed = bench.under(mode="upsert", key=("id",), schema=pa.schema([("id", pa.float64()), ("name", pa.string())]))
        sink, _ = keyed.instance()
        for epoch in (1, 2):
            rows = [{"id": math.nan, "name": "a"}, {"id": math.nan, "name": f"b{epoch}"}]
            sink.commit([keyed.prepare(sink, epoch, rows)], move(epoch - 1, epoch))
        assert [row["name"] for row in keyed.look()[0]] == ["b2"]

    @pytest.mark.parametrize("kind", [pa.duration("ns"), pa.float16(), pa.null(), pa.decimal256(50, 2), pa.date64()])
    def test_types_that_would_lose_are_refused(self, bench: SinkBench, kind: pa.DataType) -> None:
        for wrapped in (kind, pa.list_(kind), pa.struct([("x", kind)])):
            with pytest.raises(SchemaError, match="exactly"):
                bench.under(schema=pa.schema([("id", pa.int64()), ("value", wrapped)])).instance()

    def test_a_table_may_stand_in_a_schema_of_its_own(self, tmp_path: Path) -> None:
        case = SinkCase(
            "duckdb",
            lambda root, table, mode, key: DuckdbFile(str(root / "x.db")).table(table, schema="S 2").as_sink(mode, key),
        )
        commit(bench := SinkBench(case, tmp_path), numbered(1))
        assert bench.ids() == [1]

    def test_it_cannot_be_read_as_a_stream(self) -> None:
        with pytest.raises(NotSupported, match="cannot be read as a stream"):
            DuckdbFile("x.db").table("t").as_source(None)


class TestSqlite:
    """Only there."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> SinkBench:
        return SinkBench(SQLITE, tmp_path)

    @pytest.mark.parametrize("mode", ["WAL", "DELETE"])
    def test_the_journal_mode_stays_as_it_is(self, bench: SinkBench, mode: str) -> None:
        run(bench, f"PRAGMA journal_mode = {mode}")
        commit(bench, numbered(1))
        connection = sqlite3.connect(bench.folder / "x.db")
        assert connection.execute("PRAGMA journal_mode").fetchone()[0].upper() == mode
        connection.close()

    @pytest.mark.parametrize("act", ["IGNORE", "REPLACE"])
    def test_a_row_is_not_passed_over_because_the_table_says_so(self, bench: SinkBench, act: str) -> None:
        run(bench, f"CREATE TABLE target (id INTEGER UNIQUE ON CONFLICT {act}, name TEXT)")
        commit(bench, numbered(1))
        sink, _ = bench.instance()
        with pytest.raises(RowsRefused):
            sink.commit([bench.prepare(sink, 2, numbered(1))], move(1, 2))
        assert bench.look() == (numbered(1), token(1))

    def test_nan_is_refused_because_sqlite_would_make_it_null(self, bench: SinkBench) -> None:
        floats = bench.under(schema=pa.schema([("id", pa.int64()), ("value", pa.float64())]))
        sink, _ = floats.instance()
        with pytest.raises(RowsRefused, match="NaN"):
            sink.commit([floats.prepare(sink, 1, [{"id": 1, "value": math.nan}])], move(0, 1))
        assert floats.look() == ([], None)

    def test_decimals_and_times_are_readable_text(self, bench: SinkBench) -> None:
        schema = pa.schema(
            [("id", pa.int64()), ("d", pa.decimal128(38, 10)), ("t", pa.timestamp("us", "Europe/Berlin"))]
        )
        typed = bench.under(schema=schema)
        sink, _ = typed.instance()
        rows = [pa.scalar(-1, pa.timestamp("us", "Europe/Berlin"))]
        sink.commit([typed.prepare(sink, 1, [{"id": 1, "d": Decimal("1E-10"), "t": rows[0].as_py()}])], move(0, 1))
        connection = sqlite3.connect(bench.folder / "x.db")
        assert connection.execute("SELECT d, t FROM target").fetchall() == [
            ("0.0000000001", "1969-12-31 23:59:59.999999Z")
        ]
        connection.close()

    def test_an_upsert_finds_its_rows_by_index(self, bench: SinkBench) -> None:
        commit(bench.under(mode="upsert", key=("id", "name")), numbered(1))
        connection = sqlite3.connect(bench.folder / "x.db")
        plan = connection.execute(
            'EXPLAIN QUERY PLAN DELETE FROM target WHERE "id" COLLATE BINARY IS 1 AND "name" COLLATE BINARY IS NULL'
        ).fetchall()
        connection.close()
        assert "SEARCH" in plan[0][-1]
        assert "_onefold_key_target" in plan[0][-1]

    def test_keys_under_a_collation_still_differ(self, bench: SinkBench) -> None:
        run(bench, "CREATE TABLE target (id BIGINT, name TEXT COLLATE NOCASE)")
        keyed = bench.under(mode="upsert", key=("name",))
        commit(keyed, [{"id": 1, "name": "a"}, {"id": 2, "name": "A"}])
        assert keyed.ids() == [1, 2]


class TestSqliteSource:
    """An append-only table."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "in.db"

    def execute(self, path: Path, *statements: str) -> None:
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    def read(self, path: Path, after: int | None, key: str | None = None) -> list[dict[str, Any]]:
        source = SqliteFile(str(path)).table("t", key=key).as_source(None)
        source.open(None)
        try:
            read = source.read(TABLE, {} if after is None else {"after": after}, AMPLE, 0.0)
            return [row for batch in read.batches for row in batch.to_pylist()]
        finally:
            source.close()

    def test_columns_have_their_declared_types(self, path: Path) -> None:
        self.execute(
            path,
            "CREATE TABLE t (i INTEGER, r REAL, s TEXT, b BLOB, d DECIMAL(10,2), w TIMESTAMP)",
            "INSERT INTO t VALUES (1, 0.5, 'x', x'00ff', '12.30', '2024-01-01'), (NULL, NULL, NULL, NULL, 7, 8.5)",
        )
        assert self.read(path, None) == [
            {"i": 1, "r": 0.5, "s": "x", "b": b"\x00\xff", "d": "12.3", "w": "2024-01-01", "_offset": 1},
            {"i": None, "r": None, "s": None, "b": None, "d": "7", "w": "8.5", "_offset": 2},
        ]

    def test_a_declared_key_orders_the_rows(self, path: Path) -> None:
        self.execute(path, "CREATE TABLE t (k INTEGER, s TEXT)", "INSERT INTO t VALUES (30, 'c'), (10, 'a'), (20, 'b')")
        assert [row["_offset"] for row in self.read(path, 10, key="k")] == [20, 30]

    def test_rows_that_were_read_may_be_deleted_under_autoincrement(self, path: Path) -> None:
        self.execute(
            path, "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)", *["INSERT INTO t DEFAULT VALUES"] * 3
        )
        self.execute(path, "DELETE FROM t")
        assert self.read(path, 3) == []
        self.execute(path, "INSERT INTO t DEFAULT VALUES")
        assert [row["id"] for row in self.read(path, 3)] == [4]

    def test_without_autoincrement_a_key_behind_the_position_is_a_loss(self, path: Path) -> None:
        self.execute(path, "CREATE TABLE t (id INTEGER PRIMARY KEY)", *["INSERT INTO t DEFAULT VALUES"] * 3)
        self.execute(path, "DELETE FROM t", "INSERT INTO t DEFAULT VALUES")
        with pytest.raises(InputLost, match="lost rows"):
            self.read(path, 3)

    def test_a_table_made_anew_is_a_loss(self, path: Path) -> None:
        self.execute(path, "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO t DEFAULT VALUES")
        with pytest.raises(InputLost):
            self.read(path, 3)

    def test_a_value_of_another_type_is_named(self, path: Path) -> None:
        self.execute(path, "CREATE TABLE t (i INTEGER)", "INSERT INTO t VALUES ('not a number')")
        with pytest.raises(SourceError, match="column i"):
            self.read(path, None)


def test_a_transaction_that_was_acknowledged_survives_a_kill(bench: SinkBench) -> None:
    sink, _ = bench.instance()
    receipt = bench.prepare(sink, 1, numbered(1))
    child = os.fork()
    if child == 0:
        try:
            bench.instance(2)[0].commit([receipt], move(0, 1))
            os.kill(os.getpid(), 9)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 9
    assert (bench.ids(), bench.look()[1]) == ([1], token(1))


def test_a_database_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """Found by killing DuckDB while it made its file: what it left it refused for ever."""
    bench = SinkBench(DUCKDB, tmp_path)
    (tmp_path / "x.db").touch()
    _, held = bench.instance()
    assert held is None
    assert sorted(path.name for path in tmp_path.glob("*.db*")) == ["x.db", "x.db.wal"]
    assert not list(tmp_path.glob(".x.db*"))


def test_a_database_that_vanished_is_not_made_anew_by_a_commit(tmp_path: Path) -> None:
    bench = SinkBench(DUCKDB, tmp_path)
    sink, _ = bench.instance()
    receipt = bench.prepare(sink, 1, numbered(1))
    (tmp_path / "x.db").unlink()
    with pytest.raises(SinkUnavailable, match="does not exist any more"):
        sink.commit([receipt], move(0, 1))
    assert not (tmp_path / "x.db").exists()


def test_a_table_that_is_gone_while_its_token_stays_is_not_made_anew(bench: SinkBench) -> None:
    """Found by dropping one: the rows that it had held were missing, and nothing said so."""
    commit(bench, numbered(1))
    run(bench, "DROP TABLE target")
    with pytest.raises(SinkRestored, match="token of what was written"):
        bench.instance()
    fresh = bench.under(table="another")
    assert fresh.instance()[1] == token(1), "another target is made"


def test_a_log_that_outlived_its_database_is_told(tmp_path: Path) -> None:
    bench = SinkBench(DUCKDB, tmp_path)
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    (tmp_path / "x.db").unlink()
    with pytest.raises(SinkRefused, match="the log of another database") as caught:
        bench.instance(2)
    assert "Remove the log" in caught.value.next_step
