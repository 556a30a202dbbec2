"""The ports: what the engine asks of a source, a sink, a spool, a journal, and what is true if killed inside.

The shape of Source and Sink is deliberately that of Spark's Python Data Source API (partitions, bounded reads with
opaque offsets, write -> commit message -> commit by the driver), so that one connector serves both engines.
ARCHITECTURE.md holds these verbs against Kafka, PostgreSQL, Delta, Spark and HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import pyarrow as pa

from onefold.types import (
    Binding,
    CommitClass,
    EpochHead,
    Handle,
    JsonValue,
    Mode,
    PartitionId,
    Position,
    Receipt,
    RecordNumber,
    Token,
    TokenMove,
)

__all__ = [
    "Check", "CheckResult", "Clock", "Endpoint", "Format", "Informed", "Journal", "JournalRecord", "Limit", "Read",
    "ReadBack", "Reading", "Sink", "SinkPromise", "Source", "SourcePromise", "Spool", "TwoPhase",
]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- sources


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


@runtime_checkable
class Source(Protocol):
    """A place to read from. Used by one thread at a time, all verbs but `settle` by the reading thread."""

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
        """Every partition now, with its (earliest, latest) position; latest is None where unknown. May block."""
        ...

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Rows from `start` on, waiting at most wait_seconds for the first. Repeatable: has no effect on the source.

        Raises InputLost when `start` or later input is gone; SourceUnavailable.
        """
        ...

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Everything before these positions has taken effect for good: the source may forget it.

        Idempotent, advisory, may be skipped or repeated after a crash; called from the conductor's thread.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Never raises. May be called twice."""
        ...


# ------------------------------------------------------------------------------------------------------------ sinks


@dataclass(frozen=True)
class SinkPromise:
    """What a sink declares; `explain` and the engine read it.

    Args:
        commit_class: the strongest thing its commit can promise.
        modes: what it can do: "append", "upsert"; deletes: whether upserts may carry `_op` = "delete".
        can_prepare_together: its prepare holds until committed or aborted, so it may join commit="together".
        target: the fingerprint of where it writes; a change of it is a change of sink. No secrets.
        conditions: sentences that must be true for the promise to hold.
        rows_outlive_token: the token can be lost while the rows stay: then one that is gone says nothing about them.
    """

    commit_class: CommitClass
    modes: frozenset[Mode]
    target: str
    deletes: bool = False
    can_prepare_together: bool = False
    conditions: tuple[str, ...] = ()
    rows_outlive_token: bool = False


@runtime_checkable
class Sink(Protocol):
    """A place to write to.

    Threads: `open`, `commit` and `close` are called by the sink's delivery thread; `prepare` by the sealing thread,
    possibly while a commit runs, and on Spark on another machine: so prepare shares no connection with commit.
    """

    @property
    def promise(self) -> SinkPromise:
        """What it declares. Pure; needs no connection."""
        ...

    def open(self, binding: Binding) -> Token | None:
        """Connect, fence what an earlier instance left in flight, and then read the token back.

        May block; may be called again after `close`: this is how an unknown outcome is read back. When it returns,
        no commit begun before can land any more, or it would be refused for its expected token.
        Also checks the target against binding.schema, mode and key (SchemaError, NotSupported).
        Raises SinkUnavailable. If killed inside: as before, or fenced.
        """
        ...

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Take the rows and make them durable but invisible: in binding.spool by default, or staged natively.

        May block. If killed inside: nothing is visible. What was staged natively is named by journal, incarnation,
        epoch and seal, and listed by `handles` (TwoPhase): only the core can tell a leftover from rows that a seal
        still refers to, so `open` never removes staged rows; `abort` does, when asked.
        Raises SinkUnavailable, RowsRefused, DiskError.
        """
        ...

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Make the rows of the receipts (consecutive epochs, in order) visible and move the token with them.

        With a move: one atomic step, refused unless the token is move.expected. An empty list of receipts moves the
        token alone. Without a move (a weaker guarantee): just write.
        Returns only when durable. If killed inside: wholly done or not at all (with a move).
        Raises TokenRefused (nothing written), SinkUnavailable (surely nothing written), RowsRefused (nothing
        written), OutcomeUnknown; every other exception is taken for OutcomeUnknown.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files. Never raises. May be called twice, and before `open`."""
        ...


@runtime_checkable
class TwoPhase(Protocol):
    """A sink that stages rows natively: its handles survive their process.

    Every sink whose prepare may return a native receipt has these verbs; commit="together" needs them too.
    """

    def handles(self) -> Sequence[Handle]:
        """All prepared and undecided handles of binding.flow at this target, of any journal and incarnation."""
        ...

    def abort(self, handle: Handle) -> None:
        """Remove one. Idempotent. If killed inside: it is there or not. Never touches a committed one."""
        ...


