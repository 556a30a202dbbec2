"""Carries out the core's steps: the only place where decisions meet the journal, the spool and the sinks.

Lanes: "sealing" owns the journal (prepare, seal, attempts, outcomes, settle: in the order the core asked); "sink NAME"
opens and commits that sink; the conductor's own thread runs the core and tells the sources.
"""

from __future__ import annotations

import heapq
import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onefold.books import add_totals
from onefold.engines.embedded.opening import OpenedFlow
from onefold.engines.embedded.pipeline import EpochResult
from onefold.engines.embedded.workers import Workers
from onefold.epoch import EpochCore
from onefold.errors import OnefoldError, OutcomeUnknown, RowsRefused, SinkUnavailable, TokenRefused, check
from onefold.protocols import Clock, JournalRecord, TwoPhase
from onefold.records import Seal, StateDelta
from onefold.steps import (
    AbortHandle,
    AppendAttempt,
    AppendFailed,
    AppendOutcome,
    AppendSeal,
    AppendSettle,
    AttemptRecorded,
    CommitFailed,
    CommitRefused,
    CommitSink,
    Committed,
    CommitUnknown,
    Drained,
    EpochOffered,
    Event,
    FenceDue,
    Halt,
    HandleAborted,
    OpenFailed,
    OpenSink,
    OutcomeRecorded,
    PauseSink,
    Prepare,
    Prepared,
    PrepareFailed,
    RetryDue,
    RowsWereRefused,
    Sealed,
    Settled,
    SettleDue,
    SinkOpened,
    Step,
    StopSink,
    TellSources,
)
from onefold.types import Binding, EpochHead, EpochNumber, Guarantee, Receipt, RecordNumber, SealId, Token

__all__ = ["Conductor", "Draft", "Trace"]

LOG = logging.getLogger("onefold")
SEALING = "sealing"
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 30.0
CARRY_EVERY_RECORDS = 1_000
"""A settle record carries the start record on after so many, so that a long run's journal can forget its beginning."""

Trace = Callable[[Mapping[str, Any]], None]
"""Told of every append, open, commit, prepare and abort, in the order in which they happened (see spec/replay.py)."""


@dataclass(frozen=True)
class Broken:
    """A job failed in a way that no event of the protocol describes: the instance stops."""

    error: BaseException


@dataclass(frozen=True)
class Forgotten:
    """The journal no longer holds headers before this epoch."""

    before: EpochNumber


@dataclass
class Draft:
    """The epoch between offer and seal. frozen: tables for a snapshot at exactly this epoch, if one is due."""

    result: EpochResult
    seal: SealId
    frozen: Mapping[str, Any] = field(default_factory=dict)
    receipts: dict[str, tuple[Receipt, ...]] = field(default_factory=dict)
    deltas: tuple[StateDelta, ...] = ()


