"""Where partitions end, asked again and again without waiting for the answers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any

from onefold.connectors.kafka.cluster import Cluster, TopicPartition
from onefold.errors import SourceUnavailable
from onefold.protocols import Clock

__all__ = ["PartitionEnds"]

FRESH_SECONDS = 0.05
"""How often the ends of partitions are asked for while some have nothing to give."""

STALE_SECONDS = 1.0
"""An answer that came longer ago is none; how long it was on its way does not count, or a slow cluster had no end."""


class PartitionEnds:
    """The latest answer, and the question that is under way."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._answers: dict[TopicPartition, Any] = {}
        self._asked_at = self._answered_at = -math.inf
        self._ends: dict[TopicPartition, int] = {}

    def of(self, one: TopicPartition, among: Iterable[TopicPartition]) -> float:
        """Where the partition ended a moment ago; nowhere as long as nobody has answered. among: all that are asked for
        in one question. An answer is given once, so that a later one was asked for after the former was given.
        """
        now = self._clock.monotonic()
        if self._answers and all(answer.done() for answer in self._answers.values()):
            answers, self._answers = self._answers, {}
            with contextlib.suppress(SourceUnavailable):
                self._ends = {other: self._cluster.offset_of(other.topic, found)[0] for other, found in answers.items()}
                self._answered_at = now
        if now - self._answered_at > STALE_SECONDS:
            self._ends = {}
        end = self._ends.pop(one, None)
        if end is None and not self._answers and now - self._asked_at > FRESH_SECONDS:
            self._answers, self._asked_at = self._cluster.ask_ends(among), now
        return math.inf if end is None else end
