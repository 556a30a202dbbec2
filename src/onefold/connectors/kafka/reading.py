"""Consumers that belong to no flow: what a sink looks up in its cluster."""

from __future__ import annotations

import os
import select

import pyarrow as pa

from onefold.connectors.kafka.cluster import Cluster, TopicPartition
from onefold.connectors.kafka.connection import Connection
from onefold.connectors.kafka.library import bridge
from onefold.connectors.kafka.messages import Headers
from onefold.errors import SinkUnavailable
from onefold.protocols import Clock

__all__ = ["consumer_settings", "read_topic"]

_ONLY_PRODUCERS = ("transaction.timeout.ms", "compression.type", "compression.level", "linger.ms", "partitioner",
                   "request.timeout.ms")  # fmt: skip
_MOST_ROWS = 100_000
_MOST_BYTES = 64 << 20


def consumer_settings(connection: Connection, group: str) -> dict[str, str]:
    """For a consumer that sees what is committed, and commits nothing by itself. Raises SettingMissing."""
    shared = {name: value for name, value in connection.settings().items() if name not in _ONLY_PRODUCERS}
    return {
        **shared,
        "group.id": group,
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "auto.offset.reset": "error",
        "enable.partition.eof": "true",
        "isolation.level": "read_committed",
    }


def read_topic(
    connection: Connection, topic: str, silence_seconds: float, clock: Clock, *, with_headers: bool
) -> tuple[pa.ChunkedArray, pa.ChunkedArray, list[Headers]]:
    """Values, keys and headers of all that is committed now, partition after partition.

    silence_seconds: how long nothing may come before we give up. Raises KafkaFault, SinkUnavailable.
    """
    cluster = Cluster(connection, SinkUnavailable)
    found = cluster.topics([topic]).get(topic)
    parts = [TopicPartition(topic, number) for number in (found.partitions if found else ())]
    first, last = cluster.offsets(parts, "earliest"), cluster.offsets(parts, "latest")
    values: list[pa.Array] = []
    keys: list[pa.Array] = []
    headers: list[Headers] = []
    consumer = bridge().Consumer(consumer_settings(connection, "onefold"), connection.token)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        for one in parts:
            at, end = first[one][0], last[one][0]
            queue = consumer.attach(topic, one.number, at, -1, write_end)
            deadline = clock.monotonic() + silence_seconds
            while at < end:
                taken, seen, fault = queue.take(_MOST_ROWS, _MOST_BYTES, with_headers)
                if fault is not None:
                    raise fault
                if taken is not None:
                    values.append(taken[0])
                    keys.append(taken[1])
                    headers += taken[4] or [()] * len(taken[0])
                    at = int(taken[2][-1]) + 1
                    deadline = clock.monotonic() + silence_seconds
                if seen is not None:
                    at = max(at, seen)
                if taken is None and seen is None:
                    if clock.monotonic() > deadline:
                        raise SinkUnavailable(f"The topic {topic} cannot be read to its end.", partition=str(one))
                    if select.select([read_end], [], [], 0.1)[0]:
                        os.read(read_end, 4096)
            queue.detach()
    finally:
        consumer.close()
        os.close(read_end)
        os.close(write_end)
    kind = pa.large_binary()
    return pa.chunked_array(values, kind), pa.chunked_array(keys, kind), headers
