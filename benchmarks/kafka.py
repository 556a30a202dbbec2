"""Topic to topic on one broker on the same machine: throughput, and latency until a read_committed reader sees it.

    python -m benchmarks.kafka [--events 1000000] [--rounds 3] [--seconds 20] [--quix PYTHON]

Throughput: JSON events of 200 bytes, one in ten twice, keyed, in four partitions; each contestant reads them, drops
what it has seen, and writes the rest. The plain loop guarantees nothing. Quix Streams runs with processing_guarantee
"exactly-once" and keeps the keys it has seen in its state; it needs an environment of its own: --quix names that
environment's Python, and without it the row is left out. Every output is read at read_committed and compared.

Latency: events at a steady rate, each with the time at which it was handed to its producer; onefold exactly-once and
the plain loop carry them over; a reader at read_committed notes when it gets them. Writes
benchmarks/results/kafka.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.events import write_events
from benchmarks.kafka_contestants import CONTESTANTS, ends_of

RESULTS = Path(__file__).parent / "results" / "kafka.json"
ROOT = Path(__file__).resolve().parent.parent
PARTITIONS = 4
RATES = (1_000, 10_000, 100_000)
WARM_SECONDS = 4.0
READY_SECONDS = 60.0


def make_topics(brokers: str, *names: str) -> None:
    """With four partitions each."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": brokers})
    for one in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        one.result(30)


def fill(brokers: str, topic: str, lines: Iterator[bytes]) -> int:
    """Produce lines keyed by event_id; returns how many different ones there are."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000})
    different: set[bytes] = set()
    for line in lines:
        key = line[13:45]
        different.add(key)
        while True:
            try:
                producer.produce(topic, line, key)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return len(different)


def judge(brokers: str, topic: str, expected: int, *, is_exact: bool) -> dict[str, int]:
    """Lost and doubled rows of an output at read_committed. Raises when there must be none."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "judge", "enable.auto.commit": False})
    ends = ends_of(consumer, topic)
    consumer.assign([TopicPartition(topic, number, 0) for number in ends])
    seen: set[bytes] = set()
    rows = 0
    while any(at.offset < ends[at.partition] for at in consumer.position(consumer.assignment())):
        for message in consumer.consume(10_000, 1.0):
            seen.add(json.loads(message.value())["event_id"])
            rows += 1
    consumer.close()
    found = {"lost": expected - len(seen), "doubled": rows - len(seen)}
    if is_exact and any(found.values()):
        raise SystemExit(f"{topic}: {found}")
    return found


def throughput(brokers: str, python: str, name: str, source: str, events: int, distinct: int) -> dict[str, float]:
    """One contestant in a process of its own: wall and CPU seconds, from start to end."""
    count = distinct if CONTESTANTS[name].counts_kept else events
    target = f"out-{name.replace(' ', '-')}-{time.time_ns()}"
    make_topics(brokers, target)
    with tempfile.TemporaryDirectory(prefix="onefold-bench-") as work:
        began = time.perf_counter()
        command = [python, "-m", "benchmarks.kafka_contestants", name, brokers, source, target, str(count), work]
        child = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        wall = time.perf_counter() - began
    if child.returncode:
        raise SystemExit(f"{name} failed: {child.stderr[-3000:]}")
    measured = json.loads(child.stdout.splitlines()[-1])
    return {"wall": wall, **measured, **judge(brokers, target, distinct, is_exact=CONTESTANTS[name].is_exact)}


def latency(brokers: str, name: str, rate: int, seconds: float) -> dict[str, float]:
    """Milliseconds from produce to visible, after a warm-up: median, 99th percentile, the longest."""
    source, target = f"in-{rate}-{time.time_ns()}", f"out-{rate}-{time.time_ns()}"
    make_topics(brokers, source, target)
    with tempfile.TemporaryDirectory(prefix="onefold-bench-") as work:
        command = [sys.executable, "-m", "benchmarks.kafka_contestants"]
        carrier = subprocess.Popen([*command, f"{name}, forever", brokers, source, target, "0", work], cwd=ROOT)
        reader = subprocess.Popen(
            [*command, "reader", brokers, source, target, str(int((seconds + WARM_SECONDS) * rate)), work],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            time.sleep(WARM_SECONDS)  # both have started
            sender = [*command, "sender", brokers, source, str(rate), str(int((seconds + WARM_SECONDS) * rate)), work]
            subprocess.run(sender, check=True, cwd=ROOT)
            told, _ = reader.communicate(timeout=READY_SECONDS + seconds)
        finally:
            carrier.send_signal(signal.SIGTERM)
            carrier.wait(30)
            reader.kill()
    times = sorted(json.loads(told)["milliseconds"][int(WARM_SECONDS * rate) :])
    return {
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
        "longest": times[-1],
        "events": len(times),
    }


def lines_of(folder: Path) -> Iterator[bytes]:
    """All lines of the events' files."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                yield line.rstrip(b"\n")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--quix", default=None)
    parser.add_argument("--only", choices=["throughput", "latency"], default=None)
    args = parser.parse_args()
    from services import kafka

    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with kafka.running() as brokers:
        if args.only != "latency":
            found["throughput"] = compare(brokers, args)
        if args.only != "throughput":
            names = ("onefold exactly-once", "plain loop")
            found["latency"] = {}
            for rate in RATES:
                found["latency"][str(rate)] = {name: latency(brokers, name, rate, args.seconds) for name in names}
                print(f"{rate:>8,} events/s", found["latency"][str(rate)])
    RESULTS.write_text(json.dumps({**found, "cores": os.cpu_count()}, indent=1) + "\n")


def compare(brokers: str, args: argparse.Namespace) -> dict[str, Any]:
    """All contestants in turn, so many rounds."""
    with tempfile.TemporaryDirectory(prefix="onefold-bench-") as folder:
        write_events(Path(folder), args.events, files=2)
        make_topics(brokers, "in")
        distinct = fill(brokers, "in", lines_of(Path(folder)))
    pythons = dict.fromkeys(CONTESTANTS, sys.executable) | {"quix streams": args.quix}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS if pythons[name]}
    for _ in range(args.rounds):
        for name, runs in rounds.items():
            runs.append(throughput(brokers, pythons[name], name, "in", args.events, distinct))
            print(f"{name:22} {args.events / runs[-1]['wall']:>10,.0f} events/s", runs[-1])
    walls = {name: statistics.median(run["wall"] for run in runs) for name, runs in rounds.items()}
    medians = {name: {"events_per_second": round(args.events / wall), "wall": wall} for name, wall in walls.items()}
    return {"events": args.events, "distinct": distinct, "median": medians, "rounds": rounds}


if __name__ == "__main__":
    main()
