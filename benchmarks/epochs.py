"""Small epochs, recovery, and a large dedup state, through the whole engine.

    python -m benchmarks.epochs [--keys 10000000] [--epochs 300]

1. Fills a dedup with that many distinct 16-byte ids, in epochs of 100,000, every epoch sealed.
2. Opens the flow again: how long until it is ready (snapshot, deltas, index).
3. Runs epochs of 1,000 JSON events (half of them known): how long from the read to the durable seal, and to delivered.

Writes benchmarks/results/epochs.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import onefold as of
from onefold.clock import SystemClock
from onefold.engines.embedded.inline import InlineRun
from onefold.engines.embedded.outputs import all_outputs
from onefold.plan import Plan

RESULTS = Path(__file__).parent / "results" / "epochs.json"


class RealClock(SystemClock):
    """The machine's clock, for an engine that is driven by hand."""

    def advance(self, seconds: float) -> None:
        """Time passes by itself."""


def build(epoch_rows: int) -> Plan:
    """Bytes -> id -> dedup -> memory."""
    flow = of.Flow("epochs")
    events = flow.read(of.memory("bench-in"), schema={"event_id": "VARCHAR", "n": "BIGINT"}, format="json", name="in")
    events.dedup("event_id", within=None).append(of.memory("bench-out"))
    plan = flow.plan
    return replace(plan, settings=replace(plan.settings, epoch_rows=epoch_rows, epoch_bytes=1 << 30))


def lines(first: int, count: int) -> list[bytes]:
    """JSON events with distinct ids."""
    return [
        b'{"event_id":"%016x","n":%d}' % ((n * 0x9E3779B97F4A7C15) % (1 << 64), n) for n in range(first, first + count)
    ]


def open_run(plan: Plan, folder: Path, trace: Any = None) -> InlineRun:
    """An instance driven by this thread."""
    running = InlineRun(plan, folder, all_outputs(plan, folder), clock=RealClock(), trace=trace)  # type: ignore[arg-type]
    running.begin()
    return running


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--epochs", type=int, default=300)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="onefold-bench-"))
    try:
        result = measure(folder, args.keys, args.epochs)
    finally:
        shutil.rmtree(folder)
    for name, value in result.items():
        print(f"{name:32} {value:,.2f}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def measure(folder: Path, keys: int, epochs: int) -> dict[str, float]:
    """All three parts."""
    state = folder / "state"
    filled = fill(state, keys)
    began = time.perf_counter()
    seals: list[float] = []
    running = open_run(build(1_000), state, trace=lambda note: _note(note, seals))
    ready = time.perf_counter() - began
    sealed, delivered = [], []
    rng = np.random.default_rng(1)
    for number in range(epochs):
        known = [b'{"event_id":"%016x","n":0}' % int(i) for i in rng.integers(0, 1 << 62, 500)]
        of.memory("bench-in").feed_bytes(known + lines(keys + number * 500, 500))
        seals.clear()
        began = time.perf_counter()
        running.step()
        delivered.append((time.perf_counter() - began) * 1000)
        sealed.append((seals[0] - began) * 1000)
    running.drain()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return {
        "keys": float(keys),
        "fill events/s": filled,
        "open with these keys, s": ready,
        "1,000 events sealed p50 ms": statistics.median(sealed),
        "1,000 events sealed p99 ms": sorted(sealed)[int(len(sealed) * 0.99)],
        "1,000 events delivered p50 ms": statistics.median(delivered),
        "peak MB": peak,
    }


def fill(state: Path, keys: int) -> float:
    """Events per second while the state grows to so many keys."""
    plan = build(100_000)
    source = of.memory("bench-in")
    running = open_run(plan, state)
    took = 0.0
    for first in range(0, keys, 100_000):
        source.feed_bytes(lines(first, 100_000))
        began = time.perf_counter()
        running.step()
        took += time.perf_counter() - began
    running.drain()
    return keys / took


def _note(note: Any, seals: list[float]) -> None:
    if note.get("kind") == "seal":
        seals.append(time.perf_counter())


if __name__ == "__main__":
    main()
