"""Delta tables: types, partitions, columns, what is refused, and how they are looked after."""

from __future__ import annotations

import datetime as dt
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from onefold.connectors.delta import delta, sink
from onefold.errors import (
    NotSupported,
    RowsRefused,
    SchemaError,
    SinkRefused,
    SinkUnavailable,
    TokenRefused,
)
from onefold.testing.contract_case import SinkBench, move, numbered, token
from onefold.types import TokenMove
from tests.unit.delta_bench import CASE, OLD, Between, bench, foreign, options, place, staging, upserts

__all__ = ["bench", "staging", "upserts"]

# ---------------------------------------------------------------------------------------------------- tables and rows

NESTED = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.struct([("c", pa.decimal128(10, 2))])))])
WIDE = pa.schema(
    [
        ("id", pa.int64()),
        ("amount", pa.decimal128(38, 10)),
        ("plain", pa.timestamp("us")),
        ("zoned", pa.timestamp("us", "UTC")),
        ("day", pa.date32()),
        ("nested", NESTED),
        ("tags", pa.map_(pa.string(), pa.list_(pa.int64()))),
        ("small", pa.uint8()),
        ("text", pa.dictionary(pa.int32(), pa.string())),
    ]
)


def wide_rows() -> list[dict[str, Any]]:
    moment = dt.datetime(1901, 12, 13, 20, 45, 51, 999999)  # noqa: DTZ001
    full = {
        "id": 1,
        "amount": Decimal("12345678901234567890123456.0123456789"),
        "plain": moment,
        "zoned": moment.replace(tzinfo=dt.UTC),
        "day": dt.date(1, 1, 1),
        "nested": {"a": None, "b": [{"c": Decimal("1.20")}, None]},
        "tags": [("k", [1, None]), ("l", None)],
        "small": 255,
        "text": "ü",
    }
    return [full, dict.fromkeys(WIDE.names, None) | {"id": 2}]


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("is_staged", [True, False])
def test_every_type_comes_back_as_it_was(
    mode: Any, is_staged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_staged:
        monkeypatch.setattr(sink, "NATIVE_BYTES", 0)
    bench = SinkBench(CASE, tmp_path, mode, ("id",) if mode == "upsert" else (), schema=WIDE)
    ours, _ = bench.instance()
    ours.commit([bench.prepare(ours, 1, wide_rows())], move(0, 1))
    ours.commit([bench.prepare(ours, 2, [])], move(1, 2))
    assert sorted(bench.look()[0], key=lambda row: row["id"]) == wide_rows()
    scanned = pa.table(deltalake.DeltaTable(place(bench)).scan()).to_pylist()
    assert sorted(scanned, key=lambda row: row["id"]) == wide_rows()


def test_readers_pass_over_files_by_true_bounds(bench: SinkBench) -> None:
    schema = pa.schema([("id", pa.int64()), ("at", pa.timestamp("us")), ("text", pa.string()), ("day", pa.date32())])
    wide = bench.under(schema=schema)
    ours, _ = wide.instance()
    for epoch in (1, 2, 3):
        moment = dt.datetime(2024, 1, epoch, 12, 0, 0, 5)  # noqa: DTZ001
        rows = [{"id": epoch, "at": moment, "text": f"t{epoch}", "day": moment.date()}, {"id": None}]
        ours.commit([wide.prepare(ours, epoch, rows)], move(epoch - 1, epoch))
    table = deltalake.DeltaTable(place(bench))
    for predicate in ("id = 2", "at = '2024-01-02T12:00:00.000005'", "text = 't2'", "day = '2024-01-02'"):
        assert len(table.file_uris(file_pruning_predicate=predicate)) == 1, predicate
        assert pa.table(table.scan(predicate=predicate)).num_rows == 1, predicate


def test_a_table_is_partitioned_as_the_flow_says(bench: SinkBench) -> None:
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("day", pa.date32()), ("yes", pa.bool_())])
    parted = options(bench.under(schema=schema), partition_by=["text", "day", "yes"])
    ours, _ = parted.instance()
    rows: list[dict[str, Any]] = [
        {"id": 1, "text": "a/b=c %20 ü", "day": dt.date(2024, 2, 29), "yes": True},
        {"id": 2, "text": None, "day": None, "yes": None},
        {"id": 3, "text": "a/b=c %20 ü", "day": dt.date(2024, 2, 29), "yes": True},
        {"id": 4, "text": "NULL", "day": dt.date(1, 1, 1), "yes": False},
    ]
    ours.commit([parted.prepare(ours, 1, rows)], move(0, 1))
    assert sorted(parted.look()[0], key=lambda row: row["id"]) == rows
    scanned = pa.table(deltalake.DeltaTable(place(bench)).scan()).select(schema.names).to_pylist()
    assert sorted(scanned, key=lambda row: row["id"]) == rows
    assert len(deltalake.DeltaTable(place(bench)).file_uris()) == 3
    with pytest.raises(RowsRefused):
        parted.prepare(ours, 2, [{"id": 5, "text": ""}])


