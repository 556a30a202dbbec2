"""Every source of onefold keeps every contract of sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.testing.contracts import Contract, source_contracts
from tests.contract.cases import SOURCES

CONTRACTS = [
    pytest.param(contract, id=f"{case.name}-{contract.name}") for case in SOURCES for contract in source_contracts(case)
]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_source_keeps(contract: Contract, tmp_path: Path) -> None:
    contract.run(tmp_path)
