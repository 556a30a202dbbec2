"""What the change stream gives, and what it refuses, on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.postgres.changes import cursor as cursors
from onefold.connectors.postgres.changes import slot as slots
from onefold.connectors.postgres.changes import watch
from onefold.connectors.postgres.changes.snapshot import Piece
from onefold.errors import (
    InputLost,
    NotSupported,
    SchemaError,
    SourceError,
    SourceRefused,
    SourceUnavailable,
)
from onefold.protocols import Limit
from tests.services.postgres_changes_flows import drop_slot
from tests.services.postgres_changes_tables import AMPLE, PARTITION, World, brief
from tests.services.postgres_flows import schema_of

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    made = World(database, schema_of(tmp_path))
    yield made
    made.close()
    drop_slot(made.slot)


def test_inserts_updates_and_deletes_come_in_order_with_their_keys(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY, v varchar(20))", "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    source = world.open()
    rows, place = world.drain(source)
    assert brief(rows, "id", "v", "_xid") == [("upsert", 1, "a", None), ("upsert", 2, "b", None)]
    with world.admin.transaction():
        world.do("UPDATE t SET v = 'c' WHERE id = 1", "DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (3, NULL)")
    rows, place = world.drain(source, place)
    assert brief(rows, "id", "v") == [("upsert", 1, "c"), ("delete", 2, None), ("upsert", 3, None)]
    assert {(row["_table"], row["_xid"] is None, row["_committed_at"] is None) for row in rows} == {("t", False, False)}
    assert [row["_offset"] for row in rows] == [0, 1, 2]
    world.do("INSERT INTO t VALUES (4, 'never')", "DELETE FROM t WHERE id = 4")
    rows, _ = world.drain(source, place)
    assert brief(rows, "id", "v") == [("upsert", 4, "never"), ("delete", 4, None)]


def test_an_update_that_changes_the_key_is_a_delete_and_an_upsert(world: World) -> None:
    world.do("CREATE TABLE t (a int, b int, v int, PRIMARY KEY (a, b))", "INSERT INTO t VALUES (1, 1, 5), (2, 2, 6)")
    source = world.open()
    _, place = world.drain(source)
    world.do("UPDATE t SET a = a + 1")
    rows, _ = world.drain(source, place, Limit(1, 1 << 20))
    assert brief(rows, "a", "b", "v") == [
        ("delete", 1, 1, None), ("upsert", 2, 1, 5), ("delete", 2, 2, None), ("upsert", 3, 2, 6)
    ]  # fmt: skip


def test_under_replica_identity_full_old_rows_are_whole(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY, v text)", "ALTER TABLE t REPLICA IDENTITY FULL")
    world.do("INSERT INTO t VALUES (1, 'ü \"x\"')")
    source = world.open()
    _, place = world.drain(source)
    world.do("UPDATE t SET v = NULL", "DELETE FROM t")
    rows, _ = world.drain(source, place)
    assert brief(rows, "id", "v") == [("upsert", 1, None), ("delete", 1, None)]
    assert [json.loads(row["_before"]) for row in rows] == [{"id": "1", "v": 'ü "x"'}, {"id": "1", "v": None}]


TYPES = """
CREATE TABLE t (
    id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, f4 real, f8 double precision, n numeric(20,4),
    free numeric, s text, vc varchar(30), c char(4), raw bytea, d date, ts timestamp, tz timestamptz, tm time,
    u uuid, j jsonb, li int[], lt text[], lb boolean[], ip inet, span interval,
    made int GENERATED ALWAYS AS (i4 / 2) STORED
);
ALTER TABLE t REPLICA IDENTITY FULL;
"""
VALUES = (
    """(1, true, -32768, 2147483647, 1.1, 'NaN', -1234567890123456.7891, 1e30, E'tab\\t\\'q\\' ü', 'v', 'ab',
    '\\x00ff'::bytea, '2024-02-29', '2024-02-29 12:00:00.000001', '1999-12-31 23:59:59.5+05:30', '23:59:59.999999',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"k": [1, null]}', '{1,NULL,-3}',
    ARRAY['a,b', 'q"\\', NULL, 'NULL', ''], '{t,f,NULL}', '10.0.0.0/8', '1 day 2 hours')""",
    """(2, false, 0, 0, 'Infinity', -0.0, 0, 'NaN', '', '', '', ''::bytea, '0001-01-01', '9999-12-31 23:59:59',
    '0001-01-01 00:00:00+00', '00:00:00', '00000000-0000-0000-0000-000000000000', 'null', '{}', '{}', '{}', '::1',
    '0')""",
    "(3" + ", NULL" * 22 + ")",
)
NAMES = "id, b, i2, i4, f4, f8, n, free, s, vc, c, raw, d, ts, tz, tm, u, j, li, lt, lb, ip, span"


def test_every_type_arrives_as_it_was(world: World, tmp_path: Path) -> None:
    """Half of the rows by the first reading, half by the log; the copy is compared by the server."""
    world.do(TYPES)
    flow = of.Flow("types")
    rows = flow.read(world.endpoint())
    assert rows.schema["n"] == "DECIMAL(20,4)"
    assert (rows.schema["free"], rows.schema["li"], rows.schema["tz"]) == ("VARCHAR", "INTEGER[]", "TIMESTAMPTZ")
    assert "made" not in rows.schema
    database = of.postgres(world.url, tokens=f"{world.schema} tokens")
    rows.upsert(database.table("copy", schema=world.schema, create=True), key="id")
    for value in VALUES:
        world.do(f"INSERT INTO t ({NAMES}) VALUES {value}")
    flow.run(until="drained", state=tmp_path / "state")
    world.do("UPDATE t SET id = id + 10 WHERE id < 3", f"INSERT INTO t ({NAMES}) VALUES {VALUES[0]}")
    summary = flow.run(until="drained", state=tmp_path / "state")
    assert summary.dead == 0
    for name in NAMES.split(", "):
        true, found = (
            world.admin.execute(f"SELECT {table}.id, {how} FROM {table} ORDER BY {table}.id").fetchall()
            for table, how in (("t", f"{name}::text"), ("copy", _copied(name)))
        )
        assert found == true, name


def _copied(name: str) -> str:
    """As the server shows the true value, whose copy is text."""
    return {"c": "rtrim(c)", "ip": "ip::inet::text", "span": "span::interval::text"}.get(name, f"{name}::text")


def test_a_value_that_its_type_cannot_hold_is_a_dead_letter_or_text(world: World, tmp_path: Path) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY, d date)", "INSERT INTO t VALUES (1, 'infinity'), (2, '2024-01-01')")
    for schema, dead in ((None, 1), ({"id": "INTEGER", "d": "VARCHAR", "_op": "VARCHAR"}, 0)):
        flow = of.Flow(f"dates-{dead}", max_dead=1.0)
        rows = flow.read(world.endpoint(slot=f"{world.slot}_{dead}"), schema=schema)
        rows.upsert(of.sqlite(str(tmp_path / f"{dead}.sqlite")).table("copy"), key="id")
        assert flow.run(until="drained", state=tmp_path / f"state{dead}").dead == dead
        drop_slot(f"{world.slot}_{dead}")


# --------------------------------------------------------------------------------------------------------------- tables


def test_several_tables_come_through_one_slot_in_the_order_of_commits(world: World) -> None:
    world.do("CREATE TABLE a (id int PRIMARY KEY, x int)", "CREATE TABLE b (id int PRIMARY KEY, y varchar(9))")
    world.do("INSERT INTO b VALUES (1, 'old')", "INSERT INTO a VALUES (1, 0)")
    source = world.open(["a", "b"])
    rows, place = world.drain(source)
    assert brief(rows, "_table", "id", "x", "y") == [("upsert", "a", 1, 0, None), ("upsert", "b", 1, None, "old")]
    with world.admin.transaction():
        world.do("INSERT INTO a VALUES (2, 5)", "INSERT INTO b VALUES (2, 'n')", "UPDATE a SET x = 6 WHERE id = 2")
    rows, place = world.drain(source, place)
    assert brief(rows, "_table", "id", "x", "y") == [
        ("upsert", "a", 2, 5, None), ("upsert", "b", 2, None, "n"), ("upsert", "a", 2, 6, None)
    ]  # fmt: skip
    with pytest.raises(SourceRefused, match="began with other tables"):
        world.drain(world.open(["a"]), place)


def test_several_tables_need_names_and_one_type_for_each_column(world: World) -> None:
    world.do("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id bigint PRIMARY KEY)")
    with pytest.raises(NotSupported, match="nobody can tell the rows"):
        of.Flow("several").read(world.endpoint(["a", "b"]), schema={"id": "BIGINT", "_op": "VARCHAR"})
    with pytest.raises(SchemaError, match="two types"):
        of.Flow("several").read(world.endpoint(["a", "b"]), meta="_table")


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ("CREATE TABLE t (id int)", "no primary key"),
        ("CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING", "NOTHING"),
        ("CREATE TABLE t (id int) PARTITION BY HASH (id)", "a partitioned table"),
        ("CREATE VIEW t AS SELECT 1 AS id", "a view"),
        ("CREATE UNLOGGED TABLE t (id int PRIMARY KEY)", "unlogged"),
        ("SELECT 1", "t"),
    ],
)
def test_tables_that_the_log_tells_too_little_of_are_refused(made: str, found: str, world: World) -> None:
    world.do(made)
    with pytest.raises(SourceRefused) as refused:
        world.open()
    assert found in str(refused.value.found)
    assert world.one("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '" + world.slot + "'") == 0


def test_a_table_without_a_key_is_read_from_now_on_only(world: World) -> None:
    world.do("CREATE TABLE t (a int, b int)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t VALUES (1, 1)")
    with pytest.raises(SourceRefused, match="no key to read it by"):
        world.open()
    source = world.open(snapshot=False)
    assert world.drain(source)[0] == []
    world.do("UPDATE t SET b = 2", "DELETE FROM t")
    rows, _ = world.drain(source)
    assert brief(rows, "a", "b") == [("delete", 1, 1), ("upsert", 1, 2), ("delete", 1, 2)]


# --------------------------------------------------------------------------------------- values that the log leaves out

LARGE = "repeat(md5(random()::text), 1000)"


def test_large_values_are_refused_where_the_log_may_leave_them_out(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY, n int, big text)")
    with pytest.raises(SourceRefused, match="leaves out large values") as refused:
        world.open()
    assert "REPLICA IDENTITY FULL" in refused.value.next_step
    world.open(columns=pa.schema([("id", pa.int32()), ("n", pa.int32()), ("_op", pa.string())]))


def test_under_replica_identity_full_an_unchanged_large_value_stays(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY, n int, big text)", "ALTER TABLE t REPLICA IDENTITY FULL")
    world.do("ALTER TABLE t ALTER big SET STORAGE EXTERNAL", f"INSERT INTO t VALUES (1, 1, {LARGE})")
    source = world.open()
    first, place = world.drain(source)
    world.do("UPDATE t SET n = 2")
    rows, _ = world.drain(source, place)
    assert brief(rows, "id", "n", "big") == [("upsert", 1, 2, first[0]["big"])]
    assert len(first[0]["big"]) == 32000


def test_a_large_value_that_is_missing_stops_the_flow_and_is_never_null(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY, n int, big text)", "ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    world.do(f"INSERT INTO t VALUES (1, 1, {LARGE})")
    source = world.open(unchanged="stop")
    _, place = world.drain(source)
    world.do("INSERT INTO t VALUES (2, 1, 'before')", "UPDATE t SET n = 2 WHERE id = 1", "DELETE FROM t WHERE id = 2")
    read = source.read(PARTITION, place, AMPLE, 1.0)
    assert brief(read.batches[0].to_pylist(), "id", "big") == [("upsert", 2, "before")]
    for again in (source, world.open(unchanged="stop")):
        with pytest.raises(InputLost, match="did not change the large value of column big") as lost:
            again.read(PARTITION, read.next, AMPLE, 1.0)
    assert "key 1" in str(lost.value.found)
    assert lost.value.skip.records == 1
    rows, _ = world.drain(world.open(unchanged="stop"), lost.value.skip.to)
    assert brief(rows, "id") == [("delete", 2)]


def test_an_update_of_a_row_whose_key_is_kept_out_of_line_has_its_key(world: World) -> None:
    """The log then has the key in the old row alone."""
    world.do("CREATE TABLE t (n int, id text PRIMARY KEY)", "ALTER TABLE t ALTER id SET STORAGE EXTERNAL")
    world.do("INSERT INTO t SELECT 1, string_agg(md5(g::text), '') FROM generate_series(1, 70) g")
    source = world.open()
    first, place = world.drain(source)
    world.do("UPDATE t SET n = 2")
    rows, _ = world.drain(source, place)
    assert brief(rows, "id", "n") == [("upsert", first[0]["id"], 2)]
    assert len(first[0]["id"]) == 2240


def test_a_large_value_that_is_missing_beside_a_large_key_is_told(world: World) -> None:
    world.do("CREATE TABLE t (big text, n int, id text PRIMARY KEY)")
    world.do("ALTER TABLE t ALTER id SET STORAGE EXTERNAL, ALTER big SET STORAGE EXTERNAL")
    key = "SELECT string_agg(md5(g::text), '') FROM generate_series(1, 70) g"
    world.do(f"INSERT INTO t VALUES ({LARGE}, 1, ({key}))")
    source = world.open(unchanged="stop")
    first, place = world.drain(source)
    world.do("UPDATE t SET n = 2")
    with pytest.raises(InputLost, match="did not change the large value of column big") as lost:
        world.drain(source, place)
    assert first[0]["id"] in str(lost.value.found)


# ------------------------------------------------------------------------------------------------ truncate, and schemas


def test_a_truncate_stops_the_flow_unless_it_is_to_be_ignored(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.open(snapshot=False)
    _, place = world.drain(source)
    with world.admin.transaction():
        world.do("INSERT INTO t VALUES (1)", "TRUNCATE t", "INSERT INTO t VALUES (2)")
    read = source.read(PARTITION, place, AMPLE, 1.0)
    assert brief(read.batches[0].to_pylist(), "id") == [("upsert", 1)]
    with pytest.raises(InputLost, match="TRUNCATE") as lost:
        source.read(PARTITION, read.next, AMPLE, 1.0)
    assert brief(world.drain(world.open(snapshot=False), lost.value.skip.to)[0], "id") == [("upsert", 2)]
    ignoring = world.open(snapshot=False, truncate="ignore")
    assert brief(world.drain(ignoring, place, Limit(1, 1))[0], "id") == [("upsert", 1), ("upsert", 2)]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("ALTER TABLE t ADD COLUMN more int", "a new column more"),
        ("ALTER TABLE t DROP COLUMN v", "no column v"),
        ("ALTER TABLE t RENAME COLUMN v TO w", "no column v"),
        ("ALTER TABLE t ALTER v TYPE bigint", "column v of type 20"),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (v)", "rows known by v"),
    ],
)
def test_a_table_that_changes_stops_the_flow_behind_what_came_before(change: str, found: str, world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL)")
    source = world.open()
    _, place = world.drain(source)
    world.do("INSERT INTO t (id, v) VALUES (1, 1)", change, "UPDATE t SET id = 2")
    read = source.read(PARTITION, place, AMPLE, 1.0)
    assert brief(read.batches[0].to_pylist(), "id", "v") == [("upsert", 1, 1)]
    with pytest.raises(SourceError, match="was changed") as stopped:
        source.read(PARTITION, read.next, AMPLE, 1.0)
    assert found in str(stopped.value.found)


def test_a_new_column_that_is_not_read_is_no_matter_after_a_restart(world: World) -> None:
    columns = pa.schema([("id", pa.int32()), ("v", pa.int32()), ("_op", pa.string())])
    world.do("CREATE TABLE t (id int PRIMARY KEY, v int)")
    source = world.open(columns=columns)
    _, place = world.drain(source)
    world.do("INSERT INTO t VALUES (1, 1)", "ALTER TABLE t ADD COLUMN more int", "INSERT INTO t VALUES (2, 2, 2)")
    with pytest.raises(SourceError, match="was changed"):
        world.drain(source, place)
    rows, _ = world.drain(world.open(columns=columns), place)
    assert brief(rows, "id", "v") == [("upsert", 1, 1), ("upsert", 2, 2)]


def test_a_type_that_changes_during_the_first_reading_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "FIRST_ROWS", 2)
    monkeypatch.setattr(cursors, "MOST_ROWS", 2)
    world.do("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t SELECT g, g FROM generate_series(1, 5) g")
    source = world.open()
    read = source.read(PARTITION, {}, Limit(1, 1), 1.0)
    while not read.batches:
        read = source.read(PARTITION, read.next, Limit(1, 1), 1.0)
    world.do("ALTER TABLE t ALTER v TYPE numeric(9,2)")
    with pytest.raises(SourceError, match="was changed"):
        world.drain(source, read.next)


# -------------------------------------------------------------------------------------------------- the first reading


def _small_pieces(monkeypatch: pytest.MonkeyPatch, rows: int = 3) -> None:
    monkeypatch.setattr(cursors, "FIRST_ROWS", rows)
    monkeypatch.setattr(cursors, "MOST_ROWS", rows)


@pytest.mark.parametrize("has_safeguard", [True, False], ids=["with", "without"])
def test_a_row_that_changes_while_its_piece_is_read_never_goes_back(
    has_safeguard: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed behind the piece's snapshot and before its marker. Without the safeguard the old row comes last."""
    _small_pieces(monkeypatch)
    world.do("CREATE TABLE t (id int PRIMARY KEY, v varchar(9))")
    world.do("INSERT INTO t SELECT g, 'old' FROM generate_series(1, 6) g")
    whole = cursors.mark
    turns = iter(["UPDATE t SET v = 'new' WHERE id = 2; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (0, 'new')"])

    def meanwhile(*about: Any) -> None:
        world.do(*[statement for statement in [next(turns, "")] if statement])
        whole(*about)

    monkeypatch.setattr(cursors, "mark", meanwhile)
    if not has_safeguard:
        monkeypatch.setattr(Piece, "left", lambda self: self.rows)
    rows, _ = world.drain(world.open())
    last = {row["id"]: (row["_op"], row["v"]) for row in rows}
    expected = {0: ("upsert", "new"), 2: ("upsert", "new"), 3: ("delete", None)}
    assert ({key: last[key] for key in expected} == expected) is has_safeguard
    assert [row["id"] for row in rows if row["_xid"] is None][-3:] == [4, 5, 6]


