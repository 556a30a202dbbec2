"""The state with many keys: dedup speed, memory, pauses while growing, snapshots, recovery; beside two plain ways.

    python benchmarks/state.py [--keys 10000000] [--output benchmarks/results/state.json]

Each part runs in a process of its own, so that memory can be told apart. Times are of one thread; "cpu" is that
thread's processor time, which other work on the machine disturbs less than wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from onefold.state.keyset import KeySet
from onefold.state.snapshots import SnapshotStore
from onefold.state.table import KeyedTable
from onefold.types import EpochNumber, SealId

KEY = b"benchmark key 16"
WEEK_MICROS = 7 * 86_400_000_000
FILL = 100_000
BATCHES = (1_000, 10_000, 100_000)
EVENTS = 1_000_000
REPLAYED = 0.1
SEAL = SealId("0" * 32)

Ids = npt.NDArray[np.uint64]


def ids_of(numbers: npt.NDArray[np.int64]) -> Ids:
    """Distinct 16-byte ids, the same for the same numbers (a bijection of 64 bits, twice)."""
    x = numbers.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    return np.stack([x, x * np.uint64(0x9E3779B97F4A7C15)], axis=1).copy()


def column_of(ids: Ids) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(16), len(ids), [None, pa.py_buffer(ids)])


def events(keys: int, batch: int) -> Iterator[npt.NDArray[np.int64]]:
    """Batches of event numbers of which a tenth were seen before; new ones follow the `keys` that are there."""
    random = np.random.default_rng(batch)
    following = keys
    for _ in range(min(max(EVENTS // batch, 5), 200)):
        numbers = np.arange(following, following + batch)
        replayed = random.random(batch) < REPLAYED
        numbers[replayed] = random.integers(0, keys, int(replayed.sum()))
        following += batch
        yield numbers


def resident_mb() -> float:
    """The most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def filled(keys: int) -> KeySet:
    state = KeySet("dedup", KEY, WEEK_MICROS)
    for start in range(0, keys, FILL):
        numbers = np.arange(start, min(start + FILL, keys))
        state.first_seen(state.hash([column_of(ids_of(numbers))]), numbers)
        state.take_delta()
    return state


def measure(keys: int, judge: Callable[[Ids, npt.NDArray[np.int64]], int]) -> dict[str, Any]:
    """Events a second of `judge` (ids and times to the number kept) for every size of batch."""
    figures: dict[str, Any] = {}
    for batch in BATCHES:
        cpu, wall, count = 0.0, [], 0
        for numbers in events(keys, batch):
            ids = ids_of(numbers)
            began, used = time.perf_counter(), time.thread_time()
            judge(ids, numbers)
            cpu += time.thread_time() - used
            wall.append(time.perf_counter() - began)
            count += batch
        figures[str(batch)] = {
            "events_per_cpu_second": round(count / cpu),
            "wall_ms_median": round(1000 * float(np.median(wall)), 3),
        }
        keys += count
    return figures


def part_onefold(keys: int) -> dict[str, Any]:
    base = resident_mb()
    state = filled(keys)
    memory = {"process_mb": round(resident_mb()), "above_start_mb": round(resident_mb() - base)}
    memory["state_mb"] = round(state.size_bytes / 1e6)

    def judge(ids: Ids, times: npt.NDArray[np.int64]) -> int:
        kept = state.first_seen(state.hash([column_of(ids)]), times)
        state.take_delta()
        return int(kept.sum())

    return {**memory, "dedup": measure(keys, judge)}


def part_set(keys: int) -> dict[str, Any]:
    """A Python dict from the id's bytes to its time."""
    base = resident_mb()
    seen: dict[bytes, int] = {}
    for start in range(0, keys, FILL):
        numbers = np.arange(start, min(start + FILL, keys))
        seen.update(zip(column_of(ids_of(numbers)).to_pylist(), numbers.tolist(), strict=True))
    memory = {"process_mb": round(resident_mb()), "above_start_mb": round(resident_mb() - base)}

    def judge(ids: Ids, times: npt.NDArray[np.int64]) -> int:
        kept = 0
        for key, at in zip(column_of(ids).to_pylist(), times.tolist(), strict=True):
            stored = seen.get(key)
            if stored is None or abs(at - stored) > WEEK_MICROS:
                seen[key] = at
                kept += 1
        return kept

    return {**memory, "dedup": measure(keys, judge)}


def part_sorted(keys: int) -> dict[str, Any]:
    """Sorted numpy runs of the ids' first halves (no times, 64 bits only), merged when two have grown alike."""
    base = resident_mb()
    runs = [np.sort(ids_of(np.arange(keys))[:, 0])]
    memory = {"process_mb": round(resident_mb()), "above_start_mb": round(resident_mb() - base)}

    def judge(ids: Ids, _times: npt.NDArray[np.int64]) -> int:
        fresh = np.unique(ids[:, 0])
        for run in runs:
            places = np.minimum(np.searchsorted(run, fresh), len(run) - 1)
            fresh = fresh[run[places] != fresh]
        if len(fresh):
            runs.append(fresh)
        while len(runs) > 1 and len(runs[-2]) < 2 * len(runs[-1]):
            younger = runs.pop()
            runs[-1] = np.sort(np.concatenate([runs[-1], younger]), kind="stable")
        return len(fresh)

    return {**memory, "dedup": measure(keys, judge)}


