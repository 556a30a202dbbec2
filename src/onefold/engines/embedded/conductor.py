"""Carries out the core's steps: the only place where decisions meet the journal, the spool and the sinks.

Lanes: "sealing" owns the journal (prepare, seal, attempts, outcomes, settle: in the order the core asked); "sink NAME"
opens and commits that sink; the conductor's own thread runs the core and tells the sources.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onefold.engines.embedded.deliveries import SinkLanes
from onefold.engines.embedded.opening import OpenedFlow
from onefold.engines.embedded.outputs import pace_of
from onefold.engines.embedded.pipeline import DEAD_LETTERS
from onefold.engines.embedded.sealing import Draft, Forgotten, SealingLane
from onefold.engines.embedded.workers import Workers
from onefold.epoch import EpochCore
from onefold.errors import Fenced, OnefoldError, SinkUnavailable, check
from onefold.protocols import Clock, JournalRecord
from onefold.steps import (
    AbortHandle,
    AppendAttempt,
    AppendOutcome,
    AppendSeal,
    AppendSettle,
    AttemptRecorded,
    CommitSink,
    DeliveryDue,
    Drained,
    EpochOffered,
    Event,
    FenceDue,
    Halt,
    OpenSink,
    OutcomeRecorded,
    PauseSink,
    Prepare,
    RetryDue,
    Sealed,
    SettleDue,
    SinkOpened,
    Step,
    StopSink,
    TellSources,
)
from onefold.types import EpochNumber, Positions

__all__ = ["Conductor", "Draft", "Trace"]

LOG = logging.getLogger("onefold")
SEALING = "sealing"
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 30.0


Trace = Callable[[Mapping[str, Any]], None]
"""Told of every append, open, commit, prepare and abort, in the order in which they happened (see spec/replay.py)."""


@dataclass(frozen=True)
class Broken:
    """A job failed in a way that no event of the protocol describes: the instance stops."""

    error: BaseException


@dataclass(frozen=True)
class RenewDue:
    """A sink's token is to be written again, lest its target forgets it. The protocol does not know of it."""

    sink: str


@dataclass(frozen=True)
class MaintainDue:
    """A sink's target is to be looked after. The protocol does not know of it."""

    sink: str


Timed = Event | RenewDue | MaintainDue


