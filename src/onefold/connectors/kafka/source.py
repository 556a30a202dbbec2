"""Topics as a stream: partitions are assigned by us, positions come from the journal, a gap is an error.

Source: KIP-320 (leader epochs and truncated logs), KIP-98 (read_committed), KIP-516 (topic ids).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import select
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from onefold.clock import SystemClock
from onefold.connectors.kafka.cluster import Cluster, Topic, TopicPartition
from onefold.connectors.kafka.connection import Connection
from onefold.connectors.kafka.ends import PartitionEnds
from onefold.connectors.kafka.lane import Lane
from onefold.connectors.kafka.library import bridge
from onefold.connectors.kafka.lost import outside_log, partition_gone, topic_remade
from onefold.connectors.kafka.place import FORGOTTEN, MEMORY, Place
from onefold.connectors.kafka.refusal import refusal_of
from onefold.errors import OnefoldError, SourceError, SourceRefused, SourceUnavailable, check
from onefold.protocols import Check, CheckResult, Clock, Format, Limit, Read, Reading, SourcePromise
from onefold.types import Binding, PartitionId, Position

__all__ = ["KafkaSource", "Topics"]

LOG = logging.getLogger("onefold")

REFRESH_SECONDS = 5.0
"""How often new partitions and topics are looked for."""

CLOSE_SECONDS = 3.0
"""How long a source that is closed waits for the answers to its last commits."""

_HEADERS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
_META = pa.schema(
    [
        ("_topic", pa.string()),
        ("_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("_timestamp", pa.timestamp("us", "UTC")),
        ("_key", pa.large_binary()),
        ("_headers", _HEADERS),
    ]
)
_ALWAYS = ("_offset", "_timestamp", "_key")


@dataclass(frozen=True)
class Topics:
    """What is read. names: topics, or patterns that begin with ^. start: where to begin when the flow is new:
    "earliest", "latest", or milliseconds since 1970. group: for lag tools; None: one of the flow's own."""

    names: tuple[str, ...]
    start: Literal["earliest", "latest"] | int = "earliest"
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    group: str | None = None


