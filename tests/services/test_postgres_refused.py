"""What only PostgreSQL has of refused rows: deferred constraints, policies, sequences, triggers that change rows."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.sifting import Sieve
from onefold.errors import RowsRefused, SinkRefused
from tests.services.database_systems import POSTGRES
from tests.services.postgres_flows import schema_of
from tests.services.refused_world import World, records


@pytest.fixture
def world(tmp_path: Path, database: str) -> World:
    return World(tmp_path, POSTGRES)


def test_a_constraint_that_is_checked_at_the_end_is_checked_for_each_row(world: World) -> None:
    world.execute("CREATE TABLE kinds (v text PRIMARY KEY)")
    world.execute("INSERT INTO kinds VALUES ('fine')")
    world.execute("CREATE TABLE t (id bigint, v text REFERENCES kinds DEFERRABLE INITIALLY DEFERRED)")
    world.write(records(20, n7="unknown"))
    assert len(world.stored()) == 19
    assert world.refused() == [7]


def test_what_another_table_refers_to_is_checked_for_each_row(world: World) -> None:
    """Else the server would say so when all is prepared, of no row, and at every start again."""
    world.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
    world.execute("CREATE TABLE child (id bigint REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    world.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    world.execute("INSERT INTO child VALUES (1)")
    world.delete(1, 2)
    assert world.stored() == [(1, "a")]
    assert world.refused() == [1]


def test_rows_that_a_policy_hides_are_not_taken_for_deleted(world: World, database: str) -> None:
    world.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
    world.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    world.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    world.execute("CREATE POLICY visible ON t USING (id > 1)")
    place = schema_of(world.folder)
    user = f"{place}_reader"
    world.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'x'")
    world.execute(f'CREATE SCHEMA "{place} tokens" AUTHORIZATION {user}')
    world.execute(f"GRANT ALL ON SCHEMA {place} TO {user}; GRANT ALL ON t TO {user}")
    server = of.postgres(database.replace("onefold:one%40fold", f"{user}:x"), tokens=f"{place} tokens")
    with pytest.raises(SinkRefused, match="row security"):
        world.delete(1, target=server.table("t", schema=place), refused="stop")
    assert world.stored() == [(1, "a"), (2, "b")]


def test_a_sequence_that_is_exhausted_makes_no_dead_letters(world: World) -> None:
    world.execute("CREATE SEQUENCE few MAXVALUE 3")
    world.execute("CREATE TABLE t (id bigint, v text, n int DEFAULT nextval('few'))")
    with pytest.raises(SinkRefused, match="cannot be written") as refused:
        world.write(records(20))
    assert "few" in str(refused.value.found)
    assert (world.stored("all_rows"), world.letters()) == ([], [])


def test_a_chain_of_rows_that_refer_to_later_ones_takes_few_pieces(database: str) -> None:
    """Only a bad row at their end makes them be tried one by one."""
    chain = pa.table({"id": [*range(100, -1, -1), -1], "parent": [*range(99, -1, -1), None, None]})
    pieces: list[int] = []
    with psycopg.connect(database) as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE chained (id bigint PRIMARY KEY, parent bigint REFERENCES chained, CHECK (id >= 0))"
        )

        def write(rows: pa.Table) -> None:
            pieces.append(rows.num_rows)
            values = ", ".join(f"({row['id']}, {row['parent'] or 'NULL'})" for row in rows.to_pylist())
            connection.execute(f"INSERT INTO chained VALUES {values}")

        sieve = Sieve("t", "t", connection.execute, write, lambda error: RowsRefused(str(error)))
        assert [one.row for one in sieve.pass_through(chain)] == [101]
        assert connection.execute("SELECT count(*) FROM chained").fetchone() == (101,)
    assert len(pieces) < 5 * 102


def test_a_row_that_refers_to_a_later_one_is_not_left_out_with_a_bad_one(world: World) -> None:
    """Cut in two by the bad row, the piece with the child alone is refused; it is tried again behind its parent."""
    world.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text, CHECK (v <> 'bad'), parent bigint)")
    world.execute("ALTER TABLE t ADD FOREIGN KEY (parent) REFERENCES t")
    world.execute(
        "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.id = 2 THEN NEW.parent := 1; END IF; RETURN NEW; END $$"
    )
    world.execute("CREATE TRIGGER own BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION own()")
    world.write([{"id": 2, "v": "child"}, {"id": 1, "v": "parent"}, {"id": 3, "v": "bad"}])
    assert world.stored() == [(1, "parent"), (2, "child")]
    assert world.refused() == [3]


def test_what_a_trigger_raises_is_a_refusal(world: World) -> None:
    world.execute("CREATE TABLE t (id bigint, v text)")
    world.execute(
        "CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.v = 'bad' THEN RAISE EXCEPTION 'no %', NEW.id; END IF; RETURN NEW; END $$"
    )
    world.execute("CREATE TRIGGER judge BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION judge()")
    world.write(records(20, n7="bad"))
    assert len(world.stored()) == 19
    assert "no 7" in world.letters()[0].detail


def test_many_refused_rows_of_an_upsert_take_few_locks(world: World) -> None:
    world.execute("CREATE TABLE t (id bigint PRIMARY KEY, v varchar(40), CHECK (v <> 'bad'))")
    world.write(records(6000, **{f"n{number}": "bad" for number in range(0, 6000, 8)}), key="id")
    assert len(world.stored()) == 5250
    assert len(world.letters()) == 750