class Conductor:
    """One instance of one flow, from opening to drained, stopped or halted."""

    def __init__(self, opened: OpenedFlow, workers: Workers, clock: Clock, *, trace: Trace | None = None) -> None:
        self.opened = opened
        self.core = EpochCore(
            opened.recovered, commit=opened.plan.commit, deliver_bytes=opened.plan.settings.deliver_bytes
        )
        self.drained: Drained | None = None
        self.halted: BaseException | None = None
        self.stopped_sinks: dict[str, OnefoldError] = {}
        self.waiting_sinks: dict[str, OnefoldError] = {}
        self.totals: Mapping[str, Any] = opened.history.newest.totals if opened.history.newest else {}
        self._workers = workers
        self._clock = clock
        self._trace = trace or _ignore
        self._inbox: queue.SimpleQueue[Event | Broken | Forgotten | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Event]] = []
        self._timer_count = 0
        self._number = opened.history.last
        self._latest = dict(opened.history.latest)
        self._through = dict(opened.history.through)
        self._given_up = dict(opened.history.given_up)
        self._draft: Draft | None = None
        self._planned_free = opened.archive.freed
        self._bindings = {name: self._bind(name) for name in opened.outputs}

    # ----------------------------------------------------------------------------------------------------- verbs

    def begin(self) -> None:
        """Open the sinks and start the timers."""
        self._note("append", kind="start", number=self._number)
        self._carry_out(self.core.start())
        settings = self.opened.plan.settings
        self._later(settings.fence_every_seconds, FenceDue())
        self._later(settings.settle_every_seconds, SettleDue())

    def offer(self, draft: Draft) -> None:
        """Give the core a computed epoch; only while core.can_offer."""
        check(self._draft is None, "one epoch is open at a time", epoch=draft.result.number)
        check(
            draft.result.number == self.core.chain.head + 1, "epochs are computed in order", found=draft.result.number
        )
        self._draft = draft
        self._workers.submit(SEALING, lambda: self._guard(self._put_deltas, draft))
        rows = {name: table.num_rows for name, table in draft.result.outputs.items()}
        self._tell(EpochOffered(draft.seal, draft.result.ends, rows))

    def ask(self, event: Event | None) -> None:
        """Post an event from any thread; None only wakes the conductor."""
        self._inbox.put(event)

    def pump(self, wait_seconds: float) -> bool:
        """Handle what has happened, waiting at most so long for the first. Returns whether there was anything."""
        wait = max(
            0.0, min(wait_seconds, self._timers[0][0] - self._clock.monotonic() if self._timers else wait_seconds)
        )
        try:
            event = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
        except queue.Empty:
            return self._run_timers()
        while True:
            if isinstance(event, Broken):
                self.halted = self.halted or event.error
            elif isinstance(event, Forgotten):
                self.core.chain.forget_before(event.before)
            elif event is not None:
                self._tell(event)
            if self.halted is not None:
                return True
            try:
                event = self._inbox.get_nowait()
            except queue.Empty:
                break
        self._run_timers()
        return True

    def close(self) -> None:
        """End the lanes, close sinks and journal. Safe after a halt."""
        for name, output in self.opened.outputs.items():
            self._workers.submit(f"sink {name}", output.sink.close)
        self._workers.close()
        try:
            self.opened.snapshots.wait()
        finally:
            self.opened.journal.close()

    # ------------------------------------------------------------------------------------------------ core's loop

    def _tell(self, event: Event) -> None:
        if isinstance(event, Sealed) and self._draft is not None:
            draft, self._draft = self._draft, None
            if draft.frozen and not self.opened.snapshots.is_writing:
                self.opened.snapshots.begin(draft.result.number, draft.seal, draft.frozen)
            else:  # one was begun since it was frozen
                for table in draft.frozen.values():
                    table.close()
        if isinstance(event, SinkOpened):
            self.waiting_sinks.pop(event.sink, None)
        self._carry_out(self.core.on(event))

    def _carry_out(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._carry_out_one(step)

    def _carry_out_one(self, step: Step) -> None:
        match step:
            case OpenSink(sink):
                self._on_sink(sink, self._open, sink)
            case Prepare():
                self._on_sealing(self._prepare, step)
            case AppendSeal():
                self._on_sealing(self._seal, step)
            case CommitSink():
                self._deliver(step)
            case AppendAttempt(sink, first, last):
                header = {"sink": sink, "first": first, "last": last}
                self._on_sealing(self._record, JournalRecord("attempt", header), AttemptRecorded(sink))
            case AppendOutcome(sink, last, rows_given_up):
                header = {"sink": sink, "last": last, "rows_given_up": rows_given_up}
                self._on_sealing(self._record, JournalRecord("outcome", header), OutcomeRecorded(sink))
            case AppendSettle(epoch):
                self._on_sealing(self._settle, epoch)
            case TellSources(_, ends):
                self._tell_sources(ends)
            case AbortHandle(sink):
                self._on_sink(sink, self._abort, step)
            case PauseSink(sink, failures, error):
                self._pause(sink, failures, error)
            case StopSink(sink, error):
                LOG.error("sink %s stopped: %s", sink, error.summary)
                self.stopped_sinks[sink] = error
            case Drained():
                self.drained = step
            case Halt(error):
                self.halted = self.halted or error

    def _pause(self, sink: str, failures: int, error: OnefoldError) -> None:
        if failures > 1 or isinstance(error, SinkUnavailable):
            LOG.warning("sink %s: %s (try %d)", sink, error.summary, failures)
        self.waiting_sinks[sink] = error
        self._later(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (failures - 1)), RetryDue(sink))

    def _later(self, seconds: float, event: Event) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (self._clock.monotonic() + seconds, self._timer_count, event))

    def _run_timers(self) -> bool:
        ran = False
        settings = self.opened.plan.settings
        while self._timers and self._timers[0][0] <= self._clock.monotonic():
            _, _, event = heapq.heappop(self._timers)
            if isinstance(event, FenceDue):
                self._later(settings.fence_every_seconds, event)
            elif isinstance(event, SettleDue):
                self._later(settings.settle_every_seconds, event)
            self._tell(event)
            ran = True
        return ran

    def _tell_sources(self, ends: Mapping[str, Any]) -> None:
        for name, reader in self.opened.pipeline.readers.items():
            if name in ends:
                reader.node.source.settle(ends[name])
        self.core.chain.strip(self._planned_free)
        self._on_sealing(self._free, EpochNumber(min(self.core.oldest_token(), self.core.settled)))

    # -------------------------------------------------------------------------------------------- the sealing lane

    def _on_sealing(self, job: Callable[..., None], *args: Any) -> None:
        self._workers.submit(SEALING, lambda: self._guard(job, *args))

    def _on_sink(self, sink: str, job: Callable[..., None], *args: Any) -> None:
        self._workers.submit(f"sink {sink}", lambda: self._guard(job, *args))

    def _guard(self, job: Callable[..., None], *args: Any) -> None:
        try:
            job(*args)
        except BaseException as error:  # noqa: BLE001 - handed to the conductor, which stops the instance
            self._inbox.put(Broken(error))

    def _put_deltas(self, draft: Draft) -> None:
        stem = f"state-{draft.result.number}-{draft.seal}"
        deltas = []
        for place, (table, batches) in enumerate(draft.result.deltas.items()):
            detail, inline = self.opened.spool.put(f"{stem}-{place}", batches, batches[0].schema)
            deltas.append(StateDelta(table, detail, inline))
        draft.deltas = tuple(deltas)

    def _prepare(self, step: Prepare) -> None:
        draft = self._open_draft()
        sink = self.opened.outputs[step.sink].sink
        rows = draft.result.outputs[step.sink]
        try:
            receipt = sink.prepare(EpochHead(step.epoch, step.seal, step.move), rows.to_batches())
        except OnefoldError as error:
            self._note("prepare", sink=step.sink, epoch=step.epoch, result="failed")
            self._inbox.put(PrepareFailed(step.sink, error))
            return
        draft.receipts[step.sink] = (receipt,)
        self._note("prepare", sink=step.sink, epoch=step.epoch, result="ok")
        self._inbox.put(Prepared(step.sink, receipt.size_bytes, receipt.kind == "native"))

    def _seal(self, step: AppendSeal) -> None:
        draft = self._open_draft()
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
            self.opened.archive.add(self._number, seal, hold=True)
            self._inbox.put(Sealed())

    def _record(self, record: JournalRecord, event: Event) -> None:
        header = record.header
        if self._append(record, **header):
            sink = header["sink"]
            self._latest[f"{record.kind} {sink}"] = self._number
            if record.kind == "outcome":  # the next settle record carries what it says
                self._through[sink] = header["last"]
                self._given_up[sink] = self._given_up.get(sink, 0) + header["rows_given_up"]
                self._latest.pop(f"attempt {sink}", None)
            self._inbox.put(event)

    def _settle(self, epoch: EpochNumber) -> None:
        freed = self.opened.archive.plan_free(epoch, self._clock.now())
        header = {"epoch": epoch, "freed": freed, "through": self._through, "given_up": self._given_up}
        start = self.opened.history.start
        carries = start is not None and self._number - self._latest["start"] >= CARRY_EVERY_RECORDS
        if start is not None and carries:
            header |= {"incarnation": self.opened.recovered.incarnation, "start": start.to_json()}
        if self._append(JournalRecord("settle", header), epoch=epoch):
            self._latest = {what: at for what, at in self._latest.items() if not what.startswith("outcome ")}
            self._latest |= {"settle": self._number} | ({"start": self._number} if carries else {})
            self._planned_free = freed
            self._inbox.put(Settled())

    def _free(self, oldest: EpochNumber) -> None:
        """After a durable settle record said what may go; a crash in between leaves it for the next time."""
        archive, snapshots = self.opened.archive, self.opened.snapshots
        archive.delivered(self.core.settled)
        archive.free(self._planned_free)
        snapshots.poll()
        archive.free_state(snapshots.oldest_needed())
        self._inbox.put(Forgotten(archive.forget_before(oldest, self._latest.values())))

    def _append(self, record: JournalRecord, **told: Any) -> bool:
        number = RecordNumber(self._number + 1)
        try:
            self.opened.journal.append(number, record)
        except OnefoldError as error:
            self._inbox.put(AppendFailed(error))
            return False
        self._number = number
        self._note("append", kind=record.kind, number=number, **told)
        return True

    def _open_draft(self) -> Draft:
        draft = self._draft
        check(draft is not None, "an epoch is open")
        return draft  # type: ignore[return-value]

    # ---------------------------------------------------------------------------------------------- the sink lanes

    def _bind(self, name: str) -> Binding:
        output = self.opened.outputs[name]
        return Binding(
            journal=self.opened.journal.id,
            flow=self.opened.plan.flow,
            lane="0",
            sink=name,
            incarnation=self.opened.recovered.incarnation,
            schema=output.schema,
            mode=output.mode,
            key=output.key,
            guarantee=output.guarantee,
            spool=self.opened.spool,
        )

    def _open(self, name: str) -> None:
        sink = self.opened.outputs[name].sink
        sink.close()
        try:
            token = sink.open(self._bindings[name])
            handles = tuple(sink.handles()) if isinstance(sink, TwoPhase) else ()
        except (SinkUnavailable, OutcomeUnknown) as error:
            self._inbox.put(OpenFailed(name, error))
            return
        self._note("open", sink=name, token=_short(token))
        self._inbox.put(SinkOpened(name, token, handles))

    def _deliver(self, step: CommitSink) -> None:
        receipts, is_whole = self.opened.archive.receipts(step.sink, step.first, step.last)
        if is_whole:
            self._on_sink(step.sink, self._commit, step, receipts)
        else:
            self._on_sealing(self._reload, step)

    def _reload(self, step: CommitSink) -> None:
        receipts = self.opened.archive.reload(step.sink, step.first, step.last)
        self._on_sink(step.sink, self._commit, step, receipts)

    def _commit(self, step: CommitSink, receipts: Sequence[Receipt]) -> None:
        output = self.opened.outputs[step.sink]
        check(
            (step.move is None) == (output.guarantee is not Guarantee.EXACTLY_ONCE),
            "INV-3: an exactly-once commit moves the token with the rows",
            sink=step.sink,
        )
        event: Event
        try:
            output.sink.commit(receipts, step.move)
            event = Committed(step.sink)
        except TokenRefused as error:
            event = CommitRefused(step.sink, error.found if isinstance(error.found, Token) else None)
        except RowsRefused as error:
            event = RowsWereRefused(step.sink, error)
        except SinkUnavailable as error:
            event = CommitFailed(step.sink, error)
        except OnefoldError as error:
            event = CommitUnknown(step.sink, error, isinstance(error.__cause__, TimeoutError))
        except Exception as error:  # noqa: BLE001 - INV-5: what we do not understand may have landed
            event = CommitUnknown(step.sink, OutcomeUnknown(found=repr(error), sink=step.sink))
        self._note_commit(step, event)
        self._inbox.put(event)

    def _abort(self, step: AbortHandle) -> None:
        sink = self.opened.outputs[step.sink].sink
        if isinstance(sink, TwoPhase):
            mine = (self.opened.journal.id, self.opened.recovered.incarnation)
            handles = (
                [step.handle] if step.handle else [h for h in sink.handles() if (h.journal, h.incarnation) == mine]
            )
            for handle in handles:
                sink.abort(handle)
                self._note("abort", sink=step.sink, epoch=handle.epoch)
        if step.handle:
            self._inbox.put(HandleAborted(step.sink))

    # ------------------------------------------------------------------------------------------------- the record

    def _note(self, what: str, **told: Any) -> None:
        self._trace({"do": what, **told})

    def _note_commit(self, step: CommitSink, event: Event) -> None:
        results = {"Committed": "ok", "CommitRefused": "refused", "CommitFailed": "unavailable"}
        self._note(
            "commit",
            sink=step.sink,
            first=step.first,
            last=step.last,
            expected=_short(step.move.expected) if step.move else None,
            new=_short(step.move.new) if step.move else None,
            result=results.get(type(event).__name__, "unknown"),
        )


def _short(token: Token | None) -> list[Any] | None:
    return None if token is None else [token.epoch, token.seal]


def _ignore(_: Mapping[str, Any]) -> None:
    """No trace."""
