"""What a process that slept finds when it wakes, and that it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.engines.embedded import opening
from onefold.engines.embedded.runner import Run
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


def test_a_run_that_must_end_waits_for_no_more_input(tmp_path: Path) -> None:
    flow = of.Flow("ends")
    flow.read(of.memory("ends-in"), schema={"id": "BIGINT"}, format="json").append(of.memory("ends-out"))
    run = Run(flow.plan, tmp_path)
    run._must_end.set()  # as after a halt, when the reader could not say that it had ended
    computing = threading.Thread(target=run._compute, daemon=True)
    computing.start()
    computing.join(10)
    assert not computing.is_alive()