def test_the_first_reading_goes_on_behind_any_row_in_a_new_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_pieces(monkeypatch, 4)
    world.do('CREATE TABLE t ("the Key" varchar(9) COLLATE "C", n numeric(9,2), PRIMARY KEY ("the Key", n))')
    world.do("INSERT INTO t SELECT 'k%' || g % 3, g / 2.0 FROM generate_series(1, 20) g")
    place: Any = {}
    found = []
    for _ in range(60):
        source = world.open()
        read = source.read(PARTITION, place, Limit(1, 1), 1.0)
        found += [row for batch in read.batches for row in batch.to_pylist()]
        place = json.loads(json.dumps(read.next))
        if read.is_idle:
            break
    true = world.admin.execute('SELECT "the Key", n::text FROM t ORDER BY 1, t.n').fetchall()
    assert [(row["the Key"], row["n"]) for row in found] == true


def test_a_transaction_that_is_open_when_reading_goes_on_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new process that goes on with the first reading waits for it; the stream does not."""
    _small_pieces(monkeypatch, 1)
    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (5)")
    source = world.open()
    first = source.read(PARTITION, {}, Limit(1, 1), 1.0)
    while not first.batches:
        first = source.read(PARTITION, first.next, Limit(1, 1), 1.0)
    with psycopg.connect(world.url) as writer:
        writer.execute(f"INSERT INTO {world.schema}.t VALUES (2)")
        source = world.open()
        world.do("INSERT INTO t VALUES (3)")
        read = source.read(PARTITION, first.next, AMPLE, 1.0)
        assert [row["id"] for batch in read.batches for row in batch.to_pylist()] == [3]
        assert not source.read(PARTITION, read.next, AMPLE, 0.2).batches
        writer.commit()
    rows, _ = world.drain(source, read.next)
    assert [row["id"] for row in rows if row["_xid"] is None] == [2, 3, 5]


def test_a_first_reading_that_is_held_up_says_by_whom_and_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    world.open().read(PARTITION, {}, Limit(1, 1), 0.0)
    monkeypatch.setattr(watch, "WORD_SECONDS", 0.0)
    with psycopg.connect(world.url, application_name="a batch") as writer:
        writer.execute("SELECT pg_current_xact_id()")
        source = world.open()
        source.read(PARTITION, {}, AMPLE, 0.1)
        assert "a batch" in caplog.text
        source.read(PARTITION, {}, AMPLE, 0.1)
        monkeypatch.setattr(watch, "HELD_SECONDS", 0.0)
        with pytest.raises(SourceUnavailable, match="the first reading goes on when") as held:
            source.read(PARTITION, {}, AMPLE, 0.1)
    assert "a batch" in str(held.value.found)
    assert brief(world.drain(source)[0], "id") == [("upsert", 1)]


def test_a_new_flow_begins_when_older_transactions_have_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "OPEN_WAITS", 3)
    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    clear = slots._clear
    with psycopg.connect(world.url, application_name="a batch") as writer:

        def beside(*about: Any, **rest: Any) -> None:
            writer.execute(f"INSERT INTO {world.schema}.t VALUES (2)")
            clear(*about, **rest)

        monkeypatch.setattr(slots, "_clear", beside)
        with pytest.raises(SourceUnavailable, match="every transaction has ended") as waiting:
            world.open().read(PARTITION, {}, AMPLE, 0.1)
        assert "a batch" in str(waiting.value.found)
        writer.commit()
        monkeypatch.setattr(slots, "_clear", clear)
    assert world.one("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'onefold_new%'") == 0
    assert brief(world.drain(world.open())[0], "id") == [("upsert", 1), ("upsert", 2)]
