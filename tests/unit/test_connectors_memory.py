"""The memory connector's own words, and the console."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from onefold.connectors.console import ConsoleSink, console
from onefold.connectors.memory import Fault, MemoryEndpoint, memory
from onefold.errors import (
    InputLost,
    NotSupported,
    OutcomeUnknown,
    RowsRefused,
    SinkUnavailable,
    SourceUnavailable,
)
from onefold.protocols import Limit
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered, token
from onefold.types import CommitClass, Guarantee, PartitionId

AMPLE = Limit(1000, 1 << 20)


@pytest.fixture
def store() -> Iterator[MemoryEndpoint]:
    endpoint = memory("test of memory")
    yield endpoint
    endpoint.clear()


@pytest.fixture
def bench(tmp_path: Path, store: MemoryEndpoint) -> SinkBench:
    return SinkBench(SinkCase("memory", lambda folder, table, mode, key: store.as_sink(mode, key)), tmp_path)


@pytest.mark.parametrize(
    ("fault", "error", "landed"),
    [
        ("unavailable", SinkUnavailable, False),
        ("unknown-lost", OutcomeUnknown, False),
        ("unknown-landed", OutcomeUnknown, True),
        ("rows-refused", RowsRefused, False),
    ],
)
def test_a_commit_fails_as_it_is_told(
    bench: SinkBench, store: MemoryEndpoint, fault: Fault, error: type[Exception], landed: bool
) -> None:
    sink, _ = bench.instance()
    receipt = bench.prepare(sink, 1, numbered(1))
    store.fail_next(fault)
    with pytest.raises(error):
        sink.commit([receipt], move(0, 1))
    assert store.rows() == (numbered(1) if landed else [])
    assert bench.instance(2)[1] == (token(1) if landed else None)
    if not landed:
        sink.commit([receipt], move(0, 1))
        assert store.rows() == numbered(1)


def test_a_store_that_is_down_refuses_both_sides(bench: SinkBench, store: MemoryEndpoint) -> None:
    sink, _ = bench.instance()
    source = store.as_source(None)
    source.open(None)
    store.set_down(True)
    with pytest.raises(SinkUnavailable):
        sink.commit([], move(0, 1))
    with pytest.raises(SourceUnavailable):
        source.read(PartitionId("0"), 0, AMPLE, 0.0)


def test_bytes_can_be_fed_for_a_format(store: MemoryEndpoint) -> None:
    from onefold.formats.json import JsonLines

    store.feed_bytes([b"raw", "text", {"a": 1}], partition="p")
    source = store.as_source(JsonLines())
    assert source.promise.payload == "bytes"
    [batch] = source.read(PartitionId("p"), 0, AMPLE, 0.0).batches
    assert batch["_value"].to_pylist() == [b"raw", b"text", b'{"a": 1}']
    assert batch["_partition"].to_pylist() == ["p"] * 3


def test_forgotten_input_is_named(store: MemoryEndpoint) -> None:
    store.feed([{"a": number} for number in range(5)])
    store.forget_input(3)
    source = store.as_source(None)
    with pytest.raises(InputLost, match="rows 1 to 2"):
        source.read(PartitionId("0"), 1, AMPLE, 0.0)
    assert source.partitions() == {"0": (3, 5)}


def test_what_is_written_outlives_the_sink_and_ends_with_clear(bench: SinkBench, store: MemoryEndpoint) -> None:
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    assert memory("test of memory").table().num_rows == 1
    store.clear()
    assert store.rows() == []
    with pytest.raises(KeyError):
        store.table()


class TestConsole:
    """At-least-once, and it says so."""

    def printed(self, tmp_path: Path, sink: ConsoleSink, bench: SinkBench, rows: list[dict[str, object]]) -> None:
        sink.open(bench.binding())
        sink.commit([bench.prepare(sink, 1, rows)], None)

    def test_it_prints_rows_readably_and_safely(self, tmp_path: Path) -> None:
        out = io.StringIO()
        schema = pa.schema([("id", pa.int64()), ("name", pa.string()), ("_op", pa.string())])
        bench = SinkBench(
            SinkCase("console", lambda *_: ConsoleSink(out=out)),
            tmp_path,
            mode="upsert",
            key=("id",),
            schema=schema,
            guarantee=Guarantee.AT_LEAST_ONCE,
        )
        rows: list[dict[str, object]] = [
            {"id": 1, "name": "a\nb\x1b[0m", "_op": "upsert"},
            {"id": 2, "name": None, "_op": "delete"},
            {"id": 3, "name": "x" * 100, "_op": "upsert"},
        ]
        self.printed(tmp_path, ConsoleSink(limit=2, out=out), bench, rows)
        assert out.getvalue() == "+ id=1  name=a\\nb\\x1b[0m\n- id=2  name=NULL\n… and 1 more rows\n"

    def test_it_keeps_no_token_and_refuses_to_pretend(self, tmp_path: Path) -> None:
        sink = console().as_sink("append", ())
        assert sink.promise.commit_class is CommitClass.NONE
        bench = SinkBench(SinkCase("console", lambda *_: sink), tmp_path)
        assert sink.open(bench.binding()) is None
        with pytest.raises(NotSupported):
            sink.commit([], move(0, 1))

    def test_a_closed_terminal_is_an_unknown_outcome(self, tmp_path: Path) -> None:
        out = io.StringIO()
        out.close()
        bench = SinkBench(SinkCase("console", lambda *_: ConsoleSink(out=out)), tmp_path)
        with pytest.raises(OutcomeUnknown):
            self.printed(tmp_path, ConsoleSink(out=out), bench, [dict(row) for row in numbered(1)])

    def test_it_cannot_be_read(self) -> None:
        with pytest.raises(NotSupported):
            console().as_source(None)