def part_growth(keys: int) -> dict[str, Any]:
    """The longest of all calls while an empty state grows to twice the keys."""
    figures: dict[str, Any] = {}
    for batch in (1_000, 10_000):
        state = KeySet("dedup", KEY, WEEK_MICROS)
        wall, cpu = [], []
        for start in range(0, 2 * keys, batch):
            numbers = np.arange(start, start + batch)
            hashes = state.hash([column_of(ids_of(numbers))])
            began, used = time.perf_counter(), time.thread_time()
            state.first_seen(hashes, numbers)
            cpu.append(time.thread_time() - used)
            wall.append(time.perf_counter() - began)
            state.take_delta()
        figures[str(batch)] = {
            "longest_wall_ms": round(1000 * max(wall), 2),
            "longest_cpu_ms": round(1000 * max(cpu), 2),
            "wall_ms_p999": round(1000 * float(np.quantile(wall, 0.999)), 2),
            "wall_ms_median": round(1000 * float(np.median(wall)), 3),
        }
    return figures


def part_snapshot(keys: int) -> dict[str, Any]:
    """Snapshot in the background while dedup goes on; then recovery from it and the deltas after it."""
    state = filled(keys)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = SnapshotStore(Path(folder))
        began = time.perf_counter()
        frozen = state.freeze()
        freezing = time.perf_counter() - began
        store.begin(EpochNumber(1), SEAL, {"dedup": frozen})
        calls, deltas, start = [], [], keys
        while store.is_writing:
            numbers = np.arange(start, start + 10_000)
            call = time.perf_counter()
            state.first_seen(state.hash([column_of(ids_of(numbers))]), numbers)
            calls.append(time.perf_counter() - call)
            deltas.append(state.take_delta())
            start += 10_000
            if store.poll():
                break
        writing = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        deltas = deltas[:100]
        began = time.perf_counter()
        loaded = SnapshotStore(Path(folder)).load_latest(EpochNumber(1))
        assert loaded is not None
        verified = time.perf_counter()
        table = loaded.tables["dedup"]
        again = KeySet("dedup", KEY, WEEK_MICROS)
        again.load(table.blocks(), rows=table.rows)
        filled_again = time.perf_counter()
        for delta in deltas:
            again.apply_delta(delta)
        ended = time.perf_counter()
    assert len(again) == keys + 10_000 * len(deltas)
    return {
        "freeze_ms": round(1000 * freezing, 2),
        "snapshot_seconds_beside_dedup": round(writing, 2),
        "snapshot_mb": round(size / 1e6),
        "longest_dedup_call_meanwhile_ms": round(1000 * max(calls), 2),
        "recovery_seconds": round(ended - began, 2),
        "of_which": {
            "verify": round(verified - began, 2),
            "load": round(filled_again - verified, 2),
            f"{len(deltas)} deltas of 10000": round(ended - filled_again, 2),
        },
        "process_mb": round(resident_mb()),
    }


def part_table(keys: int) -> dict[str, Any]:
    """A keyed table of a tenth of the keys: look up, then replace, batches of random rows."""
    held = max(keys // 10, 1_000)
    keys_schema = pa.schema([("merchant", pa.string()), ("window", pa.timestamp("us"))])
    table = KeyedTable("t", keys_schema, pa.schema([("total", pa.decimal128(38, 2))]), hash_key=KEY, expiry="window")

    def rows(numbers: npt.NDArray[np.int64]) -> pa.RecordBatch:
        merchants = pa.array(numbers // 24).cast(pa.string())
        windows = pa.array((numbers % 24) * 3_600_000_000, pa.timestamp("us"))
        totals = pa.array(numbers.astype(np.int32)).cast(pa.decimal128(38, 2))
        return pa.record_batch([merchants, windows, totals], schema=table.schema)

    for start in range(0, held, FILL):
        table.upsert(rows(np.arange(start, min(start + FILL, held))))
        table.take_delta()
    random = np.random.default_rng(1)
    figures: dict[str, Any] = {"rows": held, "state_mb": round(table.size_bytes / 1e6)}
    for batch in (1_000, 10_000):
        looks, stores = [], []
        for _ in range(100):
            changed = rows(random.integers(0, held, batch))
            began = time.perf_counter()
            table.lookup(changed)
            middle = time.perf_counter()
            table.upsert(changed)
            stores.append(time.perf_counter() - middle)
            looks.append(middle - began)
            table.take_delta()
        figures[str(batch)] = {
            "lookup_ms_median": round(1000 * float(np.median(looks)), 2),
            "upsert_ms_median": round(1000 * float(np.median(stores)), 2),
            "upsert_ms_longest": round(1000 * max(stores), 2),
        }
    return figures


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "onefold": part_onefold,
    "python dict": part_set,
    "sorted numpy": part_sorted,
    "growth to twice the keys": part_growth,
    "snapshot and recovery": part_snapshot,
    "keyed table": part_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "state.json")
    parser.add_argument("--part", choices=PARTS, help="run this part only, here, and print its JSON")
    chosen = parser.parse_args()
    if chosen.part:
        print(json.dumps(PARTS[chosen.part](chosen.keys)))
        return
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    results: dict[str, Any] = {"keys": chosen.keys, **machine}
    for part in PARTS:
        command = [sys.executable, __file__, "--keys", str(chosen.keys), "--part", part]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        results[part] = json.loads(ran.stdout)
        print(f"{part}\n{json.dumps(results[part], indent=2)}", flush=True)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
