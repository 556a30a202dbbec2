"""What a process that slept inside its opening finds when it wakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onefold.engines.embedded import opening
from onefold.errors import Fenced, FileCorrupt
from tests.unit.engine_bench import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


@pytest.mark.parametrize("is_overtaken", [True, False])
def test_state_that_a_successor_freed_is_no_damage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, is_overtaken: bool
) -> None:
    flow = bench.flow("a")
    load = opening._load_state

    def slept(*args: Any) -> Any:
        monkeypatch.setattr(opening, "_load_state", load)
        if is_overtaken:
            bench.open(flow, is_locked=False).stop()
        raise FileCorrupt(file="gone")

    monkeypatch.setattr(opening, "_load_state", slept)
    with pytest.raises(Fenced if is_overtaken else FileCorrupt):
        bench.open(flow)
