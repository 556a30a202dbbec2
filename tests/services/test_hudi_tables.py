"""What a Hudi table must be, what maintenance removes and keeps, and what is synced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold import disk
from onefold.connectors.hudi import HudiSink, sink
from onefold.errors import BuildError, FileCorrupt, NotSupported, SchemaError, SinkRefused, TokenRefused
from onefold.testing.contract_case import ROWS, SinkBench, SinkCase, move, numbered, token

pytestmark = [pytest.mark.usefixtures("hudi_machine"), pytest.mark.heavy]

WIDER = pa.schema([*ROWS, ("price", pa.decimal128(9, 2))])


def _bench(folder: Path, *, mode: Any = "append", schema: pa.Schema = ROWS, **options: Any) -> SinkBench:
    case = SinkCase("hudi", lambda place, table, mode, key: of.hudi(str(place / table), **options).as_sink(mode, key))
    return SinkBench(case, folder, mode, ("id",) if mode == "upsert" else (), schema)


def _written(bench: SinkBench, *epochs: int) -> HudiSink:
    made: Any = bench.instance()[0]
    for epoch in epochs:
        made.commit([bench.prepare(made, epoch, numbered(epoch))], move(epoch - 1, epoch))
    return made


def test_a_missing_column_is_refused_unless_it_may_be_added(tmp_path: Path) -> None:
    _written(_bench(tmp_path), 1)
    with pytest.raises(SchemaError, match="no column price"):
        _bench(tmp_path, schema=WIDER).instance()
    wider = _bench(tmp_path, schema=WIDER, add_columns=True)
    made, _ = wider.instance()
    made.commit([wider.prepare(made, 2, [{"id": 2, "name": "n2", "price": None}])], move(1, 2))
    assert [row["id"] for row in wider.look()[0]] == [1, 2]
    narrow = _bench(tmp_path)
    made, _ = narrow.instance(2)
    made.commit([narrow.prepare(made, 3, numbered(3))], move(2, 3))
    assert narrow.ids() == [1, 2, 3]


def test_another_key_or_another_partitioning_is_refused(tmp_path: Path) -> None:
    _written(_bench(tmp_path, mode="upsert"), 1)
    with pytest.raises(SinkRefused, match="record key"):
        _bench(tmp_path).instance()
    with pytest.raises(SinkRefused, match="partitioned otherwise"):
        _bench(tmp_path, mode="upsert", partition_by="name").instance()
    with pytest.raises(SchemaError, match="in their key"):
        _bench(tmp_path / "new", mode="upsert", partition_by="name").instance()


def test_a_folder_with_other_files_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine.csv").write_text("1")
    with pytest.raises(SinkRefused, match="not empty"):
        _bench(tmp_path).instance()


def test_maintenance_removes_what_no_commit_names_and_never_the_token(tmp_path: Path) -> None:
    options = {"hoodie.keep.min.commits": "2", "hoodie.keep.max.commits": "3", "hoodie.clean.commits.retained": "1"}
    bench = _bench(tmp_path, mode="upsert", options=options)
    made = _written(bench, 1, 2, 3, 4, 5, 6)
    files = sorted((tmp_path / "target").glob("*.parquet"))
    first = files[0].stem.rpartition("_")[2]
    orphan = files[0].with_name(files[0].name.replace(first, str(int(first) + 1)))
    older = files[0].with_name(files[0].name.replace(first, "20200101000000000"))
    older.write_bytes(b"of a time that the timeline does not tell of")
    orphan.write_bytes(files[0].read_bytes())
    assert [done.found for done in made.maintain(bench.binding(), is_dry=True)] == ["1 files"]
    assert orphan.exists()
    older.unlink()
    made.maintain(bench.binding(), is_dry=False)
    assert not orphan.exists()
    assert len(list((tmp_path / "target").glob("*.parquet"))) < len(files)
    assert bench.look()[1] == token(6)
    assert bench.ids() == [1, 2, 3, 4, 5, 6]
    made.commit([bench.prepare(made, 7, numbered(7))], move(6, 7))
    assert bench.ids() == [1, 2, 3, 4, 5, 6, 7]


def test_an_empty_commit_after_a_power_cut_is_told(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    _written(bench, 1, 2)
    newest = max((tmp_path / "target/.hoodie/timeline").glob("*.commit"))
    newest.write_bytes(b"")
    with pytest.raises(FileCorrupt, match="power failed"):
        bench.instance(2)
    newest.unlink()
    again, found = bench.instance(2)
    assert found == token(1)
    again.commit([bench.prepare(again, 2, numbered(2))], move(1, 2))
    assert bench.ids() == [1, 2]


def test_files_are_synced_before_the_commit_and_the_commit_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = _bench(tmp_path)
    made = _written(bench, 1)
    told: list[str] = []
    synced = sink.sync_path
    monkeypatch.setattr(disk, "observer", lambda step, moment: told.append(f"{moment} {step}"))
    monkeypatch.setattr(sink, "sync_path", lambda path: (told.append(path.suffix), synced(path)))
    made.commit([bench.prepare(made, 2, numbered(2))], move(1, 2))
    monkeypatch.undo()
    begun, done = told.index("before hudi.commit"), told.index("after hudi.commit")
    assert ".parquet" in told[:begun]
    assert ".commit" in told[done:]


def test_a_refused_zombie_takes_its_files_with_it(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    zombie = _written(bench, 1)
    table: Any = zombie._opened
    commit = table.commit

    def late(instant: str, **about: Any) -> Any:
        sink._writing.clear()  # as another process
        later, _ = bench.instance(2)
        later.commit([bench.prepare(later, 2, numbered(2))], move(1, 2))
        return commit(instant, **about)

    table.commit = late
    with pytest.raises(TokenRefused):
        zombie.commit([bench.prepare(zombie, 2, numbered(-2))], move(1, 2))
    known = set(table.instants())
    instants = {path.stem.rpartition("_")[2] for path in (tmp_path / "target").glob("*.parquet")}
    assert instants <= known
    assert bench.ids() == [1, 2]


def test_what_cannot_be_is_refused_when_the_flow_is_built() -> None:
    with pytest.raises(NotSupported, match="copy-on-write"):
        of.hudi("lake", table_type="mor")
    with pytest.raises(NotSupported, match="local folders and in S3-compatible"):
        of.hudi("gs://bucket/lake")
    with pytest.raises(BuildError, match="not known"):
        of.hudi("s3://bucket/lake", storage_options={"AWS_SECRET": "x"})
    with pytest.raises(BuildError):
        of.hudi("lake", commit_every="soon")
