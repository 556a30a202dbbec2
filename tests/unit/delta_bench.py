"""A delta table in a folder, others that write to it, and moments inside a commit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from onefold import disk
from onefold.connectors.delta import delta, sink
from onefold.connectors.delta.sink import DeltaSink
from onefold.testing.contract_case import SinkBench, SinkCase, numbered
from tests.contract.cases import SINKS

[CASE] = [case for case in SINKS if case.name == "delta"]
OLD = 1_000_000_000


@pytest.fixture
def bench(tmp_path: Path) -> SinkBench:
    return SinkBench(CASE, tmp_path)


@pytest.fixture
def upserts(tmp_path: Path) -> SinkBench:
    return SinkBench(CASE, tmp_path, "upsert", ("id",))


@pytest.fixture
def staging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", 0)


def place(bench: SinkBench) -> str:
    return str(bench.folder / "lake" / bench.table)


def foreign(bench: SinkBench, *ids: int) -> None:
    deltalake.write_deltalake(place(bench), pa.Table.from_pylist(numbered(*ids), bench.schema), mode="append")


def options(bench: SinkBench, **given: Any) -> SinkBench:
    """The same table by an endpoint with these options."""

    def make(folder: Path, table: str, mode: Any, key: tuple[str, ...]) -> DeltaSink:
        return delta(folder / "lake" / table, **given).as_sink(mode, key)

    return bench.under(case=SinkCase("delta", make, fences=True))


class Between:
    """Does something once, before or after a durable step."""

    def __init__(self, step: str, act: Callable[[], object], moment: str = "before") -> None:
        self._when, self._act = (step, moment), act

    def __enter__(self) -> None:
        disk.observer = self._at

    def __exit__(self, *_: object) -> None:
        disk.observer = None

    def _at(self, step: str, moment: str) -> None:
        if (step, moment) == self._when:
            disk.observer = None
            self._act()
