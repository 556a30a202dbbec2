"""A copy that is made of changes holds the rows that match now; a history holds what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.errors import NotSupported
from onefold.plan import WhereNode
from onefold.protocols import Copy
from tests.unit.flow_fakes import Fake, FakeSource

SCHEMA = {"id": "BIGINT", "n": "BIGINT", "tags": "VARCHAR[]", "_op": "VARCHAR"}
EVERY = (1, 2, 3, 7)


class Changes(Fake):
    """An endpoint whose source knows the keys of its rows."""

    def as_source(self, format: object) -> Any:  # noqa: A002 - the protocol's word
        source = super().as_source(None)
        meta = pa.schema([("_table", pa.string()), ("_lsn", pa.int64())])
        return Knowing(type(source.promise)(True, True, "rows", meta, "an error"))


class Knowing(FakeSource):
    """It remembers what it was told."""

    copies: Sequence[Copy] = ()

    def copied(self, copies: Sequence[Copy]) -> None:
        self.copies = copies


@pytest.fixture
def flow() -> of.Flow:
    return of.Flow("changes")


@pytest.fixture
def changes(flow: of.Flow) -> of.Stream:
    return flow.read(Changes("in"), SCHEMA, meta=["_table", "_lsn"])


def copy(name: str = "copy") -> Any:
    return Fake(name, deletes=True)


def up(number: int, n: int | None, *, table: str = "t", lsn: int = 1) -> dict[str, Any]:
    return {"id": number, "n": n, "tags": ["a"], "_op": "upsert", "_table": table, "_lsn": lsn}


def gone(number: int, *, table: str = "t", lsn: int = 1) -> dict[str, Any]:
    return {"id": number, "n": None, "tags": None, "_op": "delete", "_table": table, "_lsn": lsn}


def copied(flow: of.Flow, *rows: dict[str, Any], epoch_rows: int | None = None) -> dict[int, Any]:
    """What the copy holds of n, by id."""
    with of.testing.run(flow, epoch_rows=epoch_rows) as running:
        running.feed("in", rows)
        running.drain()
        return {row["id"]: row["n"] for row in running.rows("copy")}


@pytest.mark.parametrize("epoch_rows", [1, 2, None])
@pytest.mark.parametrize("condition", ["n > 0", "n > 0 AND _op <> 'nothing'", "id > 0 AND n > 0 AND id < 99"])
def test_a_copy_holds_the_rows_that_match_now(
    flow: of.Flow, changes: of.Stream, condition: str, epoch_rows: int | None
) -> None:
    """A delete names its key alone; an update may leave the condition, or come into it."""
    changes.where(condition).select("id", "n", "_op").upsert(copy(), key="id")
    rows = [*(up(number, 1) for number in EVERY), up(4, -4), gone(2), up(3, -3), up(4, 4), up(7, -1), up(7, 8)]
    assert copied(flow, *rows, epoch_rows=epoch_rows) == {1: 1, 4: 4, 7: 8}


def test_what_is_computed_of_values_filters_as_they_do(flow: of.Flow, changes: of.Stream) -> None:
    stream = changes.select("_op", "n", number_="id", is_big="n > 5").where("is_big")
    stream.select("n", "_op", id="number_").upsert(copy(), key="id")
    assert copied(flow, up(1, 6), up(2, 7), up(3, 1), up(1, 1), gone(2), up(4, 9)) == {4: 9}


def test_rows_of_another_table_are_dropped_and_delete_nothing(flow: of.Flow, changes: of.Stream) -> None:
    changes.where("_table = 't'").where("n > 0").upsert(copy(), key="id")
    assert copied(flow, up(1, 1), up(2, 2), gone(1, table="other"), up(2, -1, table="other")) == {1: 1, 2: 2}


def test_a_condition_over_the_key_drops_rows(flow: of.Flow, changes: of.Stream) -> None:
    """Rows that it keeps out may be another sink's."""
    changes.where("id % 2 = 0").upsert(copy(), key="id")
    [where] = [node for node in flow.plan.nodes if isinstance(node, WhereNode)]
    assert (where.predicate, where.stays) == ("((id % 2) = 0)", "")
    assert copied(flow, up(1, 1), up(2, 2), up(4, 4), gone(4), gone(3)) == {2: 2}


def test_deletes_can_be_left_out_knowingly(flow: of.Flow, changes: of.Stream) -> None:
    changes.where("_op <> 'delete'").select("id", "n").upsert(copy(), key="id")
    assert copied(flow, up(1, 1), gone(1), up(2, 2)) == {1: 1, 2: 2}