@pytest.mark.parametrize("column", ["amount", "nested", "plain", "none"])
def test_a_partition_that_a_path_cannot_say_is_refused(column: str, bench: SinkBench) -> None:
    with pytest.raises(SchemaError, match=column):
        options(bench.under(schema=WIDE), partition_by=column).instance()


def test_other_partitions_than_the_table_has_are_refused(bench: SinkBench) -> None:
    bench.instance()
    with pytest.raises(NotSupported, match="partitioned otherwise"):
        options(bench, partition_by="name").instance()


def test_a_new_column_is_added_when_it_may_be(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    more = bench.under(schema=pa.schema([*bench.schema, ("at", pa.timestamp("us", "UTC")), ("n", pa.list_(pa.int8()))]))
    with pytest.raises(SchemaError, match="evolve=True"):
        more.instance(2)
    evolving = options(more, evolve=True)
    later, found = evolving.instance(3)
    assert found == token(1)
    later.commit([evolving.prepare(later, 2, [{"id": 2, "name": "x", "n": [1]}])], move(1, 2))
    rows = sorted(evolving.look()[0], key=lambda row: row["id"])
    assert [row["n"] for row in rows] == [None, [1]]
    fewer, _ = bench.instance(4)
    fewer.commit([bench.prepare(fewer, 3, numbered(3))], move(2, 3))
    assert bench.ids() == [1, 2, 3]


def test_a_time_without_zone_is_added_to_a_table_that_knew_none(bench: SinkBench) -> None:
    bench.instance()
    evolving = options(bench.under(schema=pa.schema([*bench.schema, ("at", pa.timestamp("us"))])), evolve=True)
    ours, _ = evolving.instance(2)
    moment = dt.datetime(2024, 1, 1)  # noqa: DTZ001
    ours.commit([evolving.prepare(ours, 1, [{"id": 1, "at": moment}])], move(0, 1))
    assert evolving.look()[0] == [{"id": 1, "name": None, "at": moment}]


@pytest.mark.parametrize(
    ("configuration", "mode"),
    [
        ({"delta.setTransactionRetentionDuration": "interval 1 day"}, "append"),
        ({"delta.appendOnly": "true"}, "upsert"),
    ],
)
def test_tables_that_cannot_keep_the_promise_are_refused(
    configuration: dict[str, str], mode: Any, tmp_path: Path
) -> None:
    bench = SinkBench(CASE, tmp_path, mode, ("id",) if mode == "upsert" else ())
    deltalake.DeltaTable.create(place(bench), bench.schema, configuration=configuration)
    with pytest.raises(SinkRefused, match="cannot be written"):
        bench.instance()


def test_constraints_are_not_passed_by(bench: SinkBench) -> None:
    deltalake.DeltaTable.create(place(bench), bench.schema).alter.add_constraint({"positive": "id > 0"})
    with pytest.raises(SinkRefused, match="constraints"):
        bench.instance()


def test_a_column_that_must_have_a_value_is_asked_before_the_seal(bench: SinkBench) -> None:
    required = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])
    deltalake.DeltaTable.create(place(bench), required)
    ours, _ = bench.instance()
    with pytest.raises(RowsRefused, match="must have a value"):
        bench.prepare(ours, 1, [{"id": None, "name": "x"}])


def test_a_key_of_floating_point_is_refused(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.float64()), ("name", pa.string())])
    with pytest.raises(SchemaError, match="cannot be a key"):
        SinkBench(CASE, tmp_path, "upsert", ("id",), schema=schema).instance()


def test_a_merge_that_changes_nothing_moves_the_token(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("name", pa.string()), ("_op", pa.string())])
    bench = SinkBench(CASE, tmp_path, "upsert", ("id",), schema=schema)
    ours, _ = bench.instance()
    ours.commit([bench.prepare(ours, 1, [{"id": 9, "name": None, "_op": "delete"}])], move(0, 1))
    assert bench.look() == ([], token(1))


def test_a_table_that_is_gone_is_not_taken_for_one_that_is_empty(bench: SinkBench) -> None:
    import shutil

    ours, _ = bench.instance()
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    shutil.rmtree(place(bench))
    with pytest.raises(SinkUnavailable, match="gone"):
        ours.commit([bench.prepare(ours, 2, numbered(2))], move(1, 2))
    assert ours.promise.rows_outlive_token, "so a token that is gone ends the run"
    with pytest.raises(SinkRefused, match="not there"):
        options(bench, create=False).instance(2)


