"""Delta tables as sources: versions in order, changes, and what is lost is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.delta import delta
from onefold.connectors.delta.source import PARTITION, DeltaSource
from onefold.errors import InputLost, SourceError, SourceRefused
from onefold.protocols import Limit
from onefold.types import Position

AMPLE = Limit(1 << 20, 1 << 30)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "table"


def write(place: Path, *rows: tuple[int, str], **given: Any) -> None:
    table = pa.Table.from_pylist([{"id": number, "name": name} for number, name in rows])
    deltalake.write_deltalake(place, table, mode="append", **given)


def opened(place: Path, **given: Any) -> DeltaSource:
    source = delta(place, **given).as_source(None)
    source.open(None)
    return source


def drain(source: DeltaSource, start: Position = None, limit: Limit = AMPLE) -> tuple[list[dict[str, Any]], Position]:
    place = source.partitions()[PARTITION][0] if start is None else start
    rows: list[dict[str, Any]] = []
    while True:
        read = source.read(PARTITION, place, limit, 0.0)
        rows += [row for batch in read.batches for row in batch.to_pylist()]
        place = read.next
        if read.is_idle:
            return rows, place


def told(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["_op"], row["id"], row["name"]) for row in rows]


def test_later_versions_come_after_the_rows_that_are_there(place: Path) -> None:
    write(place, (1, "a"), (2, "b"))
    write(place, (3, "c"))
    source = opened(place)
    rows, position = drain(source)
    assert [row["id"] for row in rows] == [1, 2, 3]
    write(place, (4, "d"))
    deltalake.DeltaTable(place).optimize.compact()
    write(place, (5, "e"))
    rows, _ = drain(opened(place), position)
    assert [(row["id"], row["_version"]) for row in rows] == [(4, 2), (5, 4)], "a compaction adds nothing"


def test_a_flow_may_begin_at_a_version(place: Path) -> None:
    for number in range(4):
        write(place, (number, "x"))
    assert [row["id"] for row in drain(opened(place, from_version=2))[0]] == [2, 3]


def test_a_version_that_takes_rows_back_stops_a_reader_of_appends(place: Path) -> None:
    write(place, (1, "a"), (2, "b"))
    source = opened(place)
    _, position = drain(source)
    deltalake.DeltaTable(place).delete("id = 1")
    with pytest.raises(SourceError, match="changes=True"):
        drain(source, position)


@pytest.mark.parametrize("feed", [True, False])
@pytest.mark.parametrize("limit", [AMPLE, Limit(1, 1 << 30), Limit(2, 1)])
def test_changes_give_the_table_as_it_is(feed: bool, limit: Limit, place: Path) -> None:
    configuration = {"delta.enableChangeDataFeed": "true"} if feed else {}
    write(place, (1, "a"), (2, "b"), (3, "c"), configuration=configuration)
    source = opened(place, changes=True)
    rows, position = drain(source, limit=limit)
    deltalake.DeltaTable(place).delete("id = 1")
    deltalake.DeltaTable(place).update(new_values={"name": "new"}, predicate="id = 2")
    write(place, (4, "d"))
    more, _ = drain(opened(place, changes=True), position, limit)
    table: dict[int, str] = {}
    for op, number, name in told(rows + more):
        if op == "delete":
            table.pop(number, None)
        else:
            table[number] = name
    expected = {row["id"]: row["name"] for row in deltalake.DeltaTable(place).to_pyarrow_table().to_pylist()}
    assert table == expected == {2: "new", 3: "c", 4: "d"}


def test_partition_values_and_added_columns_come_typed(place: Path) -> None:
    rows = pa.table({"id": [1, 2], "day": pa.array(["a/b=c %20", None])})
    deltalake.write_deltalake(place, rows, partition_by=["day"])
    source = opened(place)
    found, position = drain(source)
    assert sorted((row["id"], row["day"]) for row in found) == [(1, "a/b=c %20"), (2, None)]
    later = pa.table({"id": [3], "day": ["x"], "n": pa.array([7], pa.int32())})
    deltalake.write_deltalake(place, later, mode="append", schema_mode="merge")
    found, _ = drain(opened(place), position)
    assert [(row["id"], row["day"], row["n"]) for row in found] == [(3, "x", 7)]
    assert [row["n"] for row in drain(opened(place, from_version=0))[0]] == [None, None, 7]


def test_a_large_file_is_read_in_pieces(place: Path) -> None:
    write(place, *[(number, "x" * 50) for number in range(5000)])
    rows, _ = drain(opened(place), limit=Limit(777, 10_000))
    assert [row["id"] for row in rows] == list(range(5000))


def test_versions_whose_log_was_cleaned_are_lost_by_name(place: Path) -> None:
    for number in range(4):
        write(place, (number, "x"))
    deltalake.DeltaTable(place).create_checkpoint()
    for version in (1, 2):
        (place / "_delta_log" / f"{version:020d}.json").unlink()
    source = opened(place, from_version=1)
    with pytest.raises(InputLost, match="version 1") as caught:
        drain(source)
    assert caught.value.expected == "versions 1 to 3"
    assert drain(source, caught.value.skip.to)[0] == []


def test_files_that_were_vacuumed_are_lost_by_name(place: Path) -> None:
    write(place, (1, "a"))
    source = opened(place)
    position = source.partitions()[PARTITION][0]
    for path in place.glob("*.parquet"):
        path.unlink()
    with pytest.raises(InputLost, match="is gone"):
        drain(source, position)


def test_mapped_columns_are_refused(place: Path) -> None:
    write(place, (1, "a"))
    entry = place / "_delta_log" / f"{0:020d}.json"
    mapped = entry.read_text("utf-8").replace(
        '"configuration":{}', '"configuration":{"delta.columnMapping.mode":"name"}'
    )
    entry.write_text(mapped, "utf-8")
    with pytest.raises(SourceRefused, match="mapped"):
        opened(place)


def test_a_flow_from_table_to_table_is_exact(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, (1, "a"), (2, "b"))

    def run() -> Iterator[dict[str, Any]]:
        flow = of.Flow("copy")
        flow.read(of.delta(source, changes=True)).upsert(of.delta(target, commit_every=0), key="id")
        flow.run(until="drained", state=tmp_path / "state")
        yield from deltalake.DeltaTable(target).to_pyarrow_table().to_pylist()

    assert sorted(row["id"] for row in run()) == [1, 2]
    deltalake.DeltaTable(source).delete("id = 1")
    write(source, (3, "c"))
    assert sorted((row["id"], row["name"]) for row in run()) == [(2, "b"), (3, "c")]


def test_a_flow_that_feeds_itself_is_seen(tmp_path: Path) -> None:
    ours = delta(tmp_path / "t")
    assert ours.as_source(None).sees(ours.as_sink("append", ()).promise.target)
