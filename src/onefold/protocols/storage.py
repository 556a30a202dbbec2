"""What the engine keeps its decisions in, and the time that it paces itself by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import pyarrow as pa

from onefold.types import (
    RecordNumber,
)

__all__ = ["Clock", "Journal", "JournalRecord", "Spool"]


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
