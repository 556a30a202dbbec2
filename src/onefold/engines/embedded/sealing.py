"""The sealing lane: owns the journal. Prepares, seals, records and settles, in the order in which the core asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from onefold.books import add_totals
from onefold.engines.embedded.opening import OpenedFlow
from onefold.engines.embedded.pipeline import DEAD_LETTERS, EpochResult, enter_output
from onefold.engines.embedded.refusals import Refusals
from onefold.engines.embedded.undecided import Undecided
from onefold.errors import OnefoldError, OutcomeUnknown
from onefold.protocols import Clock, JournalRecord
from onefold.records import Seal, StateDelta
from onefold.steps import AppendFailed, AppendSeal, Event, Prepare, Prepared, PrepareFailed, Sealed, Settled
from onefold.types import EpochHead, EpochNumber, Receipt, RecordNumber, SealId

__all__ = ["CARRY_EVERY_RECORDS", "Draft", "Forgotten", "Note", "SealingLane"]

CARRY_EVERY_RECORDS = 1_000
"""A settle record carries the start record on after so many, so that a long run's journal can forget its beginning."""

Note = Callable[..., None]
"""note(what, **told): for the trace."""


@dataclass(frozen=True)
class Forgotten:
    """The journal no longer holds headers before this epoch."""

    before: EpochNumber


@dataclass
class Draft:
    """The epoch between offer and seal.

    frozen: tables for a snapshot at exactly this epoch, if one is due. has_failed: a sink could not prepare it.
    is_in_doubt: and did not answer.
    """

    result: EpochResult
    seal: SealId
    frozen: Mapping[str, Any] = field(default_factory=dict)
    receipts: dict[str, tuple[Receipt, ...]] = field(default_factory=dict)
    deltas: tuple[StateDelta, ...] = ()
    has_failed: bool = False
    is_in_doubt: bool = False