def test_merges_are_refused_where_everything_commits_together(upserts: SinkBench) -> None:
    from dataclasses import replace

    ours = CASE.make(upserts.folder, upserts.table, "upsert", ("id",))
    assert not ours.promise.can_prepare_together
    with pytest.raises(NotSupported, match="merge can lose"):
        ours.open(replace(upserts.binding(), is_together=True))


# -------------------------------------------------------------------------------------------------------- looked after


def aged(bench: SinkBench) -> None:
    """Every file of the table is old."""
    for path in Path(place(bench)).rglob("*.parquet"):
        if "_delta_log" not in path.parts:
            os.utime(path, (OLD, OLD))


def done(bench: SinkBench, *, is_dry: bool = False) -> dict[str, str]:
    maintainer: Any = CASE.make(bench.folder, bench.table, bench.mode, bench.key)
    return {one.what: one.found for one in maintainer.maintain(bench.binding(), is_dry=is_dry)}


@pytest.mark.usefixtures("staging")
def test_maintenance_takes_leftovers_and_never_what_waits_or_is_named(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    for epoch in range(1, 15):
        ours.commit([bench.prepare(ours, epoch, numbered(epoch))], move(epoch - 1, epoch))
    waiting = bench.prepare(ours, 15, numbered(15))
    area = Path(place(bench)) / Path(waiting.detail["files"][0][0]).parent
    leftover = area / Path(waiting.detail["files"][0][0]).name.replace(f"{15:020d}", f"{7:020d}", 1)
    leftover.write_bytes(b"left over")
    other = Path(place(bench)) / "onefold" / "another.0.sink" / f"{0:020d}" / leftover.name
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another sink")
    aged(bench)
    assert done(bench, is_dry=True).keys() == {"to compact", "to remove"}
    assert leftover.exists()
    found = done(bench)
    assert found["compacted"] == "14 files into 1"
    assert (leftover.exists(), other.exists()) == (False, True)
    assert bench.ids() == list(range(1, 15))
    assert bench.look()[1] == token(14)
    ours.commit([waiting], move(14, 15))
    assert bench.ids() == list(range(1, 16))
    versions = deltalake.DeltaTable(place(bench)).version()
    before = deltalake.DeltaTable(place(bench), version=versions - 2).to_pyarrow_table()
    assert before.num_rows == 14, "a reader of an older version still finds its files"


def test_a_compaction_between_check_and_commit_is_no_conflict_of_appends(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    for epoch in range(1, 13):
        ours.commit([bench.prepare(ours, epoch, numbered(epoch))], move(epoch - 1, epoch))
    with Between("delta.commit", lambda: done(bench)):
        ours.commit([bench.prepare(ours, 13, numbered(13))], move(12, 13))
    assert (bench.ids(), bench.look()[1]) == (list(range(1, 14)), token(13))


def test_secrets_are_in_no_label_and_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAKE_SECRET", "s3cr3t")
    endpoint = delta(
        "s3://bucket/${TABLE}",
        storage_options={"AWS_SECRET_ACCESS_KEY": "${LAKE_SECRET}", "AWS_ACCESS_KEY_ID": "me"},
    )
    ours = endpoint.as_sink("append", ())
    assert (endpoint.label, endpoint.default_name) == ("delta(s3://bucket/${TABLE})", "bucket")
    assert ours.promise.target == "delta:s3://bucket/${TABLE}"
    monkeypatch.setenv("TABLE", "t")
    assert ours.promise.target == "delta:s3://bucket/t"
    assert "s3cr3t" not in repr(endpoint) + endpoint.location.clean(ValueError("denied for s3cr3t"))


def test_one_table_is_one_target_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = [tmp_path / "lake", "lake", f"file://{tmp_path}/lake", f"{tmp_path}/lake/"]
    assert len({delta(uri).as_sink("append", ()).promise.target for uri in written}) == 1
    assert delta("s3a://b/x/").as_sink("append", ()).promise.target == "delta:s3://b/x"


def test_positions_are_found_behind_commits_of_others(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    with Between("delta.commit", lambda: [foreign(bench, n) for n in range(3)]):
        ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    foreign(bench, 9)
    _, found = bench.instance(2)
    assert found is not None
    assert found.ends == token(1).ends


def test_a_move_is_compared_by_all_digits_of_the_seal(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    ours.commit([], move(0, 1))
    for history in "0f9z":
        wrong = TokenMove(token(1, history), token(2))
        with pytest.raises(TokenRefused):
            ours.commit([], wrong)
    assert bench.look()[1] == token(1)