class KafkaSource:
    """Position: {"topic": the topic's id, "at": next offset, "epoch": leader epoch of the record before it}."""

    def __init__(self, connection: Connection, topics: Topics, clock: Clock | None = None) -> None:
        self._connection = connection
        self._topics = topics
        self._clock = clock or SystemClock()
        self._wanted: frozenset[str] = frozenset(_ALWAYS)
        self._group = topics.group or "onefold"
        self._format: Format | None = None
        self._cluster: Cluster | None = None
        self._consumer: Any = None
        self._lanes: dict[TopicPartition, Lane] = {}
        self._known: dict[str, Topic] = {}
        self._starts: dict[TopicPartition, Place] = {}
        self._untold: set[TopicPartition] = set()
        self._is_new = True
        self._looked_at = 0.0
        self._refused_at = -math.inf
        self._ends: PartitionEnds | None = None
        self._wake: tuple[int, int] | None = None
        self._lock = threading.Lock()

    @property
    def memory(self) -> pa.Schema | None:
        """Where each partition was begun, when that is not its beginning: decided once."""
        return None if self._topics.start == "earliest" else MEMORY

    @property
    def promise(self) -> SourcePromise:
        """Replayable while the topic keeps what is not settled."""
        is_committed = self._topics.isolation == "read_committed"
        return SourcePromise(
            is_replayable=True,
            is_ordered=True,
            payload="bytes",
            meta=_META,
            gap="the position is outside the log, its leader epoch was truncated away, or the topic has another id",
            isolation="read_committed hides what was aborted" if is_committed else "none: aborted records are read",
            conditions=(
                "the topic keeps records longer than the flow may stand still",
                "no record is compacted away before it is read, or only the newest one of its key matters",
            ),
        )

    def told(self, reading: Reading) -> None:
        """Which columns are read, and the group that lag tools are told."""
        self._wanted = frozenset({*_ALWAYS, *reading.meta})
        self._format = reading.format
        self._group = self._topics.group or f"onefold.{reading.flow}.{reading.name}"

    def sees(self, target: str) -> bool:
        """Whether this is one of the topics."""
        label, _, topic = target.rpartition(":")
        patterns = [name for name in self._topics.names if name.startswith("^")]
        is_named = topic in self._topics.names or any(re.search(pattern, topic) for pattern in patterns)
        return label == self._connection.label and is_named

    def open(self, remembered: pa.Table | None) -> None:
        """Connect, look at the topics, and ask what we may do. Raises SourceRefused, SourceUnavailable, SettingMissing,
        ExtraMissing."""
        self.close()
        self._cluster = Cluster(self._connection, SourceUnavailable)
        self._ends = PartitionEnds(self._cluster, self._clock)
        self._starts, self._known, self._lanes, self._untold = {}, {}, {}, set()
        rows = remembered.to_pylist() if remembered is not None else []
        for row in rows:
            self._starts[TopicPartition(row["topic"], row["partition"])] = Place(row["id"], row["at"])
        self._starts = {one: place for one, place in self._starts.items() if place.at != FORGOTTEN}
        self._is_new = not rows
        self._look(self._cluster.demand_topics(self._topics.names, ["READ"]))
        if not self._known:
            raise SourceRefused(
                f"{self._label}: there is no such topic.",
                expected="a topic that exists, and that we may see",
                next_step="Make the topic, or correct its name.",
            )
        self._cluster.demand_groups([self._group])
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        self._wake = (read_end, write_end)
        compiled = bridge()
        try:
            self._consumer = compiled.Consumer(self._settings(), self._connection.token)
        except compiled.KafkaFault as error:
            raise self._cluster.unavailable(error) from None

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """All now. New ones are found while reading, within REFRESH_SECONDS."""
        if self._clock.monotonic() - self._looked_at >= REFRESH_SECONDS:
            try:
                self._look(self._asked().topics(self._topics.names))
            except SourceUnavailable as error:
                self._looked_at = self._clock.monotonic()
                LOG.warning("%s: %s", self._label, error.summary)
        return {PartitionId(str(one)): (place.position(), None) for one, place in sorted(self._starts.items())}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Records from `start` on. Waits for any partition; so a caller that asks all in turn loses no time.

        Raises InputLost, SourceError, SourceUnavailable.
        """
        one, place = TopicPartition.of(partition), Place.of(start)
        end = None if limit.until is None else Place.of(limit.until)
        if end is not None and place.at >= end.at:
            return Read([], end.position(), self._remember(), is_idle=True)
        lane = self._lane(one, place)
        found = lane.take(limit)
        if found is None and wait_seconds > 0 and all(other.is_drained for other in self._lanes.values()):
            self._wait(wait_seconds)
            found = lane.take(limit)
        self._listen()
        if end is not None:
            return Read(*lane.ended(found, place, end), self._remember())
        if found is None:
            is_idle = self._ends is not None and lane.seen_through() >= self._ends.of(one, self._lanes)
            return Read([], lane.skipped(place), self._remember(), is_idle)
        batch, lane.place = found
        return Read([batch], lane.place.position(), self._remember())

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Commit offsets for lag tools; nothing of ours reads them."""
        offsets = [(TopicPartition.of(name), Place.of(position).at) for name, position in positions.items()]
        with self._lock:
            if self._consumer is not None and offsets:
                self._consumer.commit([(one.topic, one.number, at) for one, at in offsets])

    def close(self) -> None:
        """Let go, and end a read that waits. Offsets that were not answered get CLOSE_SECONDS."""
        with self._lock:
            consumer, self._consumer = self._consumer, None
            wake, self._wake = self._wake, None
        if wake is not None:
            with contextlib.suppress(OSError):
                os.write(wake[1], b"w")
        for lane in self._lanes.values():
            lane.queue.detach()
        self._lanes = {}
        if consumer is not None:
            consumer.flush(int(CLOSE_SECONDS * 1000))
            consumer.close()
        for descriptor in wake or ():
            os.close(descriptor)

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Are the topics there, and may we see them?"""
        try:
            cluster = Cluster(self._connection, SourceUnavailable)
            found = cluster.demand_topics(self._topics.names, ["READ"])
            cluster.demand_groups([self._group])
        except OnefoldError as error:
            return [CheckResult(self._label, "failed", error.summary, error.next_step or "")]
        if not found:
            return [CheckResult(self._label, "failed", "no such topic", "Make it, or correct the name.")]
        count = sum(len(topic.partitions) for topic in found.values())
        of_format = self._format.check(binding) if isinstance(self._format, Check) else ()
        return [CheckResult(self._label, "ok", f"{count} partitions"), *of_format]

    # ------------------------------------------------------------------------------------------------------- inner

    @property
    def _label(self) -> str:
        return f"{self._connection.label}.topic({', '.join(self._topics.names)})"

    def _settings(self) -> dict[str, str]:
        return {
            "fetch.wait.max.ms": "100",
            "queued.max.messages.kbytes": "65536",
            **self._connection.settings(),
            "group.id": self._group,
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "auto.offset.reset": "error",
            "enable.partition.eof": "true",
            "isolation.level": self._topics.isolation,
        }

    def _asked(self) -> Cluster:
        cluster = self._cluster
        check(cluster is not None, "a source is opened before it is read")
        return cluster  # type: ignore[return-value]

    def _look(self, now: Mapping[str, Topic]) -> None:
        """Take topics and partitions in. What appears after the first look is read from its beginning."""
        every = {TopicPartition(topic.name, number): topic for topic in now.values() for number in topic.partitions}
        fresh = [one for one in every if one not in self._starts]
        at = self._topics.start if self._is_new else "earliest"
        found = self._asked().offsets(fresh, at)
        for one in fresh:
            self._starts[one] = Place(every[one].id, found[one][0])
            self._untold.add(one)
        self._known = {**self._known, **now}
        self._is_new = self._is_new and not self._starts
        self._looked_at = self._clock.monotonic()

    def _lane(self, one: TopicPartition, place: Place) -> Lane:
        lane = self._lanes.get(one)
        if lane is not None and lane.place == place:
            return lane
        if lane is not None:
            lane.queue.detach()
        self._demand_same_topic(one, place)
        self._demand_in_log(one, place)
        compiled = bridge()
        wake = self._wake
        check(wake is not None and self._consumer is not None, "a source is opened before it is read")
        try:
            queue = self._consumer.attach(one.topic, one.number, place.at, place.epoch, wake[1])  # type: ignore[index]
        except compiled.KafkaFault as error:
            raise SourceUnavailable(f"{self._label} cannot be read.", found=error.text, partition=str(one)) from error
        lane = self._lanes[one] = Lane(self, one, queue, place)
        return lane

    def _demand_in_log(self, one: TopicPartition, place: Place) -> None:
        log = self._log_of(one)
        if not log[0] <= place.at <= log[1]:
            raise outside_log(self._label, one, place, log=log)

    def _demand_same_topic(self, one: TopicPartition, place: Place) -> None:
        topic = self._known.get(one.topic)
        if topic is None or one.number not in topic.partitions:
            raise partition_gone(self._label, one, place, self._forgotten(one))
        if place.topic and topic.id and place.topic != topic.id:
            raise topic_remade(self._label, one, place, Place(topic.id, self._log_of(one)[0]))

    def lost(self, one: TopicPartition, place: Place, fault: Any) -> SourceError:
        """The error of a position that the log does not hold any more."""
        log = None
        with contextlib.suppress(SourceError):
            log = self._log_of(one)
        return outside_log(self._label, one, place, log=log, said=fault.text)

    def _log_of(self, one: TopicPartition) -> tuple[int, int]:
        """Its first offset, and the one after its last."""
        asked = self._asked()
        return asked.offsets([one], "earliest")[one][0], asked.offsets([one], "latest")[one][0]

    def _forgotten(self, one: TopicPartition) -> pa.RecordBatch | None:
        if self.memory is None:
            return None
        row = {"topic": one.topic, "partition": one.number, "id": "", "at": FORGOTTEN}
        return pa.RecordBatch.from_pylist([row], MEMORY)

    def columns_of(self, one: TopicPartition, taken: Any) -> pa.RecordBatch:
        """What is wanted of some messages, as one batch."""
        values, keys, offsets, times, headers, _ = taken
        count = len(values)
        columns: dict[str, Any] = {"_value": values}
        if "_topic" in self._wanted:
            columns["_topic"] = pa.array([one.topic]).take(pa.array(np.zeros(count, np.int32)))
        if "_partition" in self._wanted:
            columns["_partition"] = pa.array(np.full(count, one.number, np.int32))
        columns["_offset"] = pa.array(offsets)
        columns["_timestamp"] = pa.array(times * 1000, mask=times < 0).cast(_META.field("_timestamp").type)
        columns["_key"] = keys
        if headers is not None:
            rows = [[{"name": name, "value": value} for name, value in row] for row in headers]
            columns["_headers"] = pa.array(rows, _HEADERS)
        return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))

    @property
    def wants_headers(self) -> bool:
        """Whether headers are read: they cost an object each."""
        return "_headers" in self._wanted

    @property
    def clock(self) -> Clock:
        """Decides only when to look again."""
        return self._clock

    def _remember(self) -> pa.RecordBatch | None:
        """All that is new at once, so that either every partition of a look is remembered or none."""
        if self.memory is None or not self._untold:
            return None
        rows = [
            {"topic": one.topic, "partition": one.number, "id": self._starts[one].topic, "at": self._starts[one].at}
            for one in sorted(self._untold)
        ]
        self._untold.clear()
        return pa.RecordBatch.from_pylist(rows, MEMORY)

    def _wait(self, seconds: float) -> None:
        wake = self._wake
        if wake is not None:
            ready, _, _ = select.select([wake[0]], [], [], seconds)
            if ready:
                with contextlib.suppress(OSError):
                    os.read(wake[0], 4096)
                for lane in self._lanes.values():  # one of them has something
                    lane.is_drained = False

    def _listen(self) -> None:
        for told in self._consumer.poll(0):
            if told[0] == "error":
                fault = told[1]
                text = self._connection.clean(f"{fault.name}: {fault.text}")
                LOG.info("%s: %s", self._label, text)
                if fault.is_fatal:
                    raise SourceUnavailable(f"{self._label} cannot be read any more.", found=text)
                if fault.name.endswith("_AUTHORIZATION_FAILED") or refusal_of(fault.name, fault.text) is not None:
                    self._ask_anew(text)

    def _ask_anew(self, text: str) -> None:
        """Whether one broker refused us once, or the cluster does: a client that is new has to be let in again."""
        now = self._clock.monotonic()
        if now - self._refused_at >= REFRESH_SECONDS:
            self._refused_at = now
            Cluster(self._connection, SourceUnavailable).demand_topics(self._topics.names, ["READ"])
            LOG.warning("%s: refused by a broker, but not by the cluster: %s", self._label, text)
