"""Tables of PostgreSQL keep every contract of sinks, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.connectors.postgres import PostgresSink
from onefold.testing.contracts import Contract, SinkCase, sink_contracts
from onefold.types import Mode
from tests.services import postgres_flows as flows


def _sink(folder: Path, table: str, mode: Mode, key: tuple[str, ...]) -> PostgresSink:
    sink: PostgresSink = flows.table(folder, table).as_sink(mode, key)
    return sink


SINK = SinkCase("postgres", _sink, fences=True)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("contract", sink_contracts(SINK), ids=lambda contract: contract.name)
def test_the_sink_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)
