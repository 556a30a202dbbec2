"""The words of the protocol as types. Frozen values; nothing here does any I/O.

One meaning each (docs/explanation/glossary.md). Numbers that must not be mixed are types of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import total_ordering
from typing import Any, Literal, NewType, TypeAlias

__all__ = [
    "Attempt", "Binding", "CommitClass", "EpochHead", "EpochNumber", "Guarantee", "Handle", "Incarnation",
    "JsonValue", "Mode", "Outcome", "PartitionId", "Position", "Positions", "Receipt", "RecordNumber", "SealId",
    "Skip", "Token", "TokenMove", "canonical_json",
]  # fmt: skip

JsonValue: TypeAlias = "None | bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue]"

EpochNumber = NewType("EpochNumber", int)
"""1, 2, 3, … in the order of sealing; 0 means "before the first"."""

RecordNumber = NewType("RecordNumber", int)
"""A record's place in the journal, from 1 without gaps."""

Incarnation = NewType("Incarnation", int)
"""The journal number of a process's start record: later processes have larger ones."""

SealId = NewType("SealId", str)
"""128 random bits as 32 hexadecimal digits, drawn anew for every epoch that is opened."""

PartitionId = NewType("PartitionId", str)

Position: TypeAlias = JsonValue
"""Where to read next in one partition. Opaque to all but the source that made it."""

Positions: TypeAlias = Mapping[str, Mapping[PartitionId, Position]]
"""By the name of the read, then by partition."""

Mode = Literal["append", "upsert"]


def canonical_json(value: JsonValue) -> str:
    """The same text for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@total_ordering
class Guarantee(Enum):
    """How often an event may take effect. Ordered from weak to strong."""

    AT_MOST_ONCE = "at-most-once"
    AT_LEAST_ONCE = "at-least-once"
    EXACTLY_ONCE = "exactly-once"

    def __lt__(self, other: Guarantee) -> bool:
        ranks = list(Guarantee)
        return ranks.index(self) < ranks.index(other)

    def __str__(self) -> str:
        return self.value


@total_ordering
class CommitClass(Enum):
    """What a sink's commit can promise. Ordered from weak to strong."""

    NONE = "none"
    """No token: a repeated delivery shows."""
    IDEMPOTENT = "idempotent by key"
    """A repeated delivery of the same rows by key changes nothing, if guarded by a version per row."""
    TWO_PHASE = "two-phase"
    """Rows and token become visible together by committing a prepared handle that survives restarts."""
    TRANSACTIONAL = "transactional"
    """The token moves by compare-and-set in the transaction that writes the rows."""

    def __lt__(self, other: CommitClass) -> bool:
        ranks = list(CommitClass)
        return ranks.index(self) < ranks.index(other)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Token:
    """What a sink keeps, atomically with the rows, under (flow, lane, sink name).

    epoch and seal say how far the sink is on the journal's chain; ends are the positions to read next after that
    epoch, so that a lost journal of a stateless flow can be rebuilt from its sinks.
    """

    epoch: EpochNumber
    seal: SealId
    ends: Positions = field(default_factory=dict, compare=False)

    def to_json(self) -> str:
        """One line of JSON, for sinks that keep the token as text."""
        body: dict[str, Any] = {"epoch": self.epoch, "seal": self.seal, "ends": self.ends}
        return canonical_json(body)

    @staticmethod
    def from_json(text: str) -> Token:
        """The inverse of `to_json`. Raises ValueError on anything else."""
        body = json.loads(text)
        return Token(EpochNumber(int(body["epoch"])), SealId(str(body["seal"])), body.get("ends", {}))


@dataclass(frozen=True)
class TokenMove:
    """A compare-and-set of a sink's token: from `expected` (None: insert if absent) to `new`."""

    expected: Token | None
    new: Token


@dataclass(frozen=True)
class EpochHead:
    """The epoch that rows are prepared for.

    move and sinks are given only under commit="together", where the prepared handle itself must contain the token.
    sinks: the names of all that prepare this epoch, in the order in which they are asked. The seal is written when each
    of them has returned, so one may leave it to a later one to make the rows of both durable.
    """

    number: EpochNumber
    seal: SealId
    move: TokenMove | None = None
    sinks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Receipt:
    """What `prepare` gives: small, serialisable, enough to commit after a restart on another process.

    Args:
        epoch: the epoch of these rows. One epoch may have several receipts (one per writer on Spark).
        kind: "spool" (rows in onefold's own spool) or "native" (staged invisibly in the sink's own system).
        rows, size_bytes: of the rows; size_bytes bounds what is delivered together.
        detail: JSON that only the maker reads (a file name, a transaction id).
        inline: the rows themselves as Arrow IPC, when small enough to live inside the seal.
    """

    epoch: EpochNumber
    kind: Literal["spool", "native"]
    rows: int
    size_bytes: int
    detail: Mapping[str, Any] = field(default_factory=dict)
    inline: bytes | None = None


@dataclass(frozen=True)
class Skip:
    """Where reading goes on for one who accepts that input was lost.

    Args:
        to: the next position; None: the partition is read no more.
        records: how many were lost at most; None when nobody knows.
        remember: a pyarrow.RecordBatch for the source's memory; None: nothing new.
    """

    to: Position
    records: int | None = None
    remember: Any = None


@dataclass(frozen=True)
class Handle:
    """A native prepared handle found by listing: enough to know whose it is and to abort it."""

    journal: str
    incarnation: Incarnation
    epoch: EpochNumber
    seal: SealId
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """A durable promise to try the epochs first..last on a sink exactly once (at-most-once)."""

    sink: str
    first: EpochNumber
    last: EpochNumber


@dataclass(frozen=True)
class Outcome:
    """How far a sink without a token is: through `last`; rows_given_up is an upper bound of rows that may be lost."""

    sink: str
    last: EpochNumber
    rows_given_up: int = 0


@dataclass(frozen=True)
class Binding:
    """Who a sink works for, given when it is opened.

    Args:
        journal: the journal's random id. flow, lane, sink: the token's key.
        incarnation: names native handles.
        schema: a pyarrow.Schema of the rows it will get.
        mode, key: how they are written; key is empty for append.
        guarantee: exactly-once commits come with a TokenMove; the weaker two without. At-most-once: no client retries.
        spool: the onefold.protocols.Spool to keep rows in by default.
        is_together: the sinks of the flow commit together: prepare is given the token's move.
        is_sifted: rows that the target refuses are left out of what is prepared, and told (Sifting).
        is_shared: other flows or sinks may write to the same target, and whoever wrote this flow knows it. If not, a
            target that holds a token of another owner is refused (TargetTaken).
    """

    journal: str
    flow: str
    lane: str
    sink: str
    incarnation: Incarnation
    schema: Any
    mode: Mode
    key: tuple[str, ...]
    guarantee: Guarantee
    spool: Any
    is_shared: bool = False
    is_together: bool = False
    is_sifted: bool = False
