"""One producer, which begins no second transaction once anything about it is in doubt.

No Python client has the second part of KIP-890, so a delayed request of one transaction can hit the next one of the
same producer (KAFKA-17754): end it half-way, or put the old token back. A new producer has a new epoch, which such a
request cannot carry.

Doubt begins when a connection broke or a request timed out, because librdkafka then sends again what may still be on
its way, and the call succeeds. It logs that before it sends again, so we know when the call returns; its statistics
come up to a second later. It is never taken back: librdkafka says the same only once in 30 seconds.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from onefold.connectors.kafka.connection import Connection
from onefold.connectors.kafka.library import bridge
from onefold.connectors.kafka.messages import Batch
from onefold.protocols import Clock

__all__ = ["Producing"]

LOG = logging.getLogger("onefold")
POLL_MS = 50
STATS_MS = 1000

LATE_SECONDS = 1.0
"""How much later than its time a call may come back. One that has not by then may never."""

MARKERS_SECONDS = 0.1
"""How long a broker may go on ending a transaction after its answer. An offset that comes sooner is turned away and
sent again, which looks like a request that was lost: the producer would be thrown away for nothing."""

_FENCED = ("_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH")
_SUSPECT_LOGS = ("FAIL", "REQTMOUT")
"""Facilities of librdkafka's logs: a connection ended, a request got no answer in time."""

_SUSPECT = ("txretries", "req_timeouts")
"""Broker counters that move when a request was sent again, or given up."""


class Producing:
    """A producer's life: from `Producing(…)` to `close`. settings: librdkafka's. Raises KafkaFault."""

    def __init__(self, settings: Mapping[str, str], connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._seen: dict[str, int] = {}
        self.is_suspect = False
        self.first_fault: Any = None
        self.failed = 0
        self._transactions = 0
        self._lock = threading.Lock()
        self._is_called = False
        self._is_closed = False
        self._has_rows = False
        self._finished_at = -math.inf
        self._producer = bridge().Producer({**settings, "statistics.interval.ms": str(STATS_MS)}, connection.token)

    def begin(self, timeout_seconds: float) -> None:
        """Fence every other producer of the same transactional.id."""
        self._producer.init_transactions(_ms(timeout_seconds))

    def send(self, topic: str, batch: Batch, deadline: float) -> None:
        """Hand over all messages and wait until each was acknowledged. Raises KafkaFault, TimeoutError."""
        values, keys, headers = batch
        self._has_rows |= len(values) > 0
        row = 0
        while row < len(values):
            if headers is None:
                row = self._producer.produce(topic, values, keys, first=row)
            else:
                row = self._producer.produce_with_headers(topic, values, keys, headers, first=row)
            self._listen(0 if row == len(values) else POLL_MS)
            self._demand_in_time(deadline)
        while self._producer.outstanding():
            self._listen(POLL_MS)
            self._demand_in_time(deadline)
        self._producer.release()
        if self.first_fault is not None:
            raise self.first_fault

    def transact(self) -> None:
        """Begin a transaction."""
        self.first_fault, self.failed = None, 0
        self._transactions += 1
        self._has_rows = False
        self._producer.begin_transaction()

    def finish(self, offsets: Mapping[str, tuple[str, int, int, bytes]], timeout_seconds: float) -> None:
        """Commit the rows with an offset of each group. Raises KafkaFault, TimeoutError: it may have landed or may yet
        land, and the producer is good for nothing but `close`."""
        if not self._has_rows:
            self._wait_for_markers()
        until = self._clock.monotonic() + timeout_seconds

        def commit() -> None:
            for group, offset in offsets.items():
                self._producer.send_offsets(group, [offset], _ms(until - self._clock.monotonic()))
            self._producer.commit_transaction(_ms(until - self._clock.monotonic()))

        self._call(commit, timeout_seconds + LATE_SECONDS)
        self._finished_at = self._clock.monotonic()
        self._listen(0)

    def abort(self, timeout_seconds: float) -> None:
        """Abort. Raises KafkaFault."""
        self._producer.abort_transaction(_ms(timeout_seconds))

    def is_spent(self) -> bool:
        """Whether a request of an earlier transaction may still be on its way: then it may not begin another one."""
        self._listen(0)
        return self.is_suspect and self._transactions > 0

    def is_fenced(self) -> bool:
        """Whether another producer has taken the transactional.id."""
        fault = self._producer.fatal_error()
        return fault is not None and fault.name in _FENCED

    def close(self) -> None:
        """Throw it away, with what it still holds. A call that has not come back does so when it does."""
        with self._lock:
            self._is_closed = True
            if not self._is_called:
                self._producer.close()

    def _wait_for_markers(self) -> None:
        until = self._finished_at + MARKERS_SECONDS
        while (left := until - self._clock.monotonic()) > 0:
            self._listen(_ms(left))

    def _call(self, call: Callable[[], None], timeout_seconds: float) -> None:
        """On a thread of its own, because send_offsets may stay away for good (librdkafka's issue 5456)."""
        faults: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as fault:  # noqa: BLE001 - raised again where it is waited for
                faults.append(fault)
            with self._lock:
                self._is_called = False
                if self._is_closed:
                    self._producer.close()

        self._is_called = True
        thread = threading.Thread(target=run, name="kafka", daemon=True)
        thread.start()
        thread.join(timeout_seconds)
        if thread.is_alive():
            raise TimeoutError("the client did not come back in time")
        if faults:
            raise faults[0]

    def _listen(self, timeout_ms: int) -> None:
        for told in self._producer.poll(timeout_ms):
            match told:
                case ("delivered", _, fault, failed):
                    self.first_fault = self.first_fault or fault
                    self.failed += failed
                case ("error", fault):
                    LOG.info("kafka: %s", self._connection.clean(fault.text))
                    self.is_suspect = True
                case ("log", _, facility, text) if facility in _SUSPECT_LOGS:
                    LOG.info("kafka: %s", self._connection.clean(text))
                    self.is_suspect = True
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
