"""Sources are told what has taken effect for good: before they are closed, and again when they are opened."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.memory.source import MemorySource


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the source's verbs were called with, in order; only between open and close is it told anything."""
    calls: list[Any] = []

    def recorded(verb: str) -> None:
        original = getattr(MemorySource, verb)

        def call(self: MemorySource, *args: Any) -> Any:
            calls.append(dict(args[0]) if verb == "settle" else verb)
            return original(self, *args)

        monkeypatch.setattr(MemorySource, verb, call)

    for verb in ("open", "settle", "close"):
        recorded(verb)
    return calls


def made(name: str) -> tuple[of.Flow, Any]:
    flow, source = of.Flow(name), of.memory(f"{name} in", schema=pa.schema([("id", pa.int64())]))
    flow.read(source, schema={"id": "BIGINT"}, name="in").append(of.memory(f"{name} out"), name="out")
    return flow, source


def test_a_drained_run_tells_what_is_settled_before_it_closes_the_source(told: list[Any], tmp_path: Path) -> None:
    flow, source = made(tmp_path.name)
    source.feed([{"id": number} for number in range(5)])
    flow.run(state=tmp_path)
    assert (told[0], told[-2:]) == ("open", [{"0": 5}, "close"])


def test_a_run_with_nothing_new_tells_it_again(told: list[Any], tmp_path: Path) -> None:
    flow, source = made(tmp_path.name)
    source.feed([{"id": number} for number in range(5)])
    flow.run(state=tmp_path)
    told.clear()
    flow.run(state=tmp_path)
    assert told == ["open", {"0": 5}, "close"], "the process may have died before it told"


def test_a_stopped_run_tells_what_is_settled_before_it_closes_the_source(told: list[Any], tmp_path: Path) -> None:
    flow, source = made(tmp_path.name)
    source.feed([{"id": number} for number in range(5)])
    with flow.start(state=tmp_path) as run:
        wait_until(lambda: run.progress().epoch > 0)
    assert (told[0], told[-2:]) == ("open", [{"0": 5}, "close"])


def wait_until(done: Callable[[], bool]) -> None:
    over_at = time.monotonic() + 30
    while not done():
        assert time.monotonic() < over_at
        time.sleep(0.01)
