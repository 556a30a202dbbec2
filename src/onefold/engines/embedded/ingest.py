"""Reading ahead: bounded batches of decoded rows, one epoch's worth at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from onefold.engines.embedded.pipeline import EpochInput, Pipeline
from onefold.operators.reading import DecodedPart
from onefold.plan import ReadNode, Settings
from onefold.protocols import Limit
from onefold.types import EpochNumber, PartitionId, Position

__all__ = ["Ingest"]

Name = TypeVar("Name", bound=str)
Ends = dict[str, dict[PartitionId, Position]]


@dataclass
class _Gathered:
    parts: dict[str, list[DecodedPart]] = field(default_factory=dict)
    remember: dict[str, list[pa.RecordBatch]] = field(default_factory=dict)
    partitions: dict[str, tuple[PartitionId, ...]] = field(default_factory=dict)
    size_bytes: int = 0
    rows: int = 0
    has_moved: bool = False
    is_idle: bool = True
    wait_seconds: float = 0.0


class Ingest:
    """Opens the sources and cuts their input into epochs. One thread; state moves on only with what it hands out."""

    def __init__(self, pipeline: Pipeline, ends: Ends, next_epoch: EpochNumber) -> None:
        self._pipeline = pipeline
        self._settings: Settings = pipeline.plan.settings
        self._ends: Ends = {name: dict(ends.get(name, {})) for name in pipeline.readers}
        self._next = next_epoch
        self.is_idle = True
        """After `next` gave None: whether every partition said that nothing more is there; else it may still come."""

    def open(self) -> None:
        """Open every source with what it must remember. Raises SourceUnavailable."""
        for name, reader in self._pipeline.readers.items():
            memory = self._pipeline.memories.get(name)
            reader.node.source.open(memory.table() if memory is not None else None)

    def close(self) -> None:
        """Close every source."""
        for reader in self._pipeline.readers.values():
            reader.node.source.close()

    def next(self, wait_seconds: float) -> EpochInput | None:
        """The next epoch's input, or None when nothing came within wait_seconds. Raises SourceError.

        An epoch takes what is there, up to epoch_bytes and epoch_rows: small when idle, large when behind.
        """
        gathered = _Gathered()
        gathered.wait_seconds = wait_seconds
        for name in self._in_turn(list(self._pipeline.readers)):
            self._read(name, self._pipeline.readers[name].node, gathered)
        self.is_idle = gathered.is_idle and not gathered.has_moved
        if not gathered.has_moved:
            return None
        number = self._next
        self._next = EpochNumber(number + 1)
        ends = {name: dict(marks) for name, marks in self._ends.items()}
        return EpochInput(number, gathered.parts, ends, gathered.remember, gathered.partitions)

    def closing(self) -> EpochInput:
        """An epoch without input that closes every window."""
        number = self._next
        self._next = EpochNumber(number + 1)
        return EpochInput(number, {}, {name: dict(marks) for name, marks in self._ends.items()}, is_closing=True)

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
        for partition in self._in_turn(list(listed)):
            start = marks.get(partition, listed[partition][0])
            while gathered.size_bytes < self._settings.epoch_bytes and gathered.rows < self._settings.epoch_rows:
                limit = Limit(
                    rows=self._settings.epoch_rows - gathered.rows,
                    size_bytes=self._settings.epoch_bytes - gathered.size_bytes,
                )
                read = node.source.read(partition, start, limit, 0.0 if gathered.has_moved else gathered.wait_seconds)
                gathered.wait_seconds = 0.0  # the first partition alone waits, so that none waits behind another
                batches = [batch for batch in read.batches if batch.num_rows]
                if read.remember is not None:
                    gathered.remember.setdefault(name, []).append(read.remember)
                gathered.has_moved |= read.next != start or read.remember is not None
                marks[partition] = start = read.next
                if batches:
                    gathered.size_bytes += sum(batch.nbytes for batch in batches)
                    gathered.rows += sum(batch.num_rows for batch in batches)
                    reader = self._pipeline.readers[name]
                    gathered.parts.setdefault(name, []).append(reader.decode(partition, batches))
                if read.is_idle or not batches:
                    gathered.is_idle &= read.is_idle
                    break
            else:
                gathered.is_idle = False
