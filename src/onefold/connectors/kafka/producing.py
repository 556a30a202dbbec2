"""One producer, thrown away as soon as anything about it is in doubt.

No Python client has the second part of KIP-890, so a delayed commit or abort of one transaction can hit the next one of
the same producer (KAFKA-17754). A new producer has a new epoch, which such a request cannot carry.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from onefold.connectors.kafka.library import bridge
from onefold.connectors.kafka.messages import Batch
from onefold.protocols import Clock

__all__ = ["Producing"]

LOG = logging.getLogger("onefold")
POLL_MS = 50
STATS_MS = 1000
_FENCED = ("_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH")
_SUSPECT = ("txretries", "req_timeouts")
"""Broker counters that move when a request was sent again, or given up: a copy of it may still be on its way."""


class Producing:
    """A producer's life: from `Producing(…)` to `close`. settings: librdkafka's. Raises KafkaFault."""

    def __init__(self, settings: Mapping[str, str], clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, int] = {}
        self.is_suspect = False
        self.first_fault: Any = None
        self.failed = 0
        self._producer = bridge().Producer({**settings, "statistics.interval.ms": str(STATS_MS)})

    def begin(self, timeout_seconds: float) -> None:
        """Fence every other producer of the same transactional.id."""
        self._producer.init_transactions(_ms(timeout_seconds))

    def send(self, topic: str, batch: Batch, deadline: float) -> None:
        """Hand over all messages and wait until each was acknowledged. Raises KafkaFault, TimeoutError."""
        values, keys, headers = batch
        row = 0
        while row < len(values):
            if headers is None:
                row = self._producer.produce(topic, values, keys, first=row)
            else:
                row = self._producer.produce_with_headers(topic, values, keys, headers, first=row)
            self._listen(0 if row == len(values) else POLL_MS)
            self._demand_in_time(deadline)
        self._producer.flush(1)  # it waits for no more rows
        while self._producer.outstanding():
            self._listen(POLL_MS)
            self._demand_in_time(deadline)
        self._producer.release()
        if self.first_fault is not None:
            raise self.first_fault

    def transact(self) -> None:
        """Begin a transaction."""
        self.first_fault, self.failed = None, 0
        self._producer.begin_transaction()

    def finish(self, offsets: Mapping[str, tuple[str, int, int, bytes]], timeout_seconds: float) -> None:
        """Commit the rows with an offset of each group. Raises KafkaFault: whether it landed may be unknown."""
        for group, offset in offsets.items():
            self._producer.send_offsets(group, [offset], _ms(timeout_seconds))
        self._producer.commit_transaction(_ms(timeout_seconds))
        self._listen(0)

    def abort(self, timeout_seconds: float) -> None:
        """Abort. Raises KafkaFault."""
        self._producer.abort_transaction(_ms(timeout_seconds))

    def is_fenced(self) -> bool:
        """Whether another producer has taken the transactional.id."""
        fault = self._producer.fatal_error()
        return fault is not None and fault.name in _FENCED

    def close(self) -> None:
        """Throw it away, with what it still holds."""
        self._producer.close()

    def _listen(self, timeout_ms: int) -> None:
        for told in self._producer.poll(timeout_ms):
            match told:
                case ("delivered", _, fault, failed):
                    self.first_fault = self.first_fault or fault
                    self.failed += failed
                case ("error", fault):
                    LOG.info("kafka: %s", fault.text)
                    self.is_suspect |= fault.is_fatal
                case ("stats", text):
                    self._judge(text)
                case _:
                    pass

    def _judge(self, text: str) -> None:
        for name, broker in json.loads(text).get("brokers", {}).items():
            for counter in _SUSPECT:
                count = int(broker.get(counter, 0))
                if count > self._seen.get(f"{name} {counter}", 0):
                    self._seen[f"{name} {counter}"] = count
                    self.is_suspect = True

    def _demand_in_time(self, deadline: float) -> None:
        if self._clock.monotonic() > deadline:
            raise TimeoutError("the transaction would outlive its timeout")


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
