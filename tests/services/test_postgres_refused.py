"""Rows that PostgreSQL refuses become dead letters of their epoch, and all others are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.postgres import sifting
from onefold.connectors.postgres.tables import TableName
from onefold.engines.embedded.deadletters import DeadLetter, dead_letters
from onefold.errors import RowsRefused, SinkRefused
from onefold.testing.harness import ForkServer, at_every_step, at_two_steps, chosen, run_schedules, steps_of
from tests.services.postgres_flows import rows, schema_of, table
from tests.services.sifted_flows import SIFTED, refused_rows_forgotten

Count = Callable[[int], int]


class World:
    """A table made by the test, and a flow that writes records to it."""

    def __init__(self, folder: Path, connection: Any) -> None:
        self.folder = folder
        self.connection = connection
        connection.execute(f"CREATE SCHEMA {schema_of(folder)}")
        connection.execute(f"SET search_path TO {schema_of(folder)}")

    def write(self, records: Sequence[Mapping[str, Any]], *, key: str = "", refused: Any = "dead-letter") -> None:
        """Append them to `t`, or upsert by the key; and append them to `all`, which takes everything."""
        (self.folder / "in").mkdir(exist_ok=True)
        (self.folder / "in" / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        flow = of.Flow("refused", commit="together")
        source = of.files(str(self.folder / "in" / "*.jsonl"))
        stream = flow.read(source, schema={"id": "BIGINT", "v": "VARCHAR"}, name="in")
        if key:
            stream.upsert(table(self.folder, "t"), key=key, refused=refused)
        else:
            stream.append(table(self.folder, "t"), refused=refused)
        stream.append(table(self.folder, "all"))
        flow.run(state=self.folder / "state")

    def delete(self, *numbers: int, target: Any = None, refused: Any = "dead-letter") -> None:
        """Rows of `t`, by their id."""
        (self.folder / "in").mkdir(exist_ok=True)
        lines = [json.dumps({"id": number, "v": "x", "_op": "delete"}) + "\n" for number in numbers]
        (self.folder / "in" / "a.jsonl").write_text("".join(lines))
        flow = of.Flow("refused", commit="together")
        schema = {"id": "BIGINT", "v": "VARCHAR", "_op": "VARCHAR"}
        stream = flow.read(of.files(str(self.folder / "in" / "*.jsonl")), schema=schema, name="in")
        stream.upsert(target or table(self.folder, "t"), key="id", refused=refused)
        flow.run(state=self.folder / "state")

    def stored(self, name: str = "t") -> list[tuple[Any, ...]]:
        return rows(self.folder, f'SELECT id, v FROM "{name}" ORDER BY id, v')

    def letters(self) -> Sequence[DeadLetter]:
        return dead_letters(self.folder / "state" / "refused", limit=10_000)[0]


@pytest.fixture
def world(tmp_path: Path, database: str) -> Any:
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        yield World(tmp_path, connection)


def records(count: int, **changed: str) -> list[dict[str, Any]]:
    """Numbered from 0; changed: the values of some, by n0, n1 …"""
    return [{"id": number, "v": changed.get(f"n{number}", "fine")} for number in range(count)]


def test_a_constraint_leaves_out_the_rows_that_violate_it_and_names_it(world: World) -> None:
    world.connection.execute("CREATE TABLE t (id bigint, v text CONSTRAINT kind CHECK (v <> 'bad'))")
    world.write(records(1000, n3="bad", n4="bad", n700="bad", n999="bad"))
    assert len(world.stored()) == 996
    assert len(world.stored("all")) == 1000
    assert [json.loads(letter.raw)["id"] for letter in world.letters()] == [3, 4, 700, 999]
    letter = world.letters()[0]
    assert (letter.read, letter.reason) == ("sink t", "refused")
    assert "kind" in letter.detail


def test_of_rows_that_exclude_each_other_the_first_stays(world: World) -> None:
    world.connection.execute("CREATE TABLE t (id bigint UNIQUE, v text)")
    world.write([*records(5), {"id": 2, "v": "again"}, {"id": 4, "v": "again"}])
    assert [v for _, v in world.stored()] == ["fine"] * 5
    assert [json.loads(letter.raw) for letter in world.letters()] == [
        {"id": 2, "v": "again"},
        {"id": 4, "v": "again"},
    ]


def test_a_constraint_that_is_checked_at_the_end_is_checked_for_each_row(world: World) -> None:
    world.connection.execute("CREATE TABLE kinds (v text PRIMARY KEY)")
    world.connection.execute("INSERT INTO kinds VALUES ('fine')")
    world.connection.execute("CREATE TABLE t (id bigint, v text REFERENCES kinds DEFERRABLE INITIALLY DEFERRED)")
    world.write(records(20, n7="unknown"))
    assert len(world.stored()) == 19
    assert [json.loads(letter.raw)["id"] for letter in world.letters()] == [7]


def test_what_another_table_refers_to_is_checked_for_each_row(world: World) -> None:
    """Else the server would say so when all is prepared, of no row, and at every start again."""
    world.connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
    world.connection.execute("CREATE TABLE child (id bigint REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    world.connection.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    world.connection.execute("INSERT INTO child VALUES (1)")
    world.delete(1, 2)
    assert world.stored() == [(1, "a")]
    assert [json.loads(letter.raw)["id"] for letter in world.letters()] == [1]


def test_rows_that_a_policy_hides_are_not_taken_for_deleted(world: World, database: str) -> None:
    world.connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
    world.connection.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    world.connection.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    world.connection.execute("CREATE POLICY visible ON t USING (id > 1)")
    place = schema_of(world.folder)
    user = f"{place}_reader"
    world.connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'x'")
    world.connection.execute(f'CREATE SCHEMA "{place} tokens" AUTHORIZATION {user}')
    world.connection.execute(f"GRANT ALL ON SCHEMA {place} TO {user}; GRANT ALL ON t TO {user}")
    server = of.postgres(database.replace("onefold:one%40fold", f"{user}:x"), tokens=f"{place} tokens")
    with pytest.raises(SinkRefused, match="row security"):
        world.delete(1, target=server.table("t", schema=place), refused="stop")
    assert world.stored() == [(1, "a"), (2, "b")]


def test_a_sequence_that_is_exhausted_makes_no_dead_letters(world: World) -> None:
    world.connection.execute("CREATE SEQUENCE few MAXVALUE 3")
    world.connection.execute("CREATE TABLE t (id bigint, v text, n int DEFAULT nextval('few'))")
    with pytest.raises(SinkRefused, match="cannot be written") as refused:
        world.write(records(20))
    assert "few" in str(refused.value.found)
    assert (world.stored("all"), world.letters()) == ([], [])


def test_a_chain_of_rows_that_refer_to_later_ones_takes_few_pieces(world: World) -> None:
    """Only a bad row at their end makes them be tried one by one."""
    world.connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, parent bigint REFERENCES t, CHECK (id >= 0))")
    chain = pa.table({"id": [*range(100, -1, -1), -1], "parent": [*range(99, -1, -1), None, None]})
    pieces: list[int] = []

    def write(rows: pa.Table) -> None:
        pieces.append(rows.num_rows)
        values = ", ".join(f"({row['id']}, {row['parent'] or 'NULL'})" for row in rows.to_pylist())
        world.connection.execute(f"INSERT INTO t VALUES {values}")

    name = TableName(schema_of(world.folder), "t", "unused", "t")
    with world.connection.transaction():
        sieve = sifting.Sieve(world.connection, name, "t", write, lambda error: RowsRefused(str(error)))
        left = sieve.pass_through(chain)
    assert [one.row for one in left] == [101]
    assert world.connection.execute("SELECT count(*) FROM t").fetchone() == (101,)
    assert len(pieces) < 5 * 102


def test_a_row_that_refers_to_a_later_one_is_not_left_out_with_a_bad_one(world: World) -> None:
    """Cut in two by the bad row, the piece with the child alone is refused; it is tried again behind its parent."""
    world.connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text, CHECK (v <> 'bad'), parent bigint)")
    world.connection.execute("ALTER TABLE t ADD FOREIGN KEY (parent) REFERENCES t")
    world.connection.execute(
        "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.id = 2 THEN NEW.parent := 1; END IF; RETURN NEW; END $$"
    )
    world.connection.execute("CREATE TRIGGER own BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION own()")
    world.write([{"id": 2, "v": "child"}, {"id": 1, "v": "parent"}, {"id": 3, "v": "bad"}])
    assert world.stored() == [(1, "parent"), (2, "child")]
    assert [json.loads(letter.raw)["id"] for letter in world.letters()] == [3]


def test_what_a_trigger_raises_is_a_refusal(world: World) -> None:
    world.connection.execute("CREATE TABLE t (id bigint, v text)")
    world.connection.execute(
        "CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.v = 'bad' THEN RAISE EXCEPTION 'no %', NEW.id; END IF; RETURN NEW; END $$"
    )
    world.connection.execute("CREATE TRIGGER judge BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION judge()")
    world.write(records(20, n7="bad"))
    assert len(world.stored()) == 19
    assert "no 7" in world.letters()[0].detail


def test_many_refused_rows_of_an_upsert_take_few_locks(world: World) -> None:
    world.connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text CHECK (v <> 'bad'))")
    world.write(records(6000, **{f"n{number}": "bad" for number in range(0, 6000, 8)}), key="id")
    assert len(world.stored()) == 5250
    assert len(world.letters()) == 750


def test_more_than_exceptions_end_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sifting, "MOST_REFUSED", 5)
    world.connection.execute("CREATE TABLE t (id bigint, v text CHECK (v <> 'bad'))")
    with pytest.raises(RowsRefused, match="more than 5 rows"):
        world.write(records(20, **{f"n{number}": "bad" for number in range(6)}))
    assert (world.stored("all"), world.letters()) == ([], [])


def test_a_text_that_would_be_cut_off_is_left_out(world: World) -> None:
    world.connection.execute("CREATE TABLE t (id bigint, v varchar(4))")
    world.write(records(20, n7="long  "))
    assert len(world.stored()) == 19
    assert "long" in world.letters()[0].detail


def test_upserts_leave_out_what_is_refused(world: World) -> None:
    world.connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text CHECK (v <> 'bad'))")
    world.write([*records(10), {"id": 3, "v": "bad"}, {"id": 5, "v": "newer"}], key="id")
    assert (5, "newer") in world.stored()
    assert 3 not in dict(world.stored()), "the newest row of a key counts, and that is a dead letter"
    assert [json.loads(letter.raw)["id"] for letter in world.letters()] == [3]


def test_an_epoch_of_refused_rows_alone_moves_the_token(world: World) -> None:
    world.connection.execute("CREATE TABLE t (id bigint, v text CHECK (v <> 'bad'))")
    world.write([{"id": 1, "v": "bad"}])
    assert (world.stored(), len(world.letters())) == ([], 1)
    world.write([{"id": 1, "v": "bad"}, {"id": 2, "v": "fine"}])
    assert (world.stored(), len(world.letters())) == ([(2, "fine")], 1)


def test_without_it_the_run_ends_and_nobody_has_seen_anything(world: World) -> None:
    world.connection.execute("CREATE TABLE t (id bigint, v text CONSTRAINT kind CHECK (v <> 'bad'))")
    with pytest.raises(RowsRefused, match="kind"):
        world.write(records(20, n7="bad"), refused="stop")
    assert (world.stored(), world.stored("all"), world.letters()) == ([], [], [])


@pytest.mark.crash
def test_killed_at_any_durable_step_each_row_is_written_or_a_dead_letter(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    every = steps_of(SIFTED, tmp_path / "untouched", database_server)
    steps = chosen(every, schedules(12), seed=seed)
    results = run_schedules(SIFTED, at_every_step(steps), tmp_path / "once", database_server)
    assert not results.failures, results.text()
    twice = at_two_steps(schedules(4), every, seed=seed)
    results = run_schedules(SIFTED, twice, tmp_path / "twice", database_server)
    assert not results.failures, results.text()


@pytest.mark.crash
def test_refused_rows_that_are_not_told_are_missed(tmp_path: Path, database_server: ForkServer) -> None:
    forgetful = replace(SIFTED, arrange=(refused_rows_forgotten,))
    steps = steps_of(SIFTED, tmp_path / "untouched", database_server)
    results = run_schedules(forgetful, at_every_step(steps[:1]), tmp_path / "one", database_server)
    assert results.failures
