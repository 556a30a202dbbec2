"""Hudi tables keep every contract of sinks, written by Hudi's own Java engine, and of sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.hudi import HudiSink
from onefold.connectors.hudi.source import HudiSource
from onefold.testing.contract_case import SinkBench, move
from onefold.testing.contracts import Contract, SinkCase, SourceCase, sink_contracts, source_contracts
from onefold.types import Mode


def _sink(folder: Path, table: str, mode: Mode, key: tuple[str, ...]) -> HudiSink:
    sink: HudiSink = of.hudi(str(folder / "lake" / table.replace("/", "_"))).as_sink(mode, key)
    return sink


def _block(folder: Path, table: str) -> None:
    (folder / "lake").write_text("a file, no folder")


SINK = SinkCase("hudi", _sink, make_unavailable=_block, has_plain_columns=True)


QUICK = ("insert_if_absent", "receipt_is_enough", "last_row", "deletes", "values_are")
"""Enough of them for every run: Java is slow."""


@pytest.mark.usefixtures("hudi_machine")
@pytest.mark.parametrize(
    "contract",
    [
        pytest.param(one, id=one.name, marks=() if any(word in one.name for word in QUICK) else pytest.mark.heavy)
        for one in sink_contracts(SINK)
    ],
)
def test_the_sink_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)


def _writing(folder: Path) -> SinkBench:
    return SinkBench(SINK, folder, schema=pa.schema([("n", pa.int64())]))


def _source(folder: Path) -> HudiSource:
    if not (folder / "lake" / "target").exists():
        _writing(folder).instance()[0].close()
    source: HudiSource = of.hudi(str(folder / "lake" / "target")).as_source(None)
    return source


def _feed(folder: Path, numbers: Sequence[int]) -> None:
    bench = _writing(folder)
    sink, token = bench.instance()
    done = token.epoch if token else 0
    sink.commit([bench.prepare(sink, done + 1, [{"n": number} for number in numbers])], move(done, done + 1))
    sink.close()


def _lose(folder: Path) -> None:
    """As a cleaner that keeps too little."""
    for path in (folder / "lake" / "target").glob("*.parquet"):
        path.unlink()


SOURCE = SourceCase("hudi", _source, _feed, lambda batch: batch.column("n").to_pylist(), _lose)


@pytest.mark.heavy
@pytest.mark.usefixtures("hudi_machine")
@pytest.mark.parametrize("contract", source_contracts(SOURCE), ids=lambda contract: contract.name)
def test_the_source_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)
