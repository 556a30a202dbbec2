"""Slot, publication and session of the change stream: kept, moved on, lost, and refused, on a real server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import onefold as of
from onefold.connectors.postgres.changes import source as sources
from onefold.connectors.postgres.changes import watch
from onefold.connectors.postgres.changes.place import lsn_text
from onefold.errors import (
    InputLost,
    SchemaError,
    SourceRefused,
    SourceUnavailable,
    TargetTaken,
)
from tests.services.postgres_changes_flows import drop_slot
from tests.services.postgres_changes_tables import AMPLE, PARTITION, World, brief
from tests.services.postgres_flows import VARIABLE, schema_of

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    made = World(database, schema_of(tmp_path))
    yield made
    made.close()
    drop_slot(made.slot)


# ------------------------------------------------------------------------------------------------------ slot and server


def assert_names(lost: InputLost, start: dict[str, Any], found: str) -> None:
    """What lacks, from which place on and through which slot, and what there is instead."""
    at = f"LSN {lsn_text(_number(start))}" if start else "the beginning"
    assert str(lost.expected).startswith(f"every change from {at}")
    assert "through slot " in str(lost.expected)
    assert found in str(lost.found)


def test_only_settled_input_is_given_up(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.open()
    _, first = world.drain(source)
    world.do("INSERT INTO t VALUES (1)")
    _, second = world.drain(source, first)
    world.do("INSERT INTO t VALUES (2)")
    _, third = world.drain(source, second)
    assert _confirmed(world) < _number(second)
    source.settle({PARTITION: second})
    world.drain(source, third)
    source.close()
    assert _confirmed(world) == _number(second)
    assert brief(world.drain(world.open(), second)[0], "id") == [("upsert", 2)]
    with pytest.raises(InputLost, match="moved on by somebody else") as lost:
        world.drain(world.open(), first)
    assert_names(lost.value, first, f"slot {world.slot} at ")
    source = world.open()
    source.settle({PARTITION: third})
    world.drain(source, third)
    world.close_sources()
    _await_confirmed(world, third)


def test_a_run_with_once_moves_the_slot_on_to_its_end(world: World, tmp_path: Path) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    flow = of.Flow("moved")
    flow.read(world.endpoint(), name="t").upsert(of.memory(f"moved {tmp_path}"), key="id", name="copy")
    flow.run(state=tmp_path)
    behind_the_first = world.one("SELECT pg_current_wal_insert_lsn()")
    world.do("INSERT INTO t VALUES (3)")
    flow.run(state=tmp_path)
    _await_confirmed(world, {"lsn": behind_the_first})


def _confirmed(world: World) -> int:
    return int(
        world.one(
            f"SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = '{world.slot}'"
        )
    )


def _await_confirmed(world: World, position: Any) -> None:
    """The server hears of it a moment after the source is closed."""
    for _ in range(200):
        if _confirmed(world) >= _number(position):
            return
        time.sleep(0.02)
    raise AssertionError(f"the slot stands at {_confirmed(world)}, and {_number(position)} is settled")


def _number(position: Any) -> int:
    high, low = position["lsn"].split("/")
    return (int(high, 16) << 32) + int(low, 16)


def test_the_log_of_other_tables_is_passed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position moves without rows, so that the server need not keep what is not ours."""
    monkeypatch.setattr(sources, "STEP_BYTES", 100_000)
    world.do("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (v text)")
    source = world.open()
    _, place = world.drain(source)
    world.do("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 300)")
    rows, moved = world.drain(source, place)
    assert rows == []
    assert _number(moved) - _number(place) >= 100_000


