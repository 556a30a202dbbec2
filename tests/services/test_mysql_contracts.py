"""Tables of MariaDB or MySQL keep every contract of sinks, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.connectors.mysql import MysqlSink
from onefold.testing.contracts import Contract, SinkCase, sink_contracts
from onefold.types import Mode
from tests.services import mysql_flows as flows


def _sink(folder: Path, table: str, mode: Mode, key: tuple[str, ...]) -> MysqlSink:
    sink: MysqlSink = flows.table(folder, table).as_sink(mode, key)
    return sink


SINK = SinkCase("mysql", _sink, fences=True, is_finite=True)


@pytest.mark.usefixtures("mysql_database")
@pytest.mark.parametrize("contract", sink_contracts(SINK), ids=lambda contract: contract.name)
def test_the_sink_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)
