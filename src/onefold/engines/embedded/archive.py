"""What is kept of sealed epochs: receipts until delivered, payloads until they are no longer needed, headers longer.

Freed is written down (in a settle record) before anything is freed, so a missing payload is never taken for an empty
one (INV-8).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onefold.errors import FileCorrupt, check
from onefold.plan import Settings
from onefold.protocols import Journal, Spool
from onefold.records import PAYLOAD, STATE, Seal
from onefold.types import EpochNumber, Receipt, RecordNumber

__all__ = ["Archive", "Kept"]

INLINE_IN_MEMORY_BYTES = 64 << 20
"""Small payloads of undelivered epochs held in memory; beyond that they are read from the journal again."""

KEEP_EPOCHS = 10_000
"""Headers and payloads of at most so many settled epochs are kept, so that opening a journal stays fast."""


@dataclass(frozen=True)
class Kept:
    """A sealed epoch: where its record is. seal: with small payloads only while they are held in memory."""

    number: RecordNumber
    seal: Seal
    inline_bytes: int


class Archive:
    """Sealed epochs by number. Used by the sealing thread, which owns the journal; `receipts` by all."""

    def __init__(self, journal: Journal, spool: Spool, settings: Settings) -> None:
        self._journal = journal
        self._spool = spool
        self._settings = settings
        self._kept: dict[EpochNumber, Kept] = {}
        self._with_deltas: deque[EpochNumber] = deque()
        self._in_memory = 0
        self.freed = EpochNumber(0)
        self._stripped = EpochNumber(0)

    def add(self, number: RecordNumber, seal: Seal, *, hold: bool) -> None:
        """A sealed epoch. hold: its small payloads stay in memory while there is room."""
        inline = sum(len(part.inline or b"") for parts in seal.receipts.values() for part in parts)
        if not hold or self._in_memory + inline > INLINE_IN_MEMORY_BYTES:
            inline = 0
            seal = seal.without_payload()
        self._in_memory += inline
        self._kept[seal.epoch] = Kept(number, seal, inline)
        if seal.deltas:
            self._with_deltas.append(seal.epoch)

    def receipts(self, sink: str, first: EpochNumber, last: EpochNumber) -> tuple[list[Receipt], bool]:
        """The receipts of a sink in order, and whether all of them hold their rows or name a file that does."""
        found: list[Receipt] = []
        for epoch in range(first, last + 1):
            kept = self._kept.get(EpochNumber(epoch))
            check(kept is not None, "INV-8: a missing payload is not an empty one", epoch=epoch, sink=sink)
            if kept is not None:
                found += kept.seal.receipts.get(sink, ())
        return found, all(_is_whole(receipt) for receipt in found)

    def reload(self, sink: str, first: EpochNumber, last: EpochNumber) -> list[Receipt]:
        """The same, with small payloads read from the journal. On the sealing thread."""
        found: list[Receipt] = []
        for epoch in range(first, last + 1):
            kept = self._kept[EpochNumber(epoch)]
            if sink in kept.seal.receipts:
                _, record = next(iter(self._journal.read(kept.number)))
                found += Seal.of(record).receipts[sink]
        if not all(_is_whole(receipt) for receipt in found):
            raise FileCorrupt(
                "The journal lacks rows that it sealed.", sink=sink, found=f"no payload in epochs {first} to {last}"
            )
        return found

    def delivered(self, through: EpochNumber) -> None:
        """Every sink has these epochs: their payloads need not be in memory."""
        for epoch, kept in self._kept.items():
            if epoch <= through and kept.inline_bytes:
                self._in_memory -= kept.inline_bytes
                self._kept[epoch] = Kept(kept.number, kept.seal.without_payload(), 0)

    def plan_free(self, settled: EpochNumber, now: float) -> EpochNumber:
        """Through which epoch payloads may go: settled, and older or more than what is to be kept."""
        size, free = 0, self.freed
        newest_first = sorted((e for e in self._kept if self.freed < e <= settled), reverse=True)
        for count, epoch in enumerate(newest_first, start=1):
            seal = self._kept[epoch].seal
            size += sum(part.size_bytes for parts in seal.receipts.values() for part in parts)
            is_old = now - seal.sealed_at > self._settings.keep_settled_seconds
            if is_old or size > self._settings.keep_settled_bytes or count > KEEP_EPOCHS:
                free = epoch
                break
        return EpochNumber(max(free, self.freed))

    def free(self, through: EpochNumber) -> None:
        """Give up the payloads through this epoch; a durable settle record says so already."""
        if through <= self.freed:
            return
        for epoch in range(self.freed + 1, through + 1):
            kept = self._kept.get(EpochNumber(epoch))
            for parts in kept.seal.receipts.values() if kept else ():
                for part in parts:
                    if part.kind == "spool":
                        self._spool.free(part.detail)
        self.freed = through
        self._journal.strip(self._number_after(through), prefix=PAYLOAD)

    def free_state(self, through: EpochNumber) -> None:
        """Give up state deltas through this epoch: at least two snapshots have them."""
        if through <= self._stripped:
            return
        for epoch in range(self._stripped + 1, through + 1):
            kept = self._kept.get(EpochNumber(epoch))
            for delta in kept.seal.deltas if kept else ():
                self._spool.free(delta.detail)
        self._stripped = through
        while self._with_deltas and self._with_deltas[0] <= through:
            self._with_deltas.popleft()
        self._journal.strip(self._number_after(through), prefix=STATE)

    def forget_before(self, epoch: EpochNumber, latest_records: Iterable[RecordNumber]) -> EpochNumber:
        """Drop journal records before the oldest one still needed. Returns the epoch from which headers are kept."""
        least = min(epoch, EpochNumber(self.freed + 1), *self._state_needs())
        for number in [number for number in self._kept if number < least]:
            del self._kept[number]
        needed = [*latest_records, *(kept.number for kept in itertools.islice(self._kept.values(), 1))]
        if needed:
            self._journal.drop_before(RecordNumber(min(needed)))
        return least

    def _state_needs(self) -> Iterator[EpochNumber]:
        """The epoch of the oldest snapshot that counts, whose seal it is compared with; the oldest delta."""
        if self._stripped:
            yield self._stripped
        yield from itertools.islice(self._with_deltas, 1)

    def named_files(self) -> set[str]:
        """Files in the spool that some seal still names."""
        named: set[str] = set()
        for epoch, kept in self._kept.items():
            if epoch > self.freed:
                named |= {str(part.detail.get("file")) for parts in kept.seal.receipts.values() for part in parts}
            if epoch > self._stripped:
                named |= {str(delta.detail.get("file")) for delta in kept.seal.deltas}
        return named

    def _number_after(self, epoch: EpochNumber) -> RecordNumber:
        later = self._kept.get(EpochNumber(epoch + 1))
        return later.number if later else RecordNumber(self._kept[epoch].number + 1)


def _is_whole(receipt: Receipt) -> bool:
    return receipt.kind == "native" or receipt.inline is not None or "file" in receipt.detail
