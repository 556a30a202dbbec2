"""Reading ahead: bounded batches of decoded rows, one epoch's worth at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pyarrow as pa

from onefold.engines.embedded.pipeline import EpochInput, Pipeline
from onefold.errors import InputLost, OnefoldError
from onefold.operators.reading import DecodedPart
from onefold.plan import ReadNode, Settings
from onefold.protocols import Clock, Limit, Remarking, Source
from onefold.types import EpochNumber, PartitionId, Position, Positions, Skip

__all__ = ["Ingest", "Loss", "gathering"]

DECODE_BYTES = 1 << 20
"""Small reads are decoded together, up to so much at once."""

BACKLOG_BYTES = 64 << 10
"""A read that gives less has taken all that was there: another one would only find what has come meanwhile."""

ROUND_SECONDS = 0.01
"""How often an epoch that gathers looks at its sources."""

PEEKS = 20
"""Short reads that look for a loss: a source that has nothing yet may find it in the next."""

Name = TypeVar("Name", bound=str)
Ends = dict[str, dict[PartitionId, Position]]


@dataclass(frozen=True)
class Loss:
    """A partition that cannot be read on from its position."""

    read: str
    partition: PartitionId
    start: Position
    error: InputLost


@dataclass
class _Gathered:
    parts: dict[str, list[DecodedPart]] = field(default_factory=dict)
    remember: dict[str, list[pa.RecordBatch]] = field(default_factory=dict)
    partitions: dict[str, tuple[PartitionId, ...]] = field(default_factory=dict)
    undecoded: dict[str, dict[PartitionId, list[pa.RecordBatch]]] = field(default_factory=dict)
    size_bytes: int = 0
    rows: int = 0
    has_moved: bool = False
    is_idle: bool = True
    wait_seconds: float = 0.0
    least_bytes: int = 0


class Ingest:
    """Opens the sources and cuts their input into epochs. Its state moves on only with what it hands out.

    One thread, but for `settle` and `close`.
    """

    def __init__(
        self, pipeline: Pipeline, ends: Ends, next_epoch: EpochNumber, settled: Positions | None = None
    ) -> None:
        """ends: where to read next. settled: before where everything has taken effect for good."""
        self._pipeline = pipeline
        self._settled: Positions = settled or {}
        self._telling = threading.Lock()
        self._is_open = False
        self._settings: Settings = pipeline.plan.settings
        self._ends: Ends = {name: dict(ends.get(name, {})) for name in pipeline.readers}
        self._next = next_epoch
        self.is_idle = True
        """After `next` gave None: whether every partition said that nothing more is there; else it may still come."""

    def open(self) -> None:
        """Open every source with what it must remember, and tell it what is settled. Raises SourceUnavailable."""
        for name, reader in self._pipeline.readers.items():
            memory = self._pipeline.memories.get(name)
            with self._naming(name):
                reader.node.source.open(memory.table() if memory is not None else None)
        with self._telling:
            self._is_open = True
            self._tell()

    @contextlib.contextmanager
    def _naming(self, read: str) -> Iterator[None]:
        """An error of a source says whose it is."""
        try:
            yield
        except OnefoldError as error:
            error.where = {"flow": self._pipeline.plan.flow, "read": read, **error.where}
            raise

    def settle(self, ends: Positions) -> None:
        """Tell the sources that everything before these positions has taken effect: now, or when they are open."""
        with self._telling:
            self._settled = ends
            if self._is_open:
                self._tell()

    def _tell(self) -> None:
        for name, reader in self._pipeline.readers.items():
            if name in self._settled:
                reader.node.source.settle(self._settled[name])

    def remarks(self) -> tuple[str, ...]:
        """What the sources have to say of their input, each with the name of its read."""
        sources = {name: reader.node.source for name, reader in self._pipeline.readers.items()}
        return tuple(
            f"read {name}: {what}"
            for name, source in sources.items()
            if isinstance(source, Remarking)
            for what in source.remarks()
        )

    def close(self) -> None:
        """Close every source; nothing is told any more."""
        with self._telling:
            self._is_open = False
        for reader in self._pipeline.readers.values():
            reader.node.source.close()

    def next(self, wait_seconds: float, more: Callable[[bool], bool] | None = None) -> EpochInput | None:
        """The next epoch's input, or None when nothing came within wait_seconds. Raises SourceError.

        An epoch takes what is there, up to epoch_bytes and epoch_rows: small when idle, large when behind. more: asked
        when there is something and room is left, with whether the sources are idle: waits a little and says whether to
        look again.
        """
        gathered = _Gathered()
        gathered.wait_seconds = wait_seconds
        gathered.least_bytes = BACKLOG_BYTES if more is not None else 0
        while True:
            gathered.is_idle = True
            for name in self._in_turn(list(self._pipeline.readers)):
                with self._naming(name):
                    self._read(name, self._pipeline.readers[name].node, gathered)
            if more is None or not gathered.has_moved or self._is_full(gathered) or not more(gathered.is_idle):
                break
        self.is_idle = gathered.is_idle and not gathered.has_moved
        if not gathered.has_moved:
            return None
        for name in list(gathered.undecoded):
            self._decode(name, gathered)
        number = self._next
        self._next = EpochNumber(number + 1)
        ends = {name: dict(marks) for name, marks in self._ends.items()}
        return EpochInput(number, gathered.parts, ends, gathered.remember, gathered.partitions)

    def closing(self) -> EpochInput:
        """An epoch without input that closes every window."""
        return replace(self._empty(), is_closing=True)

    def _empty(self) -> EpochInput:
        number = self._next
        self._next = EpochNumber(number + 1)
        return EpochInput(number, {}, {name: dict(marks) for name, marks in self._ends.items()})

    def losses(self, wait_seconds: float) -> Iterator[Loss]:
        """By reading a little of every partition: where its input is gone. Waits so long for one that says nothing."""
        for name, reader in self._pipeline.readers.items():
            source = reader.node.source
            listed = source.partitions()
            for partition in [*listed, *(gone for gone in self._ends[name] if gone not in listed)]:
                start = self._ends[name].get(partition, listed.get(partition, (None, None))[0])
                try:
                    _peek(source, partition, start, wait_seconds)
                except InputLost as error:
                    yield Loss(name, partition, start, error)

    def skipping(self, losses: Sequence[Loss]) -> EpochInput:
        """An epoch without rows that moves behind what is lost."""
        remember: dict[str, list[pa.RecordBatch]] = {}
        lost: dict[str, int] = {}
        for loss in losses:
            skip: Skip = loss.error.skip
            if skip.to is None:
                self._ends[loss.read].pop(loss.partition, None)
            else:
                self._ends[loss.read][loss.partition] = skip.to
            if skip.remember is not None:
                remember.setdefault(loss.read, []).append(skip.remember)
            lost[loss.read] = lost.get(loss.read, 0) + (skip.records or 0)
        return replace(self._empty(), remember=remember, lost=lost)

    def lag(self) -> Mapping[str, Mapping[PartitionId, tuple[Position, Position | None]]]:
        """By read and partition: (where we read next, the latest position the source knows)."""
        return {
            name: {p: (self._ends[name].get(p), latest) for p, (_, latest) in reader.node.source.partitions().items()}
            for name, reader in self._pipeline.readers.items()
        }

    def _in_turn(self, names: list[Name]) -> list[Name]:
        """Every epoch begins with the next one, so that none that fills epochs by itself starves the others."""
        first = self._next % max(1, len(names))
        return names[first:] + names[:first]

    def _read(self, name: str, node: ReadNode, gathered: _Gathered) -> None:
        marks = self._ends[name]
        listed = node.source.partitions()
        gathered.partitions[name] = tuple(listed)
        gone = [partition for partition in marks if partition not in listed]  # the source says what became of it
        for partition in self._in_turn([*listed, *gone]):
            start = marks[partition] if partition in marks else listed[partition][0]
            while not self._is_full(gathered):
                limit = Limit(
                    rows=self._settings.epoch_rows - gathered.rows,
                    size_bytes=self._settings.epoch_bytes - gathered.size_bytes,
                )
                read = node.source.read(partition, start, limit, 0.0 if gathered.has_moved else gathered.wait_seconds)
                gathered.wait_seconds = 0.0  # the first partition alone waits, so that none waits behind another
                batches = [batch for batch in read.batches if batch.num_rows]
                size = sum(batch.nbytes for batch in batches)
                if read.remember is not None:
                    gathered.remember.setdefault(name, []).append(read.remember)
                gathered.has_moved |= read.next != start or read.remember is not None
                marks[partition] = start = read.next
                if batches:
                    gathered.size_bytes += size
                    gathered.rows += sum(batch.num_rows for batch in batches)
                    waiting = gathered.undecoded.setdefault(name, {})
                    waiting.setdefault(partition, []).extend(batches)
                    if sum(batch.nbytes for some in waiting.values() for batch in some) >= DECODE_BYTES:
                        self._decode(name, gathered)
                if read.is_idle or not batches or size < gathered.least_bytes:
                    gathered.is_idle &= read.is_idle
                    break
            else:
                gathered.is_idle = False

    def _is_full(self, gathered: _Gathered) -> bool:
        return gathered.size_bytes >= self._settings.epoch_bytes or gathered.rows >= self._settings.epoch_rows

    def _decode(self, name: str, gathered: _Gathered) -> None:
        gathered.parts.setdefault(name, []).extend(self._pipeline.readers[name].decode(gathered.undecoded.pop(name)))


def gathering(
    clock: Clock, seconds: float, sleep: Callable[[float], bool], *, until_idle: bool
) -> Callable[[bool], bool]:
    """For `Ingest.next`: says, from its first call on, for so long that an epoch goes on gathering.

    sleep: sleeps so many seconds; True ends the gathering. until_idle: it also ends when nothing more is there.
    """
    end: float | None = None

    def more(is_idle: bool) -> bool:
        nonlocal end
        now = clock.monotonic()
        end = now + seconds if end is None else end
        if now >= end or (is_idle and until_idle):
            return False
        return not sleep(min(end - now, ROUND_SECONDS))

    return more


def _peek(source: Source, partition: PartitionId, start: Position, wait_seconds: float) -> None:
    """Read until something comes, or the source says that nothing is there, or the wait is over. Raises InputLost."""
    for _ in range(PEEKS):
        read = source.read(partition, start, Limit(rows=1, size_bytes=1), wait_seconds / PEEKS)
        if read.is_idle or read.batches or read.next != start:
            return
