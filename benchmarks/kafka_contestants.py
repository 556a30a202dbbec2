"""What benchmarks/kafka.py runs, each in a process of its own.

    python -m benchmarks.kafka_contestants NAME BROKERS SOURCE TARGET EVENTS WORK

The one for Quix Streams needs only that package. Ends when EVENTS were read; prints CPU seconds as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """run(brokers, source, target, events, work). is_exact: its output must hold each event once. counts_kept: it ends
    after so many events that it kept, where others count what they read."""

    run: Callable[[str, str, str, int, str], None]
    is_exact: bool
    counts_kept: bool = False


def ends_of(consumer: Any, topic: str) -> dict[int, int]:
    """The end of each partition."""
    from confluent_kafka import TopicPartition

    numbers = consumer.list_topics(topic, 30).topics[topic].partitions
    return {number: consumer.get_watermark_offsets(TopicPartition(topic, number), 30)[1] for number in numbers}


def plain(brokers: str, source: str, target: str, events: int, _work: str) -> None:
    """Consume, decode, drop what was seen, encode, produce. Guarantees nothing. events 0: for ever."""
    from confluent_kafka import Consumer, Producer

    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": target, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 10}
    )
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    consumer.subscribe([source])
    seen: set[str] = set()
    count = 0
    while not events or count < events:
        for message in consumer.consume(10_000, 0.01 if not events else 0.1):
            count += 1
            row = json.loads(message.value())
            if row["event_id"] in seen:
                continue
            seen.add(row["event_id"])
            while True:
                try:
                    producer.produce(target, json.dumps(row).encode(), message.key())
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    consumer.close()


def onefold(guarantee: str) -> Callable[[str, str, str, int, str], None]:
    """The same as a flow."""

    def run(brokers: str, source: str, target: str, events: int, work: str) -> None:
        import onefold as of
        from benchmarks.events import SCHEMA

        flow = of.Flow("bench", guarantee=guarantee)
        cluster = of.kafka(brokers)
        schema = SCHEMA if events else {"event_id": "VARCHAR", "sent": "BIGINT", "note": "VARCHAR"}
        rows = flow.read(cluster.topic(source), schema=schema, format="json", name="in")
        rows.dedup("event_id", within=None).append(cluster.topic(target), key="event_id", name="out")
        flow.run(until="drained" if events else None, state=f"{work}/state")

    return run


def quix(brokers: str, source: str, target: str, events: int, work: str) -> None:
    """Quix Streams, exactly-once, with the keys it has seen in its state."""
    from quixstreams import Application

    app = Application(
        broker_address=brokers, consumer_group=target, auto_offset_reset="earliest", state_dir=f"{work}/state",
        processing_guarantee="exactly-once", loglevel="ERROR",
    )  # fmt: skip

    def is_new(_: Any, state: Any) -> bool:
        if state.exists("seen"):
            return False
        state.set("seen", True)
        return True

    frame = app.dataframe(app.topic(source, value_deserializer="json"))
    frame.filter(is_new, stateful=True).to_topic(app.topic(target, value_serializer="json"))
    app.run(count=events)


def sender(brokers: str, source: str, rate: str, count: int, _work: str) -> None:
    """So many events a second, each with its number and the time in microseconds."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 2, "queue.buffering.max.messages": 1_000_000})
    note = "x" * 120
    began, sent = time.time(), 0
    while sent < count:
        due = min(count, int((time.time() - began) * int(rate)) + 1)
        for number in range(sent, due):
            event = f"{number:032d}"
            text = f'{{"event_id":"{event}","sent":{time.time_ns() // 1000},"note":"{note}"}}'
            producer.produce(source, text.encode(), event.encode())
        sent = max(sent, due)
        producer.poll(0)
        time.sleep(0.001)
    producer.flush()


def reader(brokers: str, _source: str, target: str, count: int, _work: str) -> None:
    """Until so many events have come at read_committed: milliseconds since each was sent, in order of number."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": "reader", "enable.auto.commit": False, "fetch.wait.max.ms": 10}
    )
    consumer.assign([TopicPartition(target, number, 0) for number in ends_of(consumer, target)])
    times = [0.0] * count
    got = 0
    while got < count:
        first = consumer.poll(0.1)  # consume() would wait for its whole timeout, and count it as latency
        now = time.time_ns() // 1000
        messages = [] if first is None else [first, *consumer.consume(10_000, 0)]
        for message in messages:
            row = json.loads(message.value())
            times[int(row["event_id"])] = (now - row["sent"]) / 1000
        got += len(messages)
    consumer.close()
    print(json.dumps({"milliseconds": times}))


CONTESTANTS = {
    "plain loop": Contestant(plain, is_exact=False),
    "onefold exactly-once": Contestant(onefold("exactly-once"), is_exact=True),
    "onefold at-least-once": Contestant(onefold("at-least-once"), is_exact=False),
    "quix streams": Contestant(quix, is_exact=True, counts_kept=True),
}
HELPERS: dict[str, Callable[..., None]] = {"sender": sender, "reader": reader}


def main() -> None:
    """See the module's docstring."""
    name, brokers, source, target, events, work = sys.argv[1:]
    if name in HELPERS:
        HELPERS[name](brokers, source, target, int(events), work)
        return
    began = time.perf_counter()
    CONTESTANTS[name.removesuffix(", forever")].run(brokers, source, target, int(events), work)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    inside, cpu = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    print(json.dumps({"inside": inside, "cpu": cpu, "peak_mb": usage.ru_maxrss / 1024}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
