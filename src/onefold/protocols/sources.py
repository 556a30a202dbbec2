"""What is asked of a source, and what is true if killed inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import pyarrow as pa

from onefold.protocols.formats import Format
from onefold.types import (
    PartitionId,
    Position,
)

__all__ = [
    "Copied", "Copy", "Informed", "LeavesTraces", "Limit", "Read", "Reading", "Remarking", "SeesTargets", "Source",
    "SourcePromise",
]  # fmt: skip


@dataclass(frozen=True)
class SourcePromise:
    """What a source declares; `explain` reads it.

    Args:
        is_replayable: a position can be read again after a crash and gives the same rows.
        is_ordered: rows of a partition come in one order, always the same.
        payload: "bytes" (a column `_value` that a format decodes) or "rows" (typed columns).
        meta: columns beside the payload, such as _file and _offset; they locate a row, in this order.
        gap: how lost input shows, in words.
        isolation: what hides aborted writes of the producer, in words; "" when there are none.
        conditions: sentences that must be true for the promise to hold.
    """

    is_replayable: bool
    is_ordered: bool
    payload: Literal["bytes", "rows"]
    meta: pa.Schema
    gap: str
    isolation: str = ""
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limit:
    """How much one read may return; a read may return less, and at least one record if there is one.

    until: stop before this position (Spark names the end beforehand); None: as far as the limits go.
    """

    rows: int
    size_bytes: int
    until: Position = None


@dataclass(frozen=True)
class Read:
    """What one read gave: batches in order, and where to read next.

    remember: new rows of the source's memory (see Source.memory), to be sealed with the epoch; None: nothing new.
    is_idle: nothing more is there right now; a run until drained may stop when every partition says so.
    """

    batches: Sequence[pa.RecordBatch]
    next: Position
    remember: pa.RecordBatch | None = None
    is_idle: bool = False


@dataclass(frozen=True)
class Reading:
    """How a source is read, for one that wants to know.

    flow, name: of the read; they name its positions. format: what decodes `_value`; None: rows come typed.
    declared: the schema that the flow declares. meta: columns of the source that the flow keeps beside it.
    """

    flow: str
    name: str
    format: Format | None
    declared: pa.Schema
    meta: tuple[str, ...] = ()


@runtime_checkable
class Informed(Protocol):
    """A source that is told how it is read, when the flow is built."""

    def told(self, reading: Reading) -> None:
        """Once, before everything else. Pure. Raises SchemaError, NotSupported."""
        ...


@dataclass(frozen=True)
class Copy:
    """An upsert with deletes that a read feeds, in columns of the read.

    key, latest_by: what the sink's key and version are made of. only: the rows that alone reach it, by column and
    values, as where("_table = 'orders'") says. is_narrowed: other conditions over `meta` may keep out more.
    """

    sink: str
    key: frozenset[str]
    latest_by: frozenset[str] = frozenset()
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_narrowed: bool = False


@runtime_checkable
class Copied(Protocol):
    """A source of changes that knows the keys of its rows."""

    def copied(self, copies: Sequence[Copy]) -> None:
        """Before each `open`: the copies that are made of it. It is `open` that judges them. Pure."""
        ...


@runtime_checkable
class LeavesTraces(Protocol):
    """A source that leaves something behind on its server when it is read, such as a replication slot."""

    def glance(self) -> Source:
        """A source of rows like its own that leaves nothing: for `preview`. Pure."""
        ...


@runtime_checkable
class Remarking(Protocol):
    """A source that may find input which it does not read, or which may be there twice."""

    def remarks(self) -> Sequence[str]:
        """What a person should know of the input as it was last looked at, in sentences. From any thread."""
        ...


@runtime_checkable
class SeesTargets(Protocol):
    """A source that may read what a sink writes: a flow that feeds itself is refused unless the sink is shared."""

    def sees(self, target: str) -> bool:
        """Whether rows written to this SinkPromise.target would be read here. Pure."""
        ...


@runtime_checkable
class Source(Protocol):
    """A place to read from. Read by one thread; `settle` and `close` come from another."""

    @property
    def promise(self) -> SourcePromise:
        """What it declares. Pure."""
        ...

    @property
    def memory(self) -> pa.Schema | None:
        """The schema of what it must remember durably beside positions (admitted files, say), or None.

        Append-only rows. The engine seals them with the epoch in which they were first used and gives all of them
        back to `open`. Pure.
        """
        ...

    def open(self, remembered: pa.Table | None) -> None:
        """Connect. May block. Raises SourceUnavailable. If killed inside: nothing happened."""
        ...

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """Every partition now, with its (earliest, latest) position; latest is None where unknown. May block.

        One that was read before and is not listed any more is read all the same: `read` says what became of it.
        """
        ...

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Rows from `start` on, waiting at most wait_seconds for the first. Repeatable: has no effect on the source.

        Raises InputLost when `start` or later input is gone; SourceUnavailable.
        """
        ...

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Everything before these positions has taken effect for good: the source may forget it.

        Idempotent, advisory, repeated when a source is opened again. Only between `open` and `close`; it may come
        while another thread reads.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Never raises. May be called twice."""
        ...
