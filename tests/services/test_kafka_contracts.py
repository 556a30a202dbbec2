"""Topics keep every contract of sources and sinks, on a real broker."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.kafka.sink import KafkaSink
from onefold.connectors.kafka.source import KafkaSource
from onefold.errors import SinkUnavailable
from onefold.testing.contracts import Contract, SinkCase, SourceCase, sink_contracts, source_contracts
from onefold.types import Mode, Receipt, TokenMove
from tests.services import kafka_topics as topics

_made: set[str] = set()


def _ready(folder: Path, what: str) -> str:
    """The topic of a folder, made when it is first named, if there is a broker yet."""
    name = topics.name_in(folder, what if what.isidentifier() else f"t{what.encode().hex()[:40]}")
    if name not in _made and topics.VARIABLE in os.environ:
        topics.make({name: 1})
        _made.add(name)
    return name


def _sink(folder: Path, table: str, mode: Mode, key: tuple[str, ...]) -> KafkaSink:
    sink = of.kafka("${ONEFOLD_KAFKA}").topic(_ready(folder, table)).as_sink(mode, key)
    commit_once = sink.commit

    def commit(receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """As the engine: a sink that was cut off (a busy broker made its client repeat a request) is opened again."""
        try:
            commit_once(receipts, move)
        except SinkUnavailable:
            sink.open(sink.binding)
            commit_once(receipts, move)

    sink.commit = commit  # type: ignore[method-assign]
    return sink


def _source(folder: Path) -> KafkaSource:
    return of.kafka("${ONEFOLD_KAFKA}").topic(_ready(folder, "source")).as_source(None)


def _feed(folder: Path, numbers: Sequence[int]) -> None:
    topics.produce(_ready(folder, "source"), [json.dumps({"n": number}).encode() for number in numbers])


def _numbers(batch: pa.RecordBatch) -> list[int]:
    return [json.loads(value)["n"] for value in batch.column("_value").to_pylist()]


def _lose(folder: Path) -> None:
    topics.delete_before(_ready(folder, "source"), 0, 20)


SINK = SinkCase("kafka", _sink, fences=True)
SOURCE = SourceCase("kafka", _source, _feed, _numbers, _lose)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("contract", sink_contracts(SINK), ids=lambda contract: contract.name)
def test_the_sink_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("contract", source_contracts(SOURCE), ids=lambda contract: contract.name)
def test_the_source_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)