def test_a_slot_that_is_gone_is_never_silently_made_anew(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    source = world.open()
    _, place = world.drain(source)
    world.close_sources()
    drop_slot(world.slot)
    world.do("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (3)")
    for start in ({}, place):
        with pytest.raises(InputLost, match="slot is gone") as lost:
            world.drain(world.open(), start)
        assert_names(lost.value, start, f"no slot {world.slot}")
    assert lost.value.skip is not None
    rows, place = world.drain(world.open(), lost.value.skip.to)
    assert brief(rows, "id") == [("upsert", 2), ("upsert", 3)], "the tables as they are now"
    world.do("INSERT INTO t VALUES (4)")
    assert brief(world.drain(world.open(), place)[0], "id") == [("upsert", 4)]


def test_a_slot_that_goes_before_anything_was_read_is_not_made_anew_either(world: World) -> None:
    """In one process: the beginning was told, and nothing of it remembered by `open`."""
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.open(snapshot=False)
    _, place = world.drain(source)
    assert place == {}
    assert world.remembered
    source.read(PARTITION, {}, AMPLE, 0.0)
    drop_slot(world.slot)
    world.do("INSERT INTO t VALUES (1)")
    with pytest.raises(InputLost, match="slot is gone"):
        world.drain(source)


def test_a_loss_that_is_accepted_begins_anew(world: World, tmp_path: Path) -> None:
    """As `onefold recover --skip-lost` does it."""
    from onefold.engines.embedded.losses import find_losses, skip_losses

    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    flow = of.Flow("lost")
    flow.read(world.endpoint()).upsert(
        of.postgres(world.url, tokens=f"{world.schema} tokens").table("copy", schema=world.schema, create=True),
        key="id",
    )
    flow.run(until="drained", state=tmp_path / "state")
    drop_slot(world.slot)
    world.do("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (3)")
    with pytest.raises(InputLost):
        flow.run(until="drained", state=tmp_path / "state")
    plan, clock = flow.plan, sources.SystemClock()
    losses = find_losses(plan, tmp_path / "state" / "lost", clock)
    skip_losses(plan, tmp_path / "state" / "lost", losses)
    for _ in range(2):
        flow.run(until="drained", state=tmp_path / "state")
    assert world.admin.execute("SELECT id FROM copy ORDER BY id").fetchall() == [(1,), (2,), (3,)]


def test_a_table_made_anew_is_read_anew_once_that_was_accepted(world: World, tmp_path: Path) -> None:
    """The slot still begins where the former table was written to."""
    from onefold.engines.embedded.losses import find_losses, skip_losses

    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    flow = of.Flow("remade")
    flow.read(world.endpoint()).upsert(of.memory(f"remade {tmp_path}"), key="id", name="copy")
    flow.run(state=tmp_path / "state")
    world.do(
        "INSERT INTO t VALUES (2)", "DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (3)"
    )
    with pytest.raises(InputLost, match="made anew"):
        flow.run(state=tmp_path / "state")
    plan, folder, clock = flow.plan, tmp_path / "state" / "remade", sources.SystemClock()
    skip_losses(plan, folder, find_losses(plan, folder, clock))
    flow.run(state=tmp_path / "state")
    world.do("INSERT INTO t VALUES (4)")
    flow.run(state=tmp_path / "state")
    assert {row["id"] for row in of.memory(f"remade {tmp_path}").rows()} >= {1, 3, 4}


def test_a_table_made_anew_or_taken_out_of_the_publication_is_a_loss(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    _, place = world.drain(world.open())
    world.do(f"ALTER PUBLICATION {world.slot} DROP TABLE t")
    with pytest.raises(InputLost, match="not published") as lost:
        world.drain(world.open(), place)
    assert_names(lost.value, place, f"publication {world.slot} without t")
    world.do(f"ALTER PUBLICATION {world.slot} ADD TABLE t")
    world.drain(world.open(), place)
    world.do("DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY)")
    with pytest.raises(InputLost, match="made anew") as lost:
        world.drain(world.open(), place)
    assert_names(lost.value, place, "another table t")
    world.do("INSERT INTO t VALUES (7)")
    assert brief(world.drain(world.open(), lost.value.skip.to)[0], "id") == [("upsert", 7)]


def test_a_publication_that_is_gone_or_made_anew_is_a_loss(world: World) -> None:
    """What was logged without it cannot be decoded, so the slot cannot either: a new one is made."""
    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (0)")
    _, place = world.drain(world.open())
    world.close_sources()
    world.do(f"DROP PUBLICATION {world.slot}", "INSERT INTO t VALUES (1)")
    for start in (place, {}):
        with pytest.raises(InputLost, match="its publication was dropped"):
            world.drain(world.open(), start)
    world.do(f"CREATE PUBLICATION {world.slot} FOR TABLE ONLY t", "INSERT INTO t VALUES (2)")
    with pytest.raises(InputLost, match="its publication was dropped") as lost:
        world.drain(world.open(), place)
    world.close_sources()
    assert "pg_drop_replication_slot" in lost.value.next_step
    drop_slot(world.slot)
    rows, place = world.drain(world.open(), lost.value.skip.to)
    assert brief(rows, "id") == [("upsert", 0), ("upsert", 1), ("upsert", 2)]
    world.do("INSERT INTO t VALUES (3)")
    assert brief(world.drain(world.open(), place)[0], "id") == [("upsert", 3)]


def test_a_table_that_is_exchanged_for_another_is_noticed_in_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (0)")
    source = world.open()
    _, place = world.drain(source)
    world.do("INSERT INTO t VALUES (1)", "ALTER TABLE t RENAME TO former", "CREATE TABLE t (id int PRIMARY KEY)")
    read = source.read(PARTITION, place, AMPLE, 1.0)
    assert brief(read.batches[0].to_pylist(), "id") == [("upsert", 1)], "what was logged before is delivered first"
    with pytest.raises(InputLost, match="made anew"):
        world.drain(source, read.next)


def test_a_slot_in_use_by_somebody_else_is_named(world: World) -> None:
    from onefold.connectors.postgres.changes.replication import Replication
    from onefold.connectors.postgres.connection import Server

    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    _, place = world.drain(world.open())
    world.close_sources()
    other = Replication(Server(world.url), "a stranger")
    other.start(world.slot, _number(place), world.slot)
    with pytest.raises(SourceUnavailable, match="in use") as used:
        world.open().read(PARTITION, place, AMPLE, 0.1)
    assert "a stranger" in str(used.value.found)
    other.close()


def test_an_older_session_of_the_same_read_is_ended(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.open()
    _, place = world.drain(source)
    world.sources.clear()  # it stays open, like that of a process that sleeps
    world.do("INSERT INTO t VALUES (1)")
    assert brief(world.drain(world.open(), place)[0], "id") == [("upsert", 1)]
    source.close()


def test_a_connection_that_breaks_is_made_again(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.open()
    rows, place = world.drain(source)
    for number in range(5):
        world.do(f"INSERT INTO t VALUES ({number})")
        world.do(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
            f"'{source._called.session}'" + (" AND backend_type = 'walsender'" if number % 2 else "")
        )
        more, place = world.drain(source, place)
        rows += more
    assert brief(rows, "id") == [("upsert", number) for number in range(5)]


def test_who_may_not_is_told_what_to_grant(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    user = f"u{world.schema}"
    password = "pass"
    at = world.url.split("@", 1)[1].split("@")[-1]
    url = f"postgresql://{user}:{password}@{at}"
    world.do(f"CREATE USER {user} PASSWORD '{password}'", f"GRANT USAGE ON SCHEMA {world.schema} TO {user}")
    try:
        with pytest.raises(SourceRefused) as refused:
            world.drain(world.open(url=url))
        assert "REPLICATION" in refused.value.next_step
        world.do(f"ALTER USER {user} REPLICATION")
        with pytest.raises(SourceRefused) as refused:
            world.drain(world.open(url=url))
        assert "publi" in refused.value.summary
        assert password not in str(refused.value).replace("may not", "")
        world.do(f"CREATE PUBLICATION {world.slot} FOR TABLE t", f"GRANT SELECT ON t TO {user}")
        world.do("INSERT INTO t VALUES (1)")
        rows, _ = world.drain(world.open(url=url, publication=world.slot))
        assert brief(rows, "id") == [("upsert", 1)]
        world.close_sources()
    finally:
        world.do(f"DROP OWNED BY {user}", f"DROP USER {user}")


@pytest.mark.parametrize("partly", ["WITH (publish = 'insert, update')", "WHERE (id > 5)", "(id)"])
def test_a_publication_that_leaves_something_out_is_refused(partly: str, world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY, v int)")
    rest = partly if partly.startswith("WITH") else ""
    world.do(f"CREATE PUBLICATION {world.slot} FOR TABLE t {'' if rest else partly} {rest}")
    with pytest.raises(SourceRefused, match="leaves out some changes"):
        world.drain(world.open(publication=world.slot))


def test_the_doctor_says_how_far_behind_the_slot_is_and_changes_nothing(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.endpoint().as_source(None)
    [found] = source.check(None)
    assert (found.status, "a new flow makes it" in found.found) == ("ok", True)
    world.drain(world.open())
    [found] = source.check(None)
    assert (found.status, "bytes behind" in found.found) == ("ok", True)
    world.do("ALTER TABLE t DROP CONSTRAINT t_pkey")
    [found] = source.check(None)
    assert found.status == "failed"


def test_a_preview_shows_the_rows_and_leaves_nothing_on_the_server(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY, v numeric(9,2))", "INSERT INTO t VALUES (1, 2.50), (2, NULL)")
    rows = of.Flow("look").read(world.endpoint(), meta="_table").where("id < 3").preview()
    assert [(row["id"], str(row["v"]), row["_op"], row["_table"]) for row in rows.to_pylist()] == [
        (1, "2.50", "upsert", "t"), (2, "None", "upsert", "t")
    ]  # fmt: skip
    assert world.one(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{world.slot}'") == 0
    assert world.one(f"SELECT count(*) FROM pg_publication WHERE pubname = '{world.slot}'") == 0


def test_a_schema_that_would_make_rows_of_deletes_is_refused(world: World) -> None:
    with pytest.raises(SchemaError, match="without _op"):
        of.Flow("deaf").read(world.endpoint(), schema={"id": "INTEGER"})


def test_rows_that_a_policy_hides_are_an_error_and_not_left_out(world: World) -> None:
    user = f"p{world.schema}"
    world.do("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    world.do("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "CREATE POLICY one ON t USING (id = 1)")
    world.do(f"CREATE USER {user} REPLICATION PASSWORD 'p'", f"GRANT USAGE ON SCHEMA {world.schema} TO {user}")
    world.do(f"GRANT SELECT ON t TO {user}", f"CREATE PUBLICATION {world.slot} FOR TABLE t")
    url = f"postgresql://{user}:p@{world.url.rsplit('@', 1)[1]}"
    try:
        with pytest.raises(SourceRefused) as refused:
            world.drain(world.open(url=url, publication=world.slot))
        assert "row-level security" in str(refused.value.found)
        world.close_sources()
    finally:
        world.do(f"DROP OWNED BY {user}", f"DROP USER {user}")


def test_a_flow_that_feeds_itself_is_refused(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    flow = of.Flow("circle")
    rows = flow.read(world.endpoint())
    with pytest.raises(TargetTaken):
        rows.upsert(of.postgres(world.url).table("t", schema=world.schema), key="id")


def test_the_password_is_nowhere(world: World) -> None:
    world.do("CREATE TABLE t (id int PRIMARY KEY)")
    password = psycopg.conninfo.conninfo_to_dict(os.environ[VARIABLE])["password"]
    endpoint = world.endpoint()
    assert str(password) not in f"{endpoint!r} {endpoint.label} {endpoint.as_source(None).promise}"
