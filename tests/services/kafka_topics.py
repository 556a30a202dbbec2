"""Topics fed and read by another client than onefold's. Imports nothing of onefold."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic

from tests.crash import oracle
from tests.crash.inputs import arrive as arrive_in_files

VARIABLE = "ONEFOLD_KAFKA"

VISIBLE_SECONDS = 30.0


def address() -> str:
    """The brokers that the test runs against."""
    return os.environ[VARIABLE]


def name_in(folder: Path, what: str) -> str:
    """A topic's name that no other folder has."""
    return f"{what}-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"


def make(names: dict[str, int], **configs: str) -> None:
    """Make topics, each with so many partitions."""
    admin = KafkaAdminClient(bootstrap_servers=address())
    topics = [NewTopic(name, count, 1, topic_configs=configs) for name, count in names.items()]
    admin.create_topics(topics)
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not names.keys() <= set(admin.list_topics()) and time.monotonic() < deadline:
        time.sleep(0.05)  # the controller has made them, the broker may not have heard of it
    admin.close()


def arrive(folder: Path, life: int) -> bool:
    """The files of this life, and their lines in the topic `in`; the topic `out` as well."""
    if life == 0:
        make({name_in(folder, "in"): 1, name_in(folder, "out"): 3})
    has_all = arrive_in_files(folder, life)
    mark = folder / "sent"
    sent = int(mark.read_text()) if mark.exists() else 0
    lines = list(oracle.lines_of(folder))
    if len(lines) > sent:
        produce(name_in(folder, "in"), lines[sent:])
        mark.write_text(str(len(lines)))
    return has_all


def arrive_out_only(folder: Path, life: int) -> bool:
    """The files of this life; the topic `out`."""
    if life == 0:
        make({name_in(folder, "out"): 3})
    return arrive_in_files(folder, life)


def produce(
    topic: str, values: list[bytes], keys: Sequence[bytes | None] | None = None, *, partition: int | None = None
) -> None:
    """Write values, acknowledged."""
    producer = KafkaProducer(bootstrap_servers=address(), acks="all", linger_ms=5)
    sent = [
        producer.send(topic, value, key=keys[place] if keys else None, partition=partition)
        for place, value in enumerate(values)
    ]
    producer.flush()
    for future in sent:
        future.get(timeout=30)
    producer.close()


def delete_before(topic: str, partition: int, offset: int) -> None:
    """Lose the records before an offset, as retention does."""
    admin = KafkaAdminClient(bootstrap_servers=address())
    admin.delete_records({TopicPartition(topic, partition): offset})
    admin.close()


def delete(topic: str) -> None:
    """Delete a topic."""
    admin = KafkaAdminClient(bootstrap_servers=address())
    admin.delete_topics([topic])
    admin.close()


def delete_group(group: str) -> None:
    """Lose a group with its offsets, as an administrator may."""
    admin = KafkaAdminClient(bootstrap_servers=address())
    admin.delete_groups([group])
    admin.close()


def add_partitions(topic: str, count: int) -> None:
    """Have so many partitions from now on."""
    admin = KafkaAdminClient(bootstrap_servers=address())
    admin.create_partitions({topic: NewPartitions(count)})
    admin.close()


def records(topic: str) -> Iterator[Any]:
    """What is committed, from each partition's beginning to its end."""
    consumer = KafkaConsumer(
        bootstrap_servers=address(), isolation_level="read_committed", enable_auto_commit=False, group_id=None
    )
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(partitions)
    while any(consumer.position(one) < ends[one] for one in partitions):
        for found in consumer.poll(timeout_ms=500).values():
            yield from found
    consumer.close()


def rows(topic: str) -> list[tuple[Any, ...]]:
    """Ledger rows."""
    found = []
    for record in records(topic):
        row = json.loads(record.value, parse_float=Decimal)
        found.append(oracle.typed(tuple(row[name] for name in oracle.COLUMNS)))
    return found