def test_a_history_is_filtered_like_any_stream(flow: of.Flow, changes: of.Stream) -> None:
    changes.where("n > 0").select("id", "n", what="_op").append(Fake("copy"))
    changes.where("n > 1").select("id", "n", "_lsn").upsert(Fake("keyed"), key=["id", "_lsn"])
    with of.testing.run(flow) as running:
        running.feed("in", [up(1, 1), up(1, -1), up(2, 2, lsn=2), gone(1)])
        running.drain()
        assert [(row["id"], row["what"]) for row in running.rows("copy")] == [(1, "upsert"), (2, "upsert")]
        assert [(row["id"], row["_lsn"]) for row in running.rows("keyed")] == [(2, 2)]


def test_rows_that_become_deletes_are_in_the_books_and_in_what_explain_says(
    flow: of.Flow, changes: of.Stream, tmp_path: Any
) -> None:
    made = of.Flow("books", epoch_rows=2)
    fed = of.memory(
        f"books {tmp_path}", schema=pa.schema([("id", pa.int64()), ("n", pa.int64()), ("_op", pa.string())])
    )
    fed.feed([{"id": 1, "n": 1, "_op": "upsert"}, {"id": 2, "n": 0, "_op": "upsert"}, {"id": 1, "_op": "delete"}])
    kept = made.read(fed, {"id": "BIGINT", "n": "BIGINT", "_op": "VARCHAR"}, name="in").where("n > 0", name="kept")
    kept.upsert(of.memory(f"out {tmp_path}"), key="id", name="out")
    made.run(state=tmp_path / "state")
    totals = made.status(state=tmp_path / "state").totals
    assert totals["operators"]["kept"] == {"kind": "step", "read": 3, "created": 0, "out": 3, "filtered": 0}
    assert (totals["sinks"]["out"]["upserted"], totals["sinks"]["out"]["deleted"]) == (1, 2)
    assert "rows without (n > 0) are deleted from it" in made.explain().verdicts[0].reason


REFUSED: dict[str, Callable[[of.Stream], object]] = {
    "mixes what a row holds": lambda rows: rows.where("_table = 'a' OR n > 0").upsert(copy(), key="id"),
    "explode": lambda rows: rows.explode("tags").upsert(copy(), key=["id", "tags"]),
    "deleted though it matches": lambda rows: rows.where("n > 5").union(rows.where("n < 0")).upsert(copy(), key="id"),
    "deletes would become rows": lambda rows: rows.select("id", "n").upsert(copy(), key="id"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_flow_that_would_make_a_wrong_copy_is_refused_when_it_is_built(
    flow: of.Flow, changes: of.Stream, reason: str
) -> None:
    with pytest.raises(NotSupported, match=reason):
        REFUSED[reason](changes)
    changes.upsert(copy(), key="id")
    assert [output.name for output in flow.plan.outputs] == ["copy"]


def test_deletes_without_an_event_time_cannot_be_read_by_it(flow: of.Flow) -> None:
    rows = flow.read(Changes("in"), {**SCHEMA, "at": "TIMESTAMP"}, event_time="at")
    with pytest.raises(NotSupported, match="dead letters"):
        rows.upsert(copy(), key="id")
    rows.upsert(copy(), key=["id", "at"])


def test_one_condition_cannot_serve_a_copy_and_a_history(flow: of.Flow, changes: of.Stream) -> None:
    big = changes.where("n > 0")
    big.upsert(copy(), key="id")
    with pytest.raises(NotSupported, match="cannot serve"):
        big.select("id", what="_op").append(Fake("history"))
    with pytest.raises(NotSupported, match="cannot serve"):
        big.upsert(copy("other"), key=["id", "n"])
    changes.where("n > 0").select("id", what="_op").append(Fake("history"))
    assert len(flow.plan.outputs) == 2


def test_tables_may_be_joined_to_one_copy(flow: of.Flow, changes: of.Stream) -> None:
    """Conditions that drop rows delete nothing."""
    changes.where("_table = 'a'").union(changes.where("_table = 'b'")).upsert(copy(), key=["_table", "id"])
    assert copied(flow, up(1, 1, table="a"), up(2, 2, table="b"), up(3, 3, table="c"), gone(1, table="b")) == {
        1: 1,
        2: 2,
    }


def test_a_source_is_told_what_its_copies_are_keyed_by(flow: of.Flow, changes: of.Stream) -> None:
    one = changes.where("_table IN ('a', 'b')").where("_table = 'a' AND n > 0")
    one.select("_op", "n", key="id::VARCHAR").upsert(copy(), key="key", latest_by="n")
    changes.where("_table LIKE 'x%'").upsert(copy("other"), key=["_table", "n"])
    changes.map(lambda rows: rows, schema={"made": "BIGINT", "_op": "VARCHAR"}).upsert(copy("mapped"), key="made")
    changes.select("id", what="_op").append(Fake("history"))
    [read] = flow.plan.reads()
    assert isinstance(read.source, Knowing)
    assert read.source.copies == [
        Copy("copy", frozenset({"id"}), frozenset({"n"}), {"_table": frozenset({"a"})}),
        Copy("other", frozenset({"_table", "n"}), is_narrowed=True),
    ]
