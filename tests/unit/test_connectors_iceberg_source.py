"""Tables of Iceberg as sources: what later snapshots add, what they change, and what is gone."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import AddSnapshotUpdate

import onefold as of
from onefold.connectors.iceberg import IcebergTable, iceberg
from onefold.errors import InputLost, NotSupported, SourceUnavailable
from onefold.protocols import Limit
from onefold.types import PartitionId

P = PartitionId("0")
AMPLE = Limit(rows=1 << 20, size_bytes=1 << 30)
ALL = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


def properties(folder: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{folder / 'c.sqlite'}", "warehouse": f"file://{folder}/lake"}


def endpoint(folder: Path, **options: Any) -> IcebergTable:
    return iceberg("db.events", properties(folder), **options)


@pytest.fixture
def table(tmp_path: Path) -> Any:
    catalog = load_catalog("default", **properties(tmp_path))
    catalog.create_namespace("db")
    return catalog.create_table("db.events", pa.schema([("n", pa.int64())]))


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


def drain(source: Any, place: Any) -> tuple[list[int], Any]:
    found: list[int] = []
    while True:
        read = source.read(P, place, AMPLE, 0.0)
        found += [n for batch in read.batches for n in batch.column("n").to_pylist()]
        place = read.next
        if read.is_idle:
            return found, place


def opened(folder: Path, **options: Any) -> Any:
    source = endpoint(folder, **options).as_source(None)
    source.open(None)
    return source


def test_a_table_without_snapshots_is_read_when_it_has_one(table: Any, tmp_path: Path) -> None:
    source = opened(tmp_path)
    assert drain(source, {}) == ([], {})
    table.append(numbers(1, 2))
    assert drain(source, {})[0] == [1, 2]


def test_reading_may_begin_behind_a_snapshot(table: Any, tmp_path: Path) -> None:
    table.append(numbers(1))
    first = table.current_snapshot().snapshot_id
    table.append(numbers(2))
    table.append(numbers(3))
    source = opened(tmp_path, from_snapshot=first)
    start, _ = source.partitions()[P]
    assert drain(source, start)[0] == [2, 3]


def test_a_compaction_is_passed_over(table: Any, tmp_path: Path) -> None:
    table.append(numbers(1))
    table.append(numbers(2))
    source = opened(tmp_path)
    _, place = drain(source, {})
    replace(table)
    table.refresh()
    table.append(numbers(3))
    assert drain(source, place)[0] == [3]


def replace(table: Any) -> None:
    """As other engines compact: the same rows in other files, and a snapshot that says so."""
    transaction = table.transaction()
    tasks = list(table.scan().plan_files())
    with transaction.update_snapshot().overwrite() as compaction:
        for task in tasks:
            compaction.delete_data_file(task.file)
        for file in _dataframe_to_data_files(table.metadata, table.scan().to_arrow(), table.io):
            compaction.append_data_file(file)
    changed = []
    for update in transaction._updates:
        if isinstance(update, AddSnapshotUpdate):
            summary = update.snapshot.summary.model_copy(update={"operation": Operation.REPLACE})
            update = AddSnapshotUpdate(snapshot=update.snapshot.model_copy(update={"summary": summary}))
        changed.append(update)
    transaction._updates = tuple(changed)
    transaction.commit_transaction()
    assert table.current_snapshot().summary.operation is Operation.REPLACE


@pytest.mark.parametrize("change", ["delete", "overwrite"])
def test_a_snapshot_that_changes_rows_stops_the_reader_which_names_it(change: str, table: Any, tmp_path: Path) -> None:
    table.append(numbers(1, 2))
    source = opened(tmp_path)
    _, place = drain(source, {})
    if change == "delete":
        table.delete("n = 1")
    else:
        table.overwrite(numbers(7))
    changed = place["done"]
    with pytest.raises(InputLost) as told:
        drain(source, place)
    way = [snapshot for snapshot in table.snapshots() if snapshot.parent_snapshot_id == changed]
    assert str(way[0].snapshot_id) in told.value.summary
    assert told.value.skip is not None
    table.append(numbers(8))
    skipped = told.value.skip.to
    assert drain(source, skipped)[0][-1] == 8


def test_snapshots_that_expired_unread_are_named(table: Any, tmp_path: Path) -> None:
    table.append(numbers(1))
    source = opened(tmp_path)
    _, place = drain(source, {})
    table.append(numbers(2))
    table.append(numbers(3))
    table.maintenance.expire_snapshots().older_than(ALL).commit()
    with pytest.raises(InputLost) as told:
        drain(source, place)
    assert str(place["done"]) in str(told.value)
    assert told.value.skip is not None
    assert told.value.skip.to == {"done": table.refresh().current_snapshot().snapshot_id}


def test_what_was_read_may_expire(table: Any, tmp_path: Path) -> None:
    table.append(numbers(1))
    table.append(numbers(2))
    source = opened(tmp_path)
    _, place = drain(source, {})
    table.maintenance.expire_snapshots().older_than(ALL).commit()
    table.append(numbers(3))
    assert drain(source, place)[0] == [3]


def test_a_table_that_was_made_anew_is_told(table: Any, tmp_path: Path) -> None:
    table.append(numbers(1))
    source = opened(tmp_path)
    _, place = drain(source, {})
    table.catalog.drop_table("db.events")
    table.catalog.create_table("db.events", pa.schema([("n", pa.int64())]))
    with pytest.raises(InputLost):
        drain(source, place)


def test_a_table_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        opened(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_flow_reads_what_another_has_written(tmp_path: Path) -> None:
    made = of.Flow("first")
    given = of.memory(f"{tmp_path}")
    rows = made.read(given, name="given", schema={"n": "BIGINT", "at": "TIMESTAMPTZ", "d": "DECIMAL(18,2)"})
    rows.append(endpoint(tmp_path))
    given.feed([{"n": n, "at": "2024-01-01T00:00:00Z", "d": "1.50"} for n in range(5)])
    made.run(until="drained", state=tmp_path / "first")
    flow = of.Flow("second")
    read = flow.read(endpoint(tmp_path), name="events")
    assert list(read.schema) == ["n", "at", "d"]
    read.where("n > 1").append(of.files(str(tmp_path / "out")))
    flow.run(until="drained", state=tmp_path / "second")
    import duckdb

    assert duckdb.sql(f"SELECT n FROM '{tmp_path}/out/*.parquet' ORDER BY n").fetchall() == [(2,), (3,), (4,)]


def test_a_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotSupported):
        endpoint(tmp_path).as_source(SimpleNamespace(name="json"))  # type: ignore[arg-type]
