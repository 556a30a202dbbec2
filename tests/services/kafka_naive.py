"""A writer as most are: one transactional producer for its whole life, which trusts each call that succeeds.

Plain confluent_kafka; imports nothing of onefold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException, Producer

SECONDS = 15.0


class NaiveWriter:
    """A producer of a topic with two partitions."""

    def __init__(self, address: str, topic: str) -> None:
        self._topic = topic
        self._settings = {
            "bootstrap.servers": address,
            "transactional.id": f"naive-{topic}",
            "transaction.timeout.ms": 20_000,
            "socket.timeout.ms": 1000,
            "linger.ms": 0,
            "log_level": 2,
        }
        self.begin_anew()

    def begin_anew(self) -> None:
        """With another producer."""
        self._producer = Producer(self._settings)
        self._producer.init_transactions(SECONDS)

    def write(self, partition: int, *values: bytes) -> None:
        """Into the open transaction, acknowledged."""
        refused: list[Any] = []
        for value in values:
            self._producer.produce(
                self._topic, value, partition=partition, on_delivery=lambda e, _: refused.append(e) if e else None
            )
        self._producer.flush(SECONDS)
        if refused:
            raise KafkaException(refused[0])

    def begin(self) -> None:
        """A transaction."""
        self._producer.begin_transaction()

    def commit(self) -> None:
        """Raises KafkaException."""
        self._producer.commit_transaction(SECONDS)

    def abort(self) -> None:
        """Raises KafkaException."""
        self._producer.abort_transaction(SECONDS)


def late_abort(writer: NaiveWriter, arrives: Callable[[], None]) -> None:
    """One transaction is aborted; the abort is repeated by the client, and its first copy hits the next transaction,
    whose commit succeeds."""
    writer.begin()
    writer.write(0, b"given up")
    writer.abort()
    writer.begin()
    writer.write(0, b"a")
    arrives()
    writer.write(1, b"b")
    writer.commit()


def late_commit(writer: NaiveWriter, arrives: Callable[[], None]) -> None:
    """One transaction is committed; the commit is repeated by the client, and its first copy hits the next one, which
    the writer gives up, and writes again."""
    writer.begin()
    writer.write(0, b"first")
    writer.commit()
    writer.begin()
    writer.write(0, b"a")
    arrives()
    try:
        writer.abort()
    except KafkaException:  # the broker says that there is no transaction: so it was aborted, it seems
        writer.begin_anew()
    writer.begin()
    writer.write(0, b"a")
    writer.write(1, b"b")
    writer.commit()
