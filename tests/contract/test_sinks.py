"""Every sink of onefold keeps every contract of sinks."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.testing.contracts import Contract, sink_contracts
from tests.contract.cases import SINKS

CONTRACTS = [
    pytest.param(contract, id=f"{case.name}-{contract.name}") for case in SINKS for contract in sink_contracts(case)
]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_sink_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)
