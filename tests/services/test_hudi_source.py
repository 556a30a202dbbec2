"""What a reader of a Hudi table sees: inserts and updates by instant, nothing past one that is under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.hudi.source import PARTITION, HudiSource
from onefold.connectors.spooling import OP_COLUMN
from onefold.errors import InputLost, SourceRefused, SourceUnavailable
from onefold.protocols import Limit, Reading
from onefold.testing.contract_case import SinkBench, SinkCase, move
from onefold.types import Position
from tests.services.lake_rows import TYPES, typed

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("hudi_machine")]

AMPLE = Limit(rows=1 << 20, size_bytes=1 << 30)
CHANGES = pa.schema([("id", pa.int64()), ("name", pa.string()), (OP_COLUMN, pa.string())])


def bench_of(folder: Path, schema: pa.Schema = CHANGES, **options: Any) -> SinkBench:
    case = SinkCase("hudi", lambda place, table, mode, key: of.hudi(str(place / table), **options).as_sink(mode, key))
    return SinkBench(case, folder, "upsert", ("id",), schema)


def source_of(folder: Path) -> HudiSource:
    source: HudiSource = of.hudi(str(folder / "target")).as_source(None)
    source.open(None)
    return source


def drain(source: HudiSource, start: Position = None) -> tuple[list[dict[str, Any]], Position]:
    start, rows = start or {}, []
    while True:
        read = source.read(PARTITION, start, AMPLE, 0.0)
        rows += [row for batch in read.batches for row in batch.to_pylist()]
        start = read.next
        if read.is_idle:
            return rows, start


def put(names: dict[int, str | None]) -> list[dict[str, Any]]:
    """A None deletes."""
    return [{"id": key, "name": name, OP_COLUMN: "delete" if name is None else "upsert"} for key, name in names.items()]


def test_inserts_and_updates_are_read_as_the_rows_that_they_made(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, put({1: "a", 2: "b", 3: "c"}))], move(0, 1))
    source = source_of(tmp_path)
    rows, place = drain(source)
    assert rows == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}]
    sink.commit([bench.prepare(sink, 2, put({2: "new", 4: "d"}))], move(1, 2))
    sink.commit([bench.prepare(sink, 3, put({4: "newer"}))], move(2, 3))
    rows, _ = drain(source, place)
    assert sorted(map(str, rows[:2])) == ["{'id': 2, 'name': 'new'}", "{'id': 4, 'name': 'd'}"]
    assert rows[2:] == [{"id": 4, "name": "newer"}]


def test_an_instant_that_deletes_rows_stops_the_reader(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, put({1: "a", 2: "b"}))], move(0, 1))
    source = source_of(tmp_path)
    _, place = drain(source)
    sink.commit([bench.prepare(sink, 2, put({1: None}))], move(1, 2))
    sink.commit([bench.prepare(sink, 3, put({3: "c"}))], move(2, 3))
    with pytest.raises(InputLost, match="took rows back") as lost:
        drain(source, place)
    assert drain(source, lost.value.skip.to)[0] == [{"id": 3, "name": "c"}]


def test_nothing_is_read_past_an_instant_that_is_under_way(tmp_path: Path) -> None:
    """It may complete after later ones: a reader that had gone on would not come back."""
    bench = bench_of(tmp_path)
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, put({1: "a"}))], move(0, 1))
    source = source_of(tmp_path)
    _, place = drain(source)
    sink.commit([bench.prepare(sink, 2, put({2: "b"}))], move(1, 2))
    other = tmp_path / "target" / ".hoodie" / "timeline" / f"{int(place['done']) + 1}.commit.requested"
    other.touch()
    assert drain(source, place) == ([], place)
    other.unlink()
    assert drain(source, place)[0] == [{"id": 2, "name": "b"}]


def test_every_type_and_partitions_are_read(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, TYPES)
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, [*map(typed, range(3))])], move(0, 1))
    source = source_of(tmp_path)
    assert source.infer_schema().names == TYPES.names
    assert drain(source)[0] == [typed(number) for number in range(3)]


def test_a_flow_reads_one_table_into_another(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, put({1: "a", 2: "b"}))], move(0, 1))
    flow = of.Flow("onward")
    rows = flow.read(of.hudi(str(tmp_path / "target")), meta=["_instant"])
    rows.upsert(of.sqlite(str(tmp_path / "copy.sqlite")).table("copy"), key="id")
    flow.run(until="drained", state=tmp_path / "state")
    sink.commit([bench.prepare(sink, 2, put({2: "new", 3: "c"}))], move(1, 2))
    assert flow.run(until="drained", state=tmp_path / "state").events == 2


def test_what_is_no_table_or_no_copy_on_write_one_is_said_so(tmp_path: Path) -> None:
    source: HudiSource = of.hudi(str(tmp_path / "target")).as_source(None)
    source.told(Reading("flow", "read", None, pa.schema([]), ()))
    with pytest.raises(SourceUnavailable, match="not there"):
        source.open(None)
    bench = bench_of(tmp_path)
    bench.instance()[0].close()
    properties = tmp_path / "target" / ".hoodie" / "hoodie.properties"
    properties.write_text(properties.read_text().replace("COPY_ON_WRITE", "MERGE_ON_READ"))
    with pytest.raises(SourceRefused, match="merge-on-read"):
        source.open(None)
