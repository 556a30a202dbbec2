"""What the real engine does is a path of the model: recorded runs with faults, replayed in spec/."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from onefold import disk
from onefold.engines.embedded.runner import run
from onefold.errors import OnefoldError
from spec.replay import check
from tests.unit.engine_bench import Bench, bench_of

FAULTS = ("unavailable", "unknown-landed", "unknown-lost")
STEPS = (
    "journal.seal",
    "journal.settle",
    "journal.outcome",
    "journal.attempt",
    "journal.start",
    "memory.commit",
    "memory.prepare",
    "memory.abort",
)

BEGIN = {"do": "begin", "sinks": {"a": "exactly-once", "b": "exactly-once"}, "together": False}


class Dies(BaseException):
    pass


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


def survive(bench: Bench, rng: random.Random, weaker: Mapping[str, str], **settings: Any) -> list[dict[str, Any]]:
    """A run with random faults and crashes right before durable steps, until it has drained."""
    deadline = rng.randrange(3, 40)
    seen = 0

    def observe(step: str, moment: disk.Moment) -> None:
        nonlocal seen
        if step in STEPS and moment == "before":
            seen += 1
            if seen >= deadline:
                raise Dies(step)

    for _ in range(rng.randrange(4)):
        bench.memory(rng.choice("ab")).fail_next(rng.choice(FAULTS))
    for _ in range(10):
        bench.feed(rng.randrange(1, 4))
        disk.observer = observe
        try:
            bench.run(bench.flow("a", "b", weaker=weaker, epoch_rows=rng.randrange(1, 3), **settings))
            return [dict(line) for line in bench.trace]
        except (Dies, OnefoldError):
            bench.trace.append({"do": "kill"})
            deadline, seen = deadline + rng.randrange(3, 40), 0
        finally:
            disk.observer = None
    raise AssertionError("it never drained")


@pytest.mark.parametrize(
    "weaker", [{}, {"b": "at-least-once"}, {"b": "at-most-once"}], ids=["exactly", "least", "most"]
)
@pytest.mark.parametrize("number", range(6))
def test_a_recorded_run_is_a_path_of_the_model(bench: Bench, number: int, weaker: dict[str, str], seed: int) -> None:
    trace = survive(bench, random.Random(f"{seed}-{number}"), weaker)
    guarantees = {"a": "exactly-once", "b": weaker.get("b", "exactly-once")}
    assert check([{"do": "begin", "sinks": guarantees, "together": False}, *trace]) is None


@pytest.mark.parametrize("number", range(6))
def test_a_recorded_run_of_sinks_that_commit_together_is_one_too(bench: Bench, number: int, seed: int) -> None:
    trace = survive(bench, random.Random(f"{seed}-{number}"), {}, commit="together")
    assert [line for line in trace if line["do"] == "prepare"]
    assert check([{**BEGIN, "together": True}, *trace]) is None


@pytest.mark.parametrize("number", range(3))
def test_a_recorded_run_with_threads_is_one_too(bench: Bench, number: int, seed: int) -> None:
    rng = random.Random(f"{seed}-{number}")
    for _ in range(3):
        bench.feed(rng.randrange(5, 15))
        for _ in range(rng.randrange(4)):
            bench.memory(rng.choice("ab")).fail_next(rng.choice(FAULTS))
        run(bench.flow("a", "b").plan, bench.folder, until="drained", trace=bench.trace.append)
        bench.trace.append({"do": "kill"})
    assert bench.numbers("a") == bench.numbers("b")
    lines = [dict(line) for line in bench.trace]
    assert check([BEGIN, *lines]) is None


def test_a_forged_line_is_refused(bench: Bench) -> None:
    bench.feed(2)
    bench.run(bench.flow("a"))
    lines = [dict(line) for line in bench.trace]
    begin = {"do": "begin", "sinks": {"a": "exactly-once"}, "together": False}
    assert check([begin, *lines]) is None
    first_seal = next(at for at, line in enumerate(lines) if line.get("kind") == "seal")
    first_commit = next(at for at, line in enumerate(lines) if line["do"] == "commit")
    lines[first_seal], lines[first_commit] = lines[first_commit], lines[first_seal]
    assert check([begin, *lines]) is not None