class SealingLane:
    """Every job runs on this lane's thread, one after the other; they tell the core with `post`."""

    def __init__(
        self, opened: OpenedFlow, clock: Clock, *, post: Callable[[Event | Forgotten], None], note: Note
    ) -> None:
        history = opened.history
        self.opened = opened
        self.number = history.last
        self.totals: Mapping[str, Any] = history.newest.totals if history.newest else {}
        self.given_up = dict(history.given_up)
        self.planned_free = opened.archive.freed
        self.refusals = Refusals(opened.plan, opened.outputs)
        self.undecided = Undecided(opened.folder)
        self._latest = dict(history.latest)
        self._through = dict(history.through)
        self._clock = clock
        self._post = post
        self._note = note

    def put_deltas(self, draft: Draft) -> None:
        """Make the changes of state durable; first job of an epoch."""
        stem = f"state-{draft.result.number}-{draft.seal}"
        deltas = []
        for place, (table, batches) in enumerate(draft.result.deltas.items()):
            detail, inline = self.opened.spool.put(f"{stem}-{place}", batches, batches[0].schema)
            deltas.append(StateDelta(table, detail, inline))
        draft.deltas = tuple(deltas)

    def prepare(self, step: Prepare, draft: Draft) -> None:
        """Make a sink's rows durable and invisible; after another sink failed to, nothing: the epoch is given up.

        Its handles are about to be aborted, and none may come after that.
        """
        if draft.has_failed:
            return
        sink = self.opened.outputs[step.sink].sink
        try:
            rows = self._rows_for(step.sink, draft)
            if not rows.num_rows:  # the dead letters of an epoch that has none
                self._post(Prepared(step.sink, 0, is_part=False))
                return
            head = EpochHead(step.epoch, step.seal, step.move, step.sinks)
            if step.move is not None:
                self.undecided.mark()
            receipt = sink.prepare(head, rows.to_batches())
        except Exception as error:  # noqa: BLE001 - whatever it is, what others have prepared is to be forgotten
            draft.has_failed = True
            # Without an answer it may still come to be prepared, after it was looked for: only a later run can tell.
            draft.is_in_doubt = isinstance(error, OutcomeUnknown)
            self._note("prepare", sink=step.sink, epoch=step.epoch, result="failed")
            self._post(PrepareFailed(step.sink, error))
            return
        draft.receipts[step.sink] = (receipt,)
        self._note("prepare", sink=step.sink, epoch=step.epoch, result="ok")
        self._post(Prepared(step.sink, receipt.size_bytes, receipt.kind == "native"))

    def _rows_for(self, sink: str, draft: Draft) -> pa.Table:
        """Dead letters, which are prepared last, with what the sinks before have refused. Raises TooManyDead."""
        if sink != DEAD_LETTERS:
            return draft.result.outputs[sink]
        letters = self.refusals.collect(draft.result, draft.receipts)
        rows = draft.result.outputs.get(sink, letters)
        if not letters.num_rows:
            return rows
        rows = letters if rows is letters else pa.concat_tables([rows, letters])
        enter_output(draft.result.books, self.opened.outputs[sink], rows)
        return rows

    def seal(self, step: AppendSeal, draft: Draft) -> None:
        """THE decision: one record."""
        result = draft.result
        books = result.books.to_json()
        totals = add_totals(self.totals, books)
        seal = Seal(
            epoch=step.epoch,
            seal=step.seal,
            previous=step.previous,
            ends=result.ends,
            receipts=draft.receipts,
            deltas=draft.deltas,
            watermarks=result.watermarks,
            books=books,
            totals=totals,
            sealed_at=self._clock.now(),
        )
        rows = {sink: sum(part.rows for part in parts) for sink, parts in draft.receipts.items()}
        if self._append(seal.record(), epoch=step.epoch, seal=step.seal, previous=step.previous, rows=rows):
            self.totals = totals
            self.opened.archive.add(self.number, seal, hold=True)
            self._post(Sealed())

    def record(self, record: JournalRecord, event: Event) -> None:
        """Append an attempt or an outcome, then tell the core."""
        header = record.header
        if self._append(record, **header):
            sink = header["sink"]
            self._latest[f"{record.kind} {sink}"] = self.number
            if record.kind == "outcome":  # the next settle record carries what it says
                self._through[sink] = header["last"]
                self.given_up[sink] = self.given_up.get(sink, 0) + header["rows_given_up"]
                self._latest.pop(f"attempt {sink}", None)
            self._post(event)

    def settle(self, epoch: EpochNumber) -> None:
        """Write down how far everything has been settled, and which payloads may go."""
        freed = self.opened.archive.plan_free(epoch, self._clock.now())
        header = {"epoch": epoch, "freed": freed, "through": self._through, "given_up": self.given_up}
        start = self.opened.history.start
        carries = start is not None and self.number - self._latest["start"] >= CARRY_EVERY_RECORDS
        if start is not None and carries:
            header |= {"incarnation": self.opened.recovered.incarnation, "start": start.to_json()}
        if self._append(JournalRecord("settle", header), epoch=epoch):
            self._latest = {what: at for what, at in self._latest.items() if not what.startswith("outcome ")}
            self._latest |= {"settle": self.number} | ({"start": self.number} if carries else {})
            self.planned_free = freed
            self._post(Settled())

    def free(self, settled: EpochNumber, oldest: EpochNumber) -> None:
        """After a durable settle record said what may go; a crash in between leaves it for the next time."""
        archive, snapshots = self.opened.archive, self.opened.snapshots
        archive.delivered(settled)
        archive.free(self.planned_free)
        snapshots.poll()
        archive.free_state(snapshots.oldest_needed())
        self._post(Forgotten(archive.forget_before(oldest, self._latest.values())))

    def _append(self, record: JournalRecord, **told: Any) -> bool:
        number = RecordNumber(self.number + 1)
        try:
            self.opened.journal.append(number, record)
        except OnefoldError as error:
            self._post(AppendFailed(error))
            return False
        self.number = number
        self._note("append", kind=record.kind, number=number, **told)
        return True
