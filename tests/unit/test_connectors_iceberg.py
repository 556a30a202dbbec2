"""Tables of Iceberg: other writers, schemas, partitions, what is staged, upkeep, and what lasts."""

from __future__ import annotations

import datetime as dt
import errno
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog

import onefold as of
from onefold import disk
from onefold.connectors.iceberg import IcebergTable, iceberg, sink
from onefold.connectors.iceberg.partitions import parse_partitions
from onefold.connectors.iceberg.sink import IcebergSink
from onefold.connectors.iceberg.types import plain_type
from onefold.errors import (
    BuildError,
    DiskFull,
    FileCorrupt,
    GuaranteeRefused,
    OutcomeUnknown,
    RowsRefused,
    SchemaError,
    SinkRefused,
    SinkUnavailable,
    TokenRefused,
)
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered, token

Bench = Callable[..., SinkBench]


def properties(folder: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{folder / 'c.sqlite'}", "warehouse": f"file://{folder}/lake"}


def endpoint(folder: Path, **options: Any) -> IcebergTable:
    return iceberg("db.t", properties(folder), **options)


def bench_of(folder: Path, *, mode: Any = "append", schema: pa.Schema | None = None, **options: Any) -> SinkBench:
    case = SinkCase("iceberg", lambda at, table, mode, key: endpoint(at, **options).as_sink(mode, key))
    bench = SinkBench(case, folder, mode, ("id",) if mode == "upsert" else ())
    return bench if schema is None else bench.under(schema=schema)


def foreign(folder: Path) -> Any:
    """The table as somebody else loads it."""
    return load_catalog("default", **properties(folder)).load_table("db.t")


def found(bench: SinkBench, instance: Any) -> tuple[list[Any], Any]:
    rows, held = instance.read_back(bench.binding())
    return sorted(rows.to_pylist(), key=str), held


def at(step: str, act: Callable[[], None]) -> None:
    """Do it once, when the step is about to begin."""

    def observe(name: str, moment: str) -> None:
        if (name, moment) == (step, "before"):
            disk.observer = None
            act()

    disk.observer = observe


@pytest.fixture(autouse=True)
def unobserved() -> Any:
    yield
    disk.observer = None


FOREIGN = pa.table({"id": pa.array([77], pa.int64()), "name": ["foreign"]})


# ------------------------------------------------------------------------------------------------------ other writers


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_foreign_append_between_check_and_commit_is_kept_and_so_are_our_rows(mode: str, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, mode=mode)
    instance, _ = bench.instance()
    instance.commit([bench.prepare(instance, 1, numbered(1, 2))], move(0, 1))
    at("iceberg.commit", lambda: foreign(tmp_path).append(FOREIGN))
    instance.commit([bench.prepare(instance, 2, numbered(2 if mode == "upsert" else 3))], move(1, 2))
    rows, held = found(bench, instance)
    assert held == token(2)
    assert sorted(row["id"] for row in rows) == ([1, 2, 77] if mode == "upsert" else [1, 2, 3, 77])


def test_a_foreign_overwrite_between_check_and_commit_is_kept(tmp_path: Path) -> None:
    """What it deleted stays deleted, though our upsert had read those files."""
    bench = bench_of(tmp_path, mode="upsert")
    instance, _ = bench.instance()
    instance.commit([bench.prepare(instance, 1, numbered(1, 2, 3))], move(0, 1))
    at("iceberg.commit", lambda: foreign(tmp_path).delete("id = 3"))
    instance.commit([bench.prepare(instance, 2, [{"id": 2, "name": "new"}])], move(1, 2))
    assert found(bench, instance) == ([{"id": 1, "name": "n1"}, {"id": 2, "name": "new"}], token(2))


def test_a_foreign_compaction_keeps_rows_and_token(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()
    for epoch in (1, 2):
        instance.commit([bench.prepare(instance, epoch, numbered(epoch))], move(epoch - 1, epoch))
    other = foreign(tmp_path)
    other.overwrite(other.scan().to_arrow())
    instance.commit([bench.prepare(instance, 3, numbered(3))], move(2, 3))
    assert ([row["id"] for row in found(bench, instance)[0]], found(bench, instance)[1]) == ([1, 2, 3], token(3))


def test_the_token_outlives_foreign_appends_and_the_expiry_of_every_other_snapshot(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()
    instance.commit([bench.prepare(instance, 1, numbered(1))], move(0, 1))
    other = foreign(tmp_path)
    other.append(FOREIGN)
    other.maintenance.expire_snapshots().older_than(dt.datetime(2100, 1, 1, tzinfo=dt.UTC)).commit()
    assert len(foreign(tmp_path).snapshots()) == 1
    again, held = bench.instance(2)
    assert held == token(1)
    again.commit([bench.prepare(again, 2, numbered(2))], move(1, 2))
    assert [row["id"] for row in found(bench, again)[0]] == [1, 2, 77]


def test_retries_that_a_table_asks_for_are_not_made(tmp_path: Path) -> None:
    """Whatever its property says, a commit that was begun before another opened is refused."""
    bench = bench_of(tmp_path)
    old, _ = bench.instance(1)
    with foreign(tmp_path).transaction() as change:
        change.set_properties({"commit.retry.num-retries": "9"})
    at("iceberg.commit", lambda: bench.instance(2) and None)
    with pytest.raises(TokenRefused):
        old.commit([bench.prepare(old, 1, numbered(1))], move(0, 1))
    assert found(bench, old) == ([], None)


def test_without_the_snapshot_of_opening_a_commit_begun_before_would_land(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A negative control: what the fence is for."""
    bench = bench_of(tmp_path)
    old, _ = bench.instance(1)
    monkeypatch.setattr(sink, "commit", lambda place, demand, build: sink.load(place))
    at("iceberg.commit", lambda: bench.instance(2) and None)
    receipt = bench.prepare(old, 1, numbered(1))
    monkeypatch.undo()
    disk.observer = None

    def open_unfenced() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sink, "commit", lambda place, demand, build: sink.load(place))
            bench.instance(2)

    at("iceberg.commit", open_unfenced)
    old.commit([receipt], move(0, 1))
    assert found(bench, old)[1] == token(1)


# -------------------------------------------------------------------------------------------------- schemas and types


def test_a_missing_column_is_told_before_the_first_row_and_added_where_that_is_wanted(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()
    instance.commit([bench.prepare(instance, 1, numbered(1))], move(0, 1))
    wider = pa.schema([("id", pa.int64()), ("name", pa.string()), ("fee", pa.decimal128(9, 2))])
    with pytest.raises(SchemaError) as told:
        bench_of(tmp_path, schema=wider).instance()
    assert told.value.where["column"] == "fee"
    grown = bench_of(tmp_path, schema=wider, evolve=True)
    instance, held = grown.instance()
    assert held == token(1)
    instance.commit([grown.prepare(instance, 2, [{"id": 2, "name": "b", "fee": Decimal("1.50")}])], move(1, 2))
    rows = found(grown, instance)[0]
    assert rows == [{"id": 1, "name": "n1", "fee": None}, {"id": 2, "name": "b", "fee": Decimal("1.50")}]


def test_a_column_that_others_added_stays_empty_in_our_rows(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()
    with foreign(tmp_path).update_schema() as update:
        from pyiceberg.types import StringType

        update.add_column("note", StringType())
    instance.commit([bench.prepare(instance, 1, numbered(1))], move(0, 1))
    assert foreign(tmp_path).scan().to_arrow().to_pylist() == [{"id": 1, "name": "n1", "note": None}]


def test_a_required_column_refuses_rows_without_it(tmp_path: Path) -> None:
    catalog = load_catalog("default", **properties(tmp_path))
    catalog.create_namespace("db")
    catalog.create_table("db.t", pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())]))
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()
    with pytest.raises(RowsRefused):
        instance.commit([bench.prepare(instance, 1, [{"id": None, "name": "x"}])], move(0, 1))
    instance.commit([bench.prepare(instance, 1, numbered(1))], move(0, 1))
    assert found(bench, instance)[1] == token(1)


@pytest.mark.parametrize("kind", [pa.uint64(), pa.timestamp("ns"), pa.decimal256(60, 2), pa.null(), pa.duration("s")])
def test_a_type_that_would_not_come_back_is_refused(kind: pa.DataType) -> None:
    assert plain_type(kind) is None
    assert plain_type(pa.list_(kind)) is None


def test_a_table_that_is_not_to_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkRefused):
        bench_of(tmp_path, create=False).instance()


@pytest.mark.parametrize("name", ["t", "", "a..b"])
def test_a_name_without_namespace_is_refused(name: str) -> None:
    with pytest.raises(BuildError):
        iceberg(name)


# --------------------------------------------------------------------------------------------------------- partitions

PARTED = pa.schema([("id", pa.int64()), ("name", pa.string()), ("day", pa.timestamp("us")), ("at", pa.date32())])
EVERY = ["day(day)", "bucket(4, id)", "truncate(2, name)", "at"]


@pytest.mark.parametrize("native_bytes", [0, 1 << 30])
def test_rows_stand_in_their_hidden_partitions_staged_or_not(
    native_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", native_bytes)
    bench = bench_of(tmp_path, schema=PARTED, partition_by=EVERY)
    rows = [
        {"id": n or None, "name": f"n{n % 3}xx" if n else None, "day": dt.datetime(2024, 1, 1 + n % 2), "at": None}  # noqa: DTZ001
        for n in range(12)
    ]
    instance, _ = bench.instance()
    instance.commit([bench.prepare(instance, 1, rows)], move(0, 1))
    assert found(bench, instance)[0] == sorted(rows, key=str)
    other = foreign(tmp_path)
    assert [str(field.transform) for field in other.spec().fields] == ["day", "bucket[4]", "truncate[2]", "identity"]
    chosen = other.scan("id = 7 and day >= '2024-01-02T00:00:00'")
    assert [row["id"] for row in chosen.to_arrow().to_pylist()] == [7]
    assert len(list(chosen.plan_files())) < len(list(other.scan().plan_files()))
    assert all(pq.ParquetFile(Path(task.file.file_path[7:])).schema_arrow for task in other.scan().plan_files())


def test_rows_that_were_staged_before_the_partitioning_changed_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", 0)
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()
    receipt = bench.prepare(instance, 1, numbered(1, 2, 3))
    with foreign(tmp_path).update_spec() as spec:
        spec.add_identity("name")
    instance.commit([receipt], move(0, 1))
    assert [row["id"] for row in found(bench, instance)[0]] == [1, 2, 3]
    assert len(list(foreign(tmp_path).scan("name = 'n2'").plan_files())) == 1


def test_another_partitioning_than_the_table_has_is_refused(tmp_path: Path) -> None:
    bench_of(tmp_path, partition_by="name").instance()
    with pytest.raises(SchemaError):
        bench_of(tmp_path, partition_by="bucket(2, id)").instance()
    bench_of(tmp_path).instance()


@pytest.mark.parametrize("text", ["bucket(id)", "day(3, x)", "week(x)", "truncate(0, x)"])
def test_a_partitioning_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(BuildError):
        parse_partitions([text])


# ------------------------------------------------------------------------------------------------- staged, and lasting


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_staged_file_that_is_not_there_as_it_was_written_is_not_committed(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", 0)
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()
    receipt = bench.prepare(instance, 1, numbered(1))
    [staged] = (tmp_path / "lake" / "db" / "t" / "onefold").rglob("*.parquet")
    body = staged.read_bytes()
    staged.unlink()
    if damage == "short":
        staged.write_bytes(body[:-1])
    with pytest.raises(FileCorrupt):
        instance.commit([receipt], move(0, 1))
    assert found(bench, instance) == ([], None)
    staged.write_bytes(body)
    instance.commit([receipt], move(0, 1))
    assert found(bench, instance)[1] == token(1)


@pytest.mark.parametrize("step", ["iceberg.stage", "iceberg.manifest", "iceberg.metadata", "iceberg.rows"])
def test_a_full_disk_writes_nothing_and_is_got_over(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", 0 if step == "iceberg.stage" else 1 << 30)
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the lake")

    at(step, full)
    with pytest.raises((SinkUnavailable, OutcomeUnknown, DiskFull)):
        instance.commit([bench.prepare(instance, 1, numbered(1))], move(0, 1))
    instance.close()
    assert instance.open(bench.binding()) is None
    instance.commit([bench.prepare(instance, 1, numbered(1))], move(0, 1))
    assert found(bench, instance)[0] == numbered(1)


def test_every_file_and_folder_of_a_commit_is_synced_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A negative control stands beside it: pyiceberg alone syncs nothing."""
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()
    synced: list[Path] = []
    whole = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    before = set((tmp_path / "lake").rglob("*"))
    instance.commit([bench.prepare(instance, 1, numbered(1))], move(0, 1))
    made = {path for path in (tmp_path / "lake").rglob("*") if path not in before}
    assert {path.suffix for path in made} == {".avro", ".json", ".parquet"}
    assert made <= set(synced)
    assert {path.parent for path in made} | {tmp_path} <= set(synced)
    synced.clear()
    foreign(tmp_path).append(FOREIGN)
    assert not [path for path in synced if path.is_relative_to(tmp_path / "lake")]


def test_sqlite_itself_syncs_the_catalog_when_it_commits(tmp_path: Path) -> None:
    bench_of(tmp_path).instance()
    catalog: Any = load_catalog("default", **properties(tmp_path))
    with catalog.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_appends_commit_together_and_upserts_do_not(tmp_path: Path) -> None:
    flow = of.Flow("f", commit="together")
    rows = flow.read(of.memory("in"), schema={"id": "BIGINT"})
    rows.append(endpoint(tmp_path))
    with pytest.raises(GuaranteeRefused):
        rows.upsert(iceberg("db.other", properties(tmp_path)), key="id")


# ------------------------------------------------------------------------------------------------------------- upkeep


def test_upkeep_expires_snapshots_and_removes_what_nothing_names_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", 0)
    bench = bench_of(tmp_path, mode="upsert", retention=0)
    instance, _ = bench.instance()
    for epoch in range(1, 6):
        rows = [{"id": 1, "name": str(epoch)}, {"id": epoch + 10, "name": "x"}]
        instance.commit([bench.prepare(instance, epoch, rows)], move(epoch - 1, epoch))
    before = found(bench, instance)
    lake = tmp_path / "lake" / "db" / "t"
    (lake / "data" / "onefold-left.parquet").write_bytes(b"x")
    (lake / "data" / "theirs.parquet").write_bytes(b"x")
    upkeep: Any = instance
    dry = upkeep.maintain(bench.binding(), is_dry=True)
    assert (lake / "data" / "onefold-left.parquet").exists()
    assert len(foreign(tmp_path).snapshots()) == 6
    done = upkeep.maintain(bench.binding(), is_dry=False)
    assert dry[0] == done[0]
    assert len(foreign(tmp_path).snapshots()) == 1
    assert found(bench, instance) == before
    named = {Path(task.file.file_path[7:]) for task in foreign(tmp_path).scan().plan_files()}
    assert set((lake / "data").iterdir()) == {*named, lake / "data" / "theirs.parquet"}
    instance.commit([bench.prepare(instance, 6, numbered(9))], move(5, 6))
    assert found(bench, instance)[1] == token(6)


def test_upkeep_leaves_rows_that_wait_for_their_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", 0)
    bench = bench_of(tmp_path, retention=0)
    instance, _ = bench.instance()
    first = bench.prepare(instance, 1, numbered(1))
    second = bench.prepare(instance, 2, numbered(2))
    again = bench_of(tmp_path, retention=0).instance(2)[0]
    stale = bench.prepare(again, 1, numbered(1))
    again.commit([first], move(0, 1))
    upkeep: Any = again
    upkeep.maintain(bench.binding(2), is_dry=False)
    lake = tmp_path / "lake" / "db" / "t"
    assert (lake / second.detail["files"][0]["path"]).exists()
    assert (lake / first.detail["files"][0]["path"]).exists()
    assert not (lake / stale.detail["files"][0]["path"]).exists()
    again.commit([second], move(1, 2))
    assert [row["id"] for row in found(bench, again)[0]] == [1, 2]


def test_upkeep_of_a_day_keeps_what_is_younger(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    instance, _ = bench.instance()
    instance.commit([bench.prepare(instance, 1, numbered(1))], move(0, 1))
    files = set((tmp_path / "lake").rglob("*"))
    upkeep: Any = instance
    upkeep.maintain(bench.binding(), is_dry=False)
    assert len(foreign(tmp_path).snapshots()) == 2
    assert set((tmp_path / "lake").rglob("*")) == files


def test_doctor_looks_and_writes_nothing(tmp_path: Path) -> None:
    looked = endpoint(tmp_path).as_sink("append", ())
    assert [result.status for result in looked.check(None)] == ["ok"]
    assert not list(tmp_path.iterdir())
    lost = iceberg("db.t", {"type": "rest", "uri": "http://127.0.0.1:9"}).as_sink("append", ())
    assert [result.status for result in lost.check(None)] == ["failed"]
    bench = bench_of(tmp_path)
    bench.instance()
    snapshots = foreign(tmp_path).snapshots()
    assert [result.status for result in looked.check(bench.binding())] == ["ok"]
    assert foreign(tmp_path).snapshots() == snapshots
    assert isinstance(looked, IcebergSink)
