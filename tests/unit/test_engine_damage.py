"""What a delivery finds damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onefold.connectors.memory.sink import MemorySink
from onefold.errors import FileCorrupt, InvariantBroken, OnefoldError
from tests.unit.engine_bench import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


@pytest.mark.parametrize(
    "error", [FileCorrupt(file="spool/a.arrow"), InvariantBroken("the spool gives back every row")]
)
def test_a_damaged_payload_stops_the_flow_and_is_not_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: OnefoldError
) -> None:
    tries = []

    def commit(*_: Any) -> None:
        tries.append(1)
        raise error

    bench.feed(1)
    run = bench.open(bench.flow("a"))
    with monkeypatch.context() as patch:
        patch.setattr(MemorySink, "commit", commit)
        with pytest.raises(type(error)):
            run.step()
    assert tries == [1]
    run.abandon()
    bench.run(bench.flow("a"))
    assert bench.numbers("a") == [0], "once it is repaired"
