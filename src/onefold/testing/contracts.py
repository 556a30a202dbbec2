"""The contract suites: what every source and sink must keep, whoever wrote it.

    import pytest
    from onefold.testing import contracts

    case = contracts.SinkCase("mine", make=lambda folder, table, mode, key: MySink(folder / table))

    @pytest.mark.parametrize("contract", contracts.sink_contracts(case), ids=lambda contract: contract.name)
    def test_the_sink_keeps(contract, tmp_path):
        contract.run(tmp_path)

Nothing here needs pytest. A contract raises ContractBroken with what was found. Those about crashes fork children and
kill them at every step that the sink marks with `onefold.disk.durable_step`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onefold.errors import OnefoldError
from onefold.protocols import TwoPhase
from onefold.testing.contract_case import ContractBroken, SinkBench, SinkCase, SourceCase
from onefold.testing.contract_crashes import CRASH_CONTRACTS
from onefold.testing.contract_sinks import (
    DELETE_CONTRACTS,
    SINK_CONTRACTS,
    UPSERT_CONTRACTS,
)
from onefold.testing.contract_sources import SOURCE_CONTRACTS, SourceBench
from onefold.testing.contract_two_phase import TWO_PHASE_CONTRACTS
from onefold.types import CommitClass, Mode

__all__ = ["Contract", "ContractBroken", "SinkCase", "SourceCase", "sink_contracts", "source_contracts"]


@dataclass(frozen=True)
class Contract:
    """One promise. run: in an empty folder. Raises ContractBroken."""

    name: str
    promise: str
    run: Callable[[Path], None]


def sink_contracts(case: SinkCase) -> Sequence[Contract]:
    """The contracts that apply to a sink by what it promises. Its commit class must be transactional or two-phase."""
    with tempfile.TemporaryDirectory() as folder:
        promise = case.make(Path(folder), "target", "append", ()).promise
        staged = isinstance(case.make(Path(folder), "target", "append", ()), TwoPhase)
    if promise.commit_class < CommitClass.TWO_PHASE:
        raise ContractBroken(f"{case.name} keeps no token with its rows", promise.commit_class)
    chosen: list[tuple[Callable[[SinkBench], None], Mode]] = [(contract, "append") for contract in SINK_CONTRACTS]
    crashes = [CRASH_CONTRACTS[-1]] if case.is_local else CRASH_CONTRACTS
    chosen += [(contract, "append") for contract in crashes]
    if "upsert" in promise.modes:
        chosen += [(contract, "upsert") for contract in (*SINK_CONTRACTS[:4], *crashes, *UPSERT_CONTRACTS)]
    if promise.deletes:
        chosen += [(contract, "upsert") for contract in DELETE_CONTRACTS]
    if staged:
        chosen += [(contract, "append") for contract in TWO_PHASE_CONTRACTS]
    return [_sink_contract(case, contract, mode) for contract, mode in chosen]


def source_contracts(case: SourceCase) -> Sequence[Contract]:
    """The contracts of a source."""

    def contract(keep: Callable[[SourceBench], None]) -> Contract:
        def run(folder: Path) -> None:
            bench = SourceBench(case, folder)
            try:
                _keep(lambda: keep(bench))
            finally:
                bench.close()

        return Contract(keep.__name__, (keep.__doc__ or "").strip(), run)

    return [contract(keep) for keep in SOURCE_CONTRACTS]


def _sink_contract(case: SinkCase, keep: Callable[[SinkBench], None], mode: Mode) -> Contract:
    def run(folder: Path) -> None:
        bench = SinkBench(case, folder, mode, ("id",) if mode == "upsert" else ())
        try:
            _keep(lambda: keep(bench))
        finally:
            bench.close()

    return Contract(f"{keep.__name__}-{mode}", (keep.__doc__ or "").strip(), run)


def _keep(contract: Callable[[], None]) -> None:
    """An error where the contract expects none breaks it too."""
    try:
        contract()
    except OnefoldError as error:
        raise ContractBroken(f"An error that the contract does not expect: {error}") from error