@dataclass(frozen=True)
class CheckResult:
    """One finding of `onefold doctor`: what was looked at, how it stands, what was found, what to do."""

    what: str
    status: Literal["ok", "warning", "failed"]
    found: str = ""
    next_step: str = ""


@runtime_checkable
class Check(Protocol):
    """A source or sink that can tell whether a run would succeed, without side effects."""

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Look, write nothing. Never raises for an operating error: that is a finding."""
        ...


@runtime_checkable
class ReadBack(Protocol):
    """A sink whose rows can be read back, with the token, in one snapshot."""

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token. May block."""
        ...


# ------------------------------------------------------------------------------------------------- formats, endpoints


@dataclass(frozen=True)
class Misfits:
    """Rows of a batch that could not be decoded exactly. Columns of equal length.

    index: int64 row in the input batch. reason: string code ("malformed", "misfit", …). detail: string for people.
    """

    index: pa.Array
    reason: pa.Array
    detail: pa.Array

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Decoded:
    """What a format made of a batch.

    rows: a pyarrow.Table of exactly the declared schema. kept: int64 array, the input row of each; None: all, in order.
    """

    rows: pa.Table
    kept: pa.Array | None
    misfits: Misfits


@runtime_checkable
class Format(Protocol):
    """Bytes to Arrow. Pure and thread-safe; every input row ends in `rows` or in `misfits`, never in neither."""

    @property
    def name(self) -> str:
        """json, csv, …"""
        ...

    def decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
        """Decode one binary (or large_binary) value per row. Never raises for bad bytes: those are misfits."""
        ...


@runtime_checkable
class Endpoint(Protocol):
    """What connections make (`kafka.topic(t)`, `of.files(…)`): knows how to become a source or a sink, or refuses."""

    @property
    def label(self) -> str:
        """How it is shown to people, for instance files(payments/*.jsonl). ${NAME} stays unexpanded; no secrets."""
        ...

    @property
    def default_name(self) -> str:
        """A name for the read or the sink when the user gave none, for instance `payments`."""
        ...

    def as_source(self, format: Format | None) -> Source:  # noqa: A002
        """Raises NotSupported when it cannot be read."""
        ...

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> Sink:
        """Raises NotSupported when it cannot be written, or not in this mode."""
        ...


# ----------------------------------------------------------------------------------------------------- local storage


@runtime_checkable
class Spool(Protocol):
    """Where prepared rows and large state deltas wait, on the local disk or in an object store."""

    def put(
        self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema
    ) -> tuple[Mapping[str, Any], bytes | None]:
        """Make the rows durable. Returns (detail, inline): small payloads come back as bytes to live in the seal.

        If killed inside: nothing that anyone refers to. Raises DiskError.
        """
        ...

    def get(self, detail: Mapping[str, Any], inline: bytes | None) -> pa.Table:
        """The rows again. Raises FileCorrupt when the checksum or the file is not what was put."""
        ...

    def free(self, detail: Mapping[str, Any]) -> None:
        """Give up a payload. Idempotent."""
        ...


@dataclass(frozen=True)
class JournalRecord:
    """One record: its kind, a JSON header, and binary attachments (Arrow IPC)."""

    kind: Literal["start", "seal", "settle", "attempt", "outcome", "amendment", "join"]
    header: Mapping[str, Any]
    attachments: Mapping[str, bytes] = field(default_factory=dict)


@runtime_checkable
class Journal(Protocol):
    """One numbered log. append-if-absent of the next number is the only fence (INV-2)."""

    def append(self, number: RecordNumber, record: JournalRecord) -> None:
        """Durable when it returns. Raises Fenced when the number is taken, DiskError; both are fatal.

        If killed inside: the record is there wholly or not at all.
        """
        ...

    def read(self, start: RecordNumber) -> Iterator[tuple[RecordNumber, JournalRecord]]:
        """Records from `start` on, in order. Raises FileCorrupt."""
        ...

    def last_number(self) -> RecordNumber:
        """The number of the last record, 0 when empty."""
        ...

    def strip(self, before: RecordNumber, *, prefix: str) -> None:
        """Drop attachments whose name begins with `prefix` from records below `before`; headers stay. Idempotent.

        Raises Fenced when another process has appended since we last did, as drop_before does: it may need them.
        """
        ...

    def drop_before(self, number: RecordNumber) -> None:
        """Forget records below `number` whose content a later record carries. Idempotent."""
        ...

    def close(self) -> None:
        """Let go. Never raises."""
        ...


class Clock(Protocol):
    """Time, for pacing and for people. Never decides correctness (INV-11)."""

    def monotonic(self) -> float:
        """Seconds."""
        ...

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        ...


def describe(part: object) -> JsonValue:
    """A part's own name, for error texts and `explain`."""
    return getattr(part, "label", None) or type(part).__name__
