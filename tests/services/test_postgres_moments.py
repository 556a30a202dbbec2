"""Dates and timestamps at the ends of what there is: written exactly, or refused before anything is sealed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.postgres.copying import copy_in
from onefold.connectors.postgres.limits import storable
from onefold.engines.embedded.deadletters import dead_letters
from onefold.errors import RowsRefused
from tests.services.postgres_flows import VARIABLE, rows, schema_of, table


@pytest.fixture
def sql(database: str, tmp_path: Path) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema_of(tmp_path)}")
        connection.execute(f"SET search_path TO {schema_of(tmp_path)}")
        yield connection


def read(flow: of.Flow, folder: Path, value: str, kind: str = "TIMESTAMP") -> Any:
    """Two rows: the value, as `v`, and NULL."""
    (folder / "in").mkdir(exist_ok=True)
    records = [{"id": 1, "v": value}, {"id": 2, "v": None}]
    (folder / "in" / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    stream = flow.read(of.files(str(folder / "in" / "*.jsonl")), schema={"id": "BIGINT", "v": "VARCHAR"}, name="in")
    return stream.select("id", v=f"CAST(v AS {kind})")


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "DATE", "TIMESTAMP_MS", "TIMESTAMP_S"])
@pytest.mark.parametrize("value", ["infinity", "-infinity", "4713-01-01 (BC)", "1969-12-31", "9999-12-31"])
@pytest.mark.usefixtures("sql")
def test_moments_are_stored_as_what_they_are(kind: str, value: str, tmp_path: Path) -> None:
    flow = of.Flow("moments")
    read(flow, tmp_path, value, kind).append(table(tmp_path, "t"))
    flow.run(state=tmp_path / "state", until="drained")
    stored = f"'{value.replace('(', '').replace(')', '')}'::timestamp"
    assert rows(tmp_path, f"SELECT v::timestamp = {stored}, v::text FROM t WHERE id = 1")[0][0]
    assert rows(tmp_path, "SELECT v FROM t WHERE id = 2") == [(None,)]


def test_moments_in_lists_are_stored_or_refused(sql: Any) -> None:
    kind = pa.list_(pa.timestamp("us"))
    sql.execute("CREATE TABLE t (v timestamp[])")
    copy_in(sql, "t", pa.table({"v": pa.array([None, [], [0, None], [86_400_000_000]], kind)}).slice(1))
    found = [text for (text,) in sql.execute("SELECT v::text FROM t").fetchall()]
    assert found == ["{}", '{"1970-01-01 00:00:00",NULL}', '{"1970-01-02 00:00:00"}']
    with pytest.raises(RowsRefused, match="cannot keep a date") as refused:
        copy_in(sql, "t", pa.table({"v": pa.array([[0], None, [0, 2**63 - 1]], kind)}))
    assert refused.value.where["row"] == 2


@pytest.mark.parametrize(
    ("kind", "value"),
    [("TIMESTAMP", "290309-12-22 (BC) 00:00:00"), ("DATE", "10000-01-01 (BC)"), ("DATE", "5877641-06-23 (BC)")],
)
@pytest.mark.usefixtures("sql")
def test_what_postgresql_does_not_have_is_refused_before_it_is_sealed(kind: str, value: str, tmp_path: Path) -> None:
    flow = of.Flow("moments")
    read(flow, tmp_path, value, kind).append(table(tmp_path, "t"))
    with pytest.raises(RowsRefused, match="cannot keep a date") as refused:
        flow.run(state=tmp_path / "state", until="drained")
    assert (refused.value.where["column"], refused.value.where["row"]) == ("v", 0)
    assert flow.status(state=tmp_path / "state").epoch == 0


@pytest.mark.usefixtures("sql")
def test_a_text_with_a_zero_in_it_is_refused_before_it_is_sealed(tmp_path: Path) -> None:
    flow = of.Flow("texts")
    read(flow, tmp_path, "a", "VARCHAR").select("id", v="v || chr(0)").append(table(tmp_path, "t"))
    with pytest.raises(RowsRefused, match="cannot keep a text") as refused:
        flow.run(state=tmp_path / "state", until="drained")
    assert (refused.value.where["column"], refused.value.where["row"]) == ("v", 0)
    assert flow.status(state=tmp_path / "state").epoch == 0


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.list_(pa.string())], ids=str)
def test_a_zero_is_found_in_the_rows_that_are_given_and_no_others(kind: Any) -> None:
    texts = ["a\0", "b", None, "c", "d\0"]
    values = [None if text is None else [text] for text in texts] if pa.types.is_list(kind) else texts
    batch = pa.record_batch({"v": pa.array(values, kind)})
    assert storable(batch.slice(1, 3), "t", None).num_rows == 3
    for place, part in ((0, batch), (3, batch.slice(1))):
        with pytest.raises(RowsRefused) as refused:
            storable(part, "t", None)
        assert refused.value.where["row"] == place


@pytest.mark.parametrize("refused", ["stop", "dead-letter"])
def test_together_nothing_stays_prepared(refused: Any, tmp_path: Path, sql: Any) -> None:
    flow = of.Flow("moments", commit="together")
    stream = read(flow, tmp_path, "10000-01-01 (BC)")
    stream.select("id").append(table(tmp_path, "first"))
    other = of.postgres(f"${{{VARIABLE}}}", tokens=f"{schema_of(tmp_path)} others")
    stream.append(other.table("t", schema=schema_of(tmp_path), create=True), refused=refused)
    if refused == "stop":
        with pytest.raises(RowsRefused, match="cannot keep a date"):
            flow.run(state=tmp_path / "state", until="drained")
    else:
        flow.run(state=tmp_path / "state", until="drained")
        assert rows(tmp_path, "SELECT id, v FROM t") == [(2, None)]
        letters, _ = dead_letters(tmp_path / "state" / "moments", limit=9)
        assert [json.loads(letter.raw)["id"] for letter in letters] == [1]
    assert sql.execute("SELECT gid FROM pg_prepared_xacts WHERE gid LIKE '%moments%'").fetchall() == []
