"""What each journal record holds, and its form in the journal. Versioned by the journal's format number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from onefold.chain import Header
from onefold.protocols import JournalRecord
from onefold.types import EpochNumber, PartitionId, Receipt, SealId, Token

__all__ = ["PAYLOAD", "STATE", "Seal", "SinkEntry", "Start", "StateDelta"]

PAYLOAD = "rows/"
"""Prefix of attachments that hold rows for sinks."""
STATE = "state/"
"""Prefix of attachments that hold state deltas."""


@dataclass(frozen=True)
class SinkEntry:
    """A sink in a start record: its identity (INV-12) and where it began.

    shape: Output.binding_shape() and guarantee. joined, base: see course.SinkRule. through: for weaker guarantees.
    retired: it is no longer in the flow; kept so that it can come back.
    """

    shape: Mapping[str, Any]
    joined: EpochNumber
    base: Token | None = None
    through: EpochNumber = EpochNumber(0)  # noqa: RUF009
    retired: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        return {
            "shape": self.shape,
            "joined": self.joined,
            "base": self.base.to_json() if self.base else None,
            "through": self.through,
            "retired": self.retired,
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> SinkEntry:
        """From the journal."""
        return SinkEntry(
            shape=body["shape"],
            joined=EpochNumber(body["joined"]),
            base=Token.from_json(body["base"]) if body["base"] else None,
            through=EpochNumber(body["through"]),
            retired=body["retired"],
        )


@dataclass(frozen=True)
class Start:
    """A process begins: who, where, under which plan, with which sinks.

    location: where the journal stood; another one means a moved or copied journal. state_key: hex, for state hashes.
    since: by state table, the epoch after which it began; what is older under its name is of a step that was removed.
    removed: reads that the flow had, and whose positions are forgotten.
    """

    process: Mapping[str, Any]
    location: Mapping[str, Any]
    plan: Mapping[str, Any]
    sinks: Mapping[str, SinkEntry]
    state_key: str
    version: str
    since: Mapping[str, EpochNumber] | None = None
    removed: tuple[str, ...] = ()

    def record(self) -> JournalRecord:
        """For the journal."""
        return JournalRecord("start", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The header of its record; a settle record carries it on, so that the start record can go."""
        sinks = {name: entry.to_json() for name, entry in self.sinks.items()}
        return {**vars(self), "sinks": sinks, "removed": list(self.removed)}

    @staticmethod
    def of(record: JournalRecord) -> Start:
        """From the journal."""
        return Start.from_json(record.header)

    @staticmethod
    def from_json(header: Mapping[str, Any]) -> Start:
        """The inverse of `to_json`."""
        sinks = {name: SinkEntry.from_json(entry) for name, entry in header["sinks"].items()}
        return Start(**{**header, "sinks": sinks, "removed": tuple(header.get("removed", ()))})


@dataclass(frozen=True)
class StateDelta:
    """The change of one state table in an epoch: where its Arrow rows are."""

    table: str
    detail: Mapping[str, Any]
    inline: bytes | None


@dataclass(frozen=True)
class Seal:
    """THE decision: everything an epoch does, in one record.

    ends: positions to read next. receipts: by sink. deltas: changes of state. watermarks: by read and partition, the
    largest event time seen, microseconds, None where there was none. books: counts of this epoch; totals: of all so
    far.
    """

    epoch: EpochNumber
    seal: SealId
    previous: str
    ends: Mapping[str, Any]
    receipts: Mapping[str, tuple[Receipt, ...]]
    deltas: tuple[StateDelta, ...]
    watermarks: Mapping[str, Mapping[PartitionId, int | None]]
    books: Mapping[str, Any]
    totals: Mapping[str, Any]
    sealed_at: float

    def record(self) -> JournalRecord:
        """For the journal: small payloads become attachments."""
        attachments: dict[str, bytes] = {}
        receipts: dict[str, list[dict[str, Any]]] = {}
        for sink, parts in self.receipts.items():
            receipts[sink] = []
            for number, part in enumerate(parts):
                receipts[sink].append(
                    {"kind": part.kind, "rows": part.rows, "size": part.size_bytes, "detail": part.detail}
                )
                if part.inline is not None:
                    attachments[f"{PAYLOAD}{sink}/{number}"] = part.inline
        for delta in self.deltas:
            if delta.inline is not None:
                attachments[f"{STATE}{delta.table}"] = delta.inline
        deltas = [{"table": delta.table, "detail": delta.detail} for delta in self.deltas]
        return JournalRecord("seal", {**vars(self), "receipts": receipts, "deltas": deltas}, attachments)

    @staticmethod
    def of(record: JournalRecord) -> Seal:
        """From the journal; stripped attachments come back as None."""
        header, attached = dict(record.header), record.attachments
        epoch = EpochNumber(header["epoch"])
        header["receipts"] = {
            sink: tuple(
                Receipt(
                    epoch, part["kind"], part["rows"], part["size"], part["detail"],
                    attached.get(f"{PAYLOAD}{sink}/{number}"),
                )
                for number, part in enumerate(parts)
            )
            for sink, parts in header["receipts"].items()
        }  # fmt: skip
        header["deltas"] = tuple(
            StateDelta(delta["table"], delta["detail"], attached.get(f"{STATE}{delta['table']}"))
            for delta in header["deltas"]
        )
        return Seal(**header)

    def chain_header(self, *, has_payload: bool) -> Header:
        """What the chain keeps of it."""
        rows = {sink: sum(part.rows for part in parts) for sink, parts in self.receipts.items()}
        sizes = {sink: sum(part.size_bytes for part in parts) for sink, parts in self.receipts.items()}
        staged = frozenset(s for s, parts in self.receipts.items() if any(part.kind == "native" for part in parts))
        return Header(self.epoch, self.seal, self.previous, self.ends, rows, sizes, has_payload, staged)

    def without_payload(self) -> Seal:
        """The same, once its rows and deltas need not be held in memory."""
        receipts = {s: tuple(replace(part, inline=None) for part in parts) for s, parts in self.receipts.items()}
        return replace(self, receipts=receipts, deltas=tuple(replace(delta, inline=None) for delta in self.deltas))
