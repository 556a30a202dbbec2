"""Hudi tables keep every contract of sinks, written by Hudi's own Java engine."""

from __future__ import annotations

from pathlib import Path

import pytest

import onefold as of
from onefold.connectors.hudi import HudiSink
from onefold.testing.contracts import Contract, SinkCase, sink_contracts
from onefold.types import Mode


def _sink(folder: Path, table: str, mode: Mode, key: tuple[str, ...]) -> HudiSink:
    sink: HudiSink = of.hudi(str(folder / "lake" / table.replace("/", "_"))).as_sink(mode, key)
    return sink


def _block(folder: Path, table: str) -> None:
    (folder / "lake").write_text("a file, no folder")


SINK = SinkCase("hudi", _sink, make_unavailable=_block, has_plain_columns=True)


@pytest.mark.heavy
@pytest.mark.usefixtures("hudi_machine")
@pytest.mark.parametrize("contract", sink_contracts(SINK), ids=lambda contract: contract.name)
def test_the_sink_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)