class Conductor:
    """One instance of one flow, from opening to drained, stopped or halted."""

    def __init__(
        self,
        opened: OpenedFlow,
        workers: Workers,
        clock: Clock,
        settle_sources: Callable[[Positions], None],
        *,
        trace: Trace | None = None,
    ) -> None:
        """settle_sources: called with the positions before which everything has taken effect for good."""
        self.opened = opened
        self.core = EpochCore(
            opened.recovered, commit=opened.plan.commit, deliver_bytes=opened.plan.settings.deliver_bytes
        )
        self.drained: Drained | None = None
        self.halted: BaseException | None = None
        self.stopped_sinks: dict[str, OnefoldError] = {}
        self.waiting_sinks: dict[str, OnefoldError] = {}
        self._workers = workers
        self._clock = clock
        self._settle_sources = settle_sources
        self._trace = trace or _ignore
        self._inbox: queue.SimpleQueue[Event | Broken | Forgotten | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Timed]] = []
        self._timer_count = 0
        self._draft: Draft | None = None
        self._sealing = SealingLane(opened, clock, post=self._inbox.put, note=self._note)
        self._sinks = SinkLanes(opened, post=self._inbox.put, note=self._note)
        self._renew_every = self._sinks.renew_every()
        self._maintain_every = self._sinks.maintain_every()

    @property
    def totals(self) -> Mapping[str, Any]:
        """The books of all epochs so far."""
        return self._sealing.totals

    @property
    def refused(self) -> int:
        """Rows of this run that sinks refused, and that are dead letters."""
        return self._sealing.refusals.count

    @property
    def given_up(self) -> Mapping[str, int]:
        """By sink, how many rows may have been lost at most once."""
        return dict(self._sealing.given_up)

    # ----------------------------------------------------------------------------------------------------- verbs

    def begin(self) -> None:
        """Open the sinks and start the timers."""
        self._note("append", kind="start", number=self._sealing.number)
        self._carry_out(self.core.start())
        settings = self.opened.plan.settings
        self._later(settings.fence_every_seconds, FenceDue())
        self._later(settings.settle_every_seconds, SettleDue())
        for sink, seconds in self._renew_every.items():
            self._later(seconds, RenewDue(sink))
        for sink, seconds in self._maintain_every.items():
            self._later(seconds, MaintainDue(sink))

    def offer(self, draft: Draft) -> None:
        """Give the core a computed epoch; only while core.can_offer."""
        check(self._draft is None, "one epoch is open at a time", epoch=draft.result.number)
        check(
            draft.result.number == self.core.chain.head + 1, "epochs are computed in order", found=draft.result.number
        )
        self._draft = draft
        self._workers.submit(SEALING, lambda: self._guard(self._sealing.put_deltas, draft))
        rows = {name: table.num_rows for name, table in draft.result.outputs.items()}
        is_sifted = any(self.opened.outputs[name].is_sifted for name in rows)
        last = frozenset({DEAD_LETTERS}) if is_sifted else frozenset[str]()
        self._tell(EpochOffered(draft.seal, draft.result.ends, rows, last))

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

    def close(self, failure: BaseException | None = None) -> None:
        """End the lanes, close sinks and journal; look at `halted` afterwards. Safe after a halt.

        failure: what has ended the run elsewhere, while it read or computed.
        """
        self.halted = self.halted or failure
        for name, output in self.opened.outputs.items():
            self._workers.submit(f"sink {name}", output.sink.close)
        self._workers.close()
        try:
            self._clear_mark()
            self._await_snapshot()
            self._blame_successor_first()
        finally:
            self.opened.journal.close()

    def _clear_mark(self) -> None:
        """When every handle of dead instances is gone, and of ours those of the epoch that was given up, if one was.

        INV-12: not when a prepare had no answer; it may still land, in a sink that nobody asks any more.
        """
        is_decided = self._draft is None or (self._draft.has_failed and not self._draft.is_in_doubt)
        if is_decided and self.core.orphans_are_gone and not self._sinks.has_failed_to_abort:
            self._sealing.undecided.clear()

    def _await_snapshot(self) -> None:
        try:
            self.opened.snapshots.wait()
        except OnefoldError as error:
            if self.halted is not None:
                LOG.warning("the snapshot that was under way failed as well: %s", error.summary, extra=self._about())
            self.halted = self.halted or error

    def _blame_successor_first(self) -> None:
        """An instance that was overtaken may find files gone and tokens moved: neither is damage."""
        if self.halted is None or isinstance(self.halted, Fenced):
            return
        journal, ours = self.opened.journal, self._sealing.number
        with contextlib.suppress(OnefoldError):
            last = journal.last_number()
            is_ours = {number for number, record in journal.read(last) if record.kind != "start"} == {ours + 1}
            if last > ours and not is_ours:  # one record more may be ours: appended, and its answer lost
                fenced = Fenced(file=journal.path, found=f"record {last}", expected=f"record {ours} to be the last")
                fenced.__cause__ = self.halted
                self.halted = fenced

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
                self._on_sink(sink, self._sinks.open, sink)
            case Prepare():
                self._on_sealing(self._sealing.prepare, step, self._open_draft())
            case AppendSeal():
                self._on_sealing(self._sealing.seal, step, self._open_draft())
            case CommitSink():
                self._deliver(step)
            case AppendAttempt(sink, first, last):
                header = {"sink": sink, "first": first, "last": last}
                self._on_sealing(self._sealing.record, JournalRecord("attempt", header), AttemptRecorded(sink))
            case AppendOutcome(sink, last, rows_given_up):
                header = {"sink": sink, "last": last, "rows_given_up": rows_given_up}
                self._on_sealing(self._sealing.record, JournalRecord("outcome", header), OutcomeRecorded(sink))
            case AppendSettle(epoch):
                self._on_sealing(self._sealing.settle, epoch)
            case TellSources(_, ends):
                self._tell_sources(ends)
            case AbortHandle(sink):
                self._on_sink(sink, self._sinks.abort, step)
            case PauseSink(sink, failures, error):
                self._pause(sink, failures, error)
            case StopSink(sink, error):
                LOG.error("sink %s stopped: %s", sink, error.summary, extra=self._about(sink))
                self.stopped_sinks[sink] = error
            case Drained():
                self.drained = step
            case Halt(error):
                self.halted = self.halted or error

    def _pause(self, sink: str, failures: int, error: OnefoldError) -> None:
        about = self._about(sink)
        if failures == 1 and isinstance(error, SinkUnavailable):
            LOG.warning("sink %s: %s", sink, error, extra=about)
        elif failures > 1:
            LOG.warning("sink %s: %s Found: %s (try %d)", sink, error.summary, error.found, failures, extra=about)
        self.waiting_sinks[sink] = error
        self._later(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (failures - 1)), RetryDue(sink))

    def _about(self, sink: str | None = None) -> dict[str, Any]:
        """Fields of a log record. epoch: the newest sealed."""
        fields = {"flow": self.opened.plan.flow, "epoch": self.core.chain.head}
        return fields if sink is None else {**fields, "sink": sink}

    def _later(self, seconds: float, event: Timed) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (self._clock.monotonic() + seconds, self._timer_count, event))

    def _run_timers(self) -> bool:
        ran = False
        settings = self.opened.plan.settings
        while self._timers and self._timers[0][0] <= self._clock.monotonic():
            _, _, event = heapq.heappop(self._timers)
            ran = True
            if isinstance(event, RenewDue):
                self._later(self._renew_every[event.sink], event)
                self._on_sink(event.sink, self._sinks.renew, event.sink)
                continue
            if isinstance(event, MaintainDue):
                self._later(self._maintain_every[event.sink], event)
                self._on_sink(event.sink, self._sinks.maintain, event.sink)
                continue
            if isinstance(event, FenceDue):
                self._later(settings.fence_every_seconds, event)
            elif isinstance(event, SettleDue):
                self._later(settings.settle_every_seconds, event)
            self._tell(event)
        return ran

    def _tell_sources(self, ends: Positions) -> None:
        self._settle_sources(ends)
        self.core.chain.strip(self._sealing.planned_free)
        settled = self.core.settled
        self._on_sealing(self._sealing.free, settled, EpochNumber(min(self.core.oldest_token(), settled)))

    # ----------------------------------------------------------------------------------------------------- the lanes

    def _on_sealing(self, job: Callable[..., None], *args: Any) -> None:
        self._workers.submit(SEALING, lambda: self._guard(job, *args))

    def _on_sink(self, sink: str, job: Callable[..., None], *args: Any) -> None:
        self._workers.submit(f"sink {sink}", lambda: self._guard(job, *args))

    def _guard(self, job: Callable[..., None], *args: Any) -> None:
        try:
            job(*args)
        except BaseException as error:  # noqa: BLE001 - handed to the conductor, which stops the instance
            self._inbox.put(Broken(error))

    def _open_draft(self) -> Draft:
        draft = self._draft
        check(draft is not None, "an epoch is open")
        return draft  # type: ignore[return-value]

    def _deliver(self, step: CommitSink) -> None:
        if pace := pace_of(self.opened.outputs[step.sink].sink):
            self._later(pace, DeliveryDue(step.sink))
        receipts, is_whole = self.opened.archive.receipts(step.sink, step.first, step.last)
        if is_whole:
            self._on_sink(step.sink, self._sinks.commit, step, receipts)
        else:
            self._on_sealing(self._reload, step)

    def _reload(self, step: CommitSink) -> None:
        receipts = self.opened.archive.reload(step.sink, step.first, step.last)
        self._on_sink(step.sink, self._sinks.commit, step, receipts)

    def _note(self, what: str, **told: Any) -> None:
        self._trace({"do": what, **told})


def _ignore(_: Mapping[str, Any]) -> None:
    """No trace."""
