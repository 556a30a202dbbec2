"""One partition that is being fetched: what is here now, what is the end, what may be skipped."""

from __future__ import annotations

import bisect
from dataclasses import replace
from typing import Any, Protocol

import pyarrow as pa

from onefold.connectors.kafka.cluster import TopicPartition
from onefold.connectors.kafka.place import Place
from onefold.errors import SourceError, SourceUnavailable
from onefold.protocols import Clock, Limit
from onefold.types import Position

__all__ = ["Lane"]

SKIP_SECONDS = 30.0
"""How long a position may stand before records that are none (aborted, control) until it moves over them."""


class Fetcher(Protocol):
    """The source that a lane belongs to."""

    @property
    def clock(self) -> Clock:
        """Decides only when to look again."""
        ...

    @property
    def wants_headers(self) -> bool:
        """Whether headers are read."""
        ...

    def columns_of(self, one: TopicPartition, taken: Any) -> pa.RecordBatch:
        """Messages as one batch."""
        ...

    def lost(self, one: TopicPartition, place: Place, fault: Any) -> SourceError:
        """The error of a position that the log does not hold any more."""
        ...


class Lane:
    """One partition that is being fetched."""

    def __init__(self, source: Fetcher, one: TopicPartition, queue: Any, place: Place) -> None:
        self.queue = queue
        self.place = place
        self.is_drained = False
        self._source = source
        self._one = one
        self._end = -1
        self._fault: Any = None
        self._skip_at = source.clock.monotonic() + SKIP_SECONDS

    def take(self, limit: Limit) -> tuple[pa.RecordBatch, Place] | None:
        """Some records and the place after them; None when none is here now."""
        if self._fault is not None:
            raise self._error(self._fault)
        taken, end, self._fault = self.queue.take(limit.rows, limit.size_bytes, self._source.wants_headers)
        if end is not None:
            self._end = end
        if taken is None and self._fault is not None:
            raise self._error(self._fault)
        self.is_drained = taken is None
        if taken is None:
            return None
        offsets = taken[2]
        place = replace(self.place, at=int(offsets[-1]) + 1, epoch=taken[-1])
        self._skip_at = self._source.clock.monotonic() + SKIP_SECONDS
        return self._source.columns_of(self._one, taken), place

    def ended(
        self, found: tuple[pa.RecordBatch, Place] | None, place: Place, end: Place
    ) -> tuple[list[pa.RecordBatch], Position]:
        """What was found, before `end`; and the place after it, which is `end` when no record is between them."""
        if found is None:
            return [], (end if self.seen_through() >= end.at else place).position()
        batch, self.place = found
        if self.place.at < end.at:
            return [batch], self.place.position()
        count = bisect.bisect_left(batch.column("_offset").to_pylist(), end.at)
        return [batch.slice(0, count)], end.position()

    def seen_through(self) -> int:
        """Every record before this offset was given, as far as we know."""
        return max(self._end, self.place.at)

    def skipped(self, place: Place) -> Position:
        """Now and then a position moves over what is no record, lest it falls out of the log."""
        if self._end > place.at and self._source.clock.monotonic() >= self._skip_at:
            self._skip_at = self._source.clock.monotonic() + SKIP_SECONDS
            self.place = replace(place, at=self._end)
        return self.place.position()

    def _error(self, fault: Any) -> SourceError:
        if fault.name in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "_LOG_TRUNCATION"):
            return self._source.lost(self._one, self.place, fault)
        return SourceUnavailable("A partition cannot be read.", partition=str(self._one), found=fault.text)
