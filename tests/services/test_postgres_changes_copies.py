"""A copy of a table, or of its rows that match, is what the table is; and one that could not be is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.errors import SchemaError
from tests.services.postgres_changes_flows import drop_slot
from tests.services.postgres_changes_tables import World
from tests.services.postgres_flows import schema_of

pytestmark = pytest.mark.usefixtures("database")

TABLES = """
CREATE TABLE t (id int PRIMARY KEY, email varchar(20) UNIQUE, n int);
CREATE TABLE other (id int, part int, n int, PRIMARY KEY (part, id));
INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', -4), (5, NULL, NULL);
INSERT INTO other VALUES (1, 1, 1), (2, 1, 1)
"""


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    made = World(database, schema_of(tmp_path))
    made.do(*TABLES.split(";"))
    yield made
    made.close()
    drop_slot(made.slot)


def copied(folder: Path, columns: str = "id, n") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "copy.sqlite")) as opened:
        return sorted(opened.execute(f"SELECT {columns} FROM copy").fetchall(), key=str)


def flow_of(
    world: World, folder: Path, through: Callable[[of.Stream], of.Stream], tables: Any = "t", **upsert: Any
) -> of.Flow:
    flow = of.Flow("copies")
    rows = flow.read(world.endpoint(tables), meta="_table", name="in")
    through(rows).upsert(of.sqlite(str(folder / "copy.sqlite")).table("copy"), **upsert)
    return flow


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
@pytest.mark.parametrize("condition", ["n > 0", "id < 100 AND n > 0", "n > 0 OR email = 'x'"])
def test_a_filtered_copy_holds_the_rows_that_match_now(
    condition: str, identity: str, world: World, tmp_path: Path
) -> None:
    world.do(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    flow = flow_of(world, tmp_path, lambda rows: rows.where(condition).select("id", "n", "_op"), key="id")
    for changes in (
        (),
        ("DELETE FROM t WHERE id = 2", "UPDATE t SET n = -1 WHERE id = 3", "UPDATE t SET n = 9 WHERE id = 4"),
        ("UPDATE t SET id = 30, n = 5 WHERE id = 3", "UPDATE t SET id = 10 WHERE id = 1", "DELETE FROM t WHERE id = 4"),
        ("UPDATE t SET n = 7 WHERE id = 5", "UPDATE t SET n = NULL WHERE id = 10", "DELETE FROM t WHERE id = 30"),
    ):
        world.do(*changes)
        flow.run(state=tmp_path / "state")
        truth = world.admin.execute(f"SELECT id, n FROM t WHERE {condition}").fetchall()
        assert copied(tmp_path) == sorted(truth, key=str)


SEVERAL = ["t", "other"]
OF_T = "_table = 't'"


@pytest.mark.parametrize(
    ("tables", "through", "upsert", "found"),
    [
        ("t", lambda rows: rows, {"key": "email"}, "key email"),
        ("t", lambda rows: rows, {"key": ["id", "email"]}, "key email, id"),
        ("t", lambda rows: rows.select("_op", mail="lower(email)"), {"key": "mail"}, "key email"),
        ("t", lambda rows: rows, {"key": "id", "latest_by": "n"}, "latest_by n"),
        ("other", lambda rows: rows, {"key": "id"}, "key id"),
        (SEVERAL, lambda rows: rows, {"key": ["_table", "id"]}, "key id"),
        (SEVERAL, lambda rows: rows.where("_table = 'other'"), {"key": "id"}, "key id"),
        (SEVERAL, lambda rows: rows.where("_table LIKE 'o%'"), {"key": "n"}, "key n"),
    ],
)
def test_a_copy_that_is_not_keyed_as_its_table_is_refused(
    tables: Any, through: Any, upsert: Any, found: str, world: World, tmp_path: Path
) -> None:
    """A delete would not find its row. The doctor says so as well."""
    flow = flow_of(world, tmp_path, through, tables, **upsert)
    with pytest.raises(SchemaError, match="keep rows that are gone") as refused:
        flow.run(state=tmp_path / "state")
    assert found in str(refused.value.found)
    [read] = flow.plan.reads()
    [standing] = read.source.check(None)  # type: ignore[attr-defined]
    assert standing.status == "failed"
    assert found in standing.found


@pytest.mark.parametrize(
    ("tables", "through", "upsert", "rows"),
    [
        ("other", lambda rows: rows, {"key": ["id", "part"]}, 2),
        ("other", lambda rows: rows.select("_op", "n", k="part || ' ' || id"), {"key": "k"}, 2),
        (SEVERAL, lambda rows: rows.where(OF_T), {"key": "id"}, 5),
        (SEVERAL, lambda rows: rows.where("_table LIKE 'o%'"), {"key": ["id", "part"]}, 2),
        (SEVERAL, lambda rows: rows.select("id", "_op", of="_table").where("of IN ('t')"), {"key": ["of", "id"]}, 5),
    ],
)
def test_a_copy_that_is_keyed_as_its_table_is_taken(
    tables: Any, through: Any, upsert: Any, rows: int, world: World, tmp_path: Path
) -> None:
    flow_of(world, tmp_path, through, tables, **upsert).run(state=tmp_path / "state")
    assert copied(tmp_path, "count(*)") == [(rows,)]
