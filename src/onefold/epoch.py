"""The one idea, as a pure state machine: compute once, seal, deliver until acknowledged, settle.

Events come in, steps go out, both as data (steps.py); no I/O, no clock, no randomness. The same class runs in
production, in the simulator and under the comparison with the model (spec/).

    offered -> every sink prepares its rows -> ONE seal record -> each sink is delivered at its own pace -> settled

The caller keeps two promises: steps are carried out in the order given, and a step's event is told back exactly once.
ARCHITECTURE.md numbers the invariants.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from onefold.chain import Chain, Header
from onefold.course import Course, SinkRule
from onefold.errors import OnefoldError, StateUnknown, check
from onefold.steps import (
    AbortHandle,
    AppendFailed,
    AppendSeal,
    AppendSettle,
    AttemptRecorded,
    CommitFailed,
    CommitRefused,
    Committed,
    CommitUnknown,
    DeliveryDue,
    DrainAsked,
    Drained,
    EpochOffered,
    Event,
    FenceDue,
    Halt,
    HandleAborted,
    OpenFailed,
    OutcomeRecorded,
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
    StopAsked,
    TellSources,
)
from onefold.types import EpochNumber, Handle, Incarnation, Positions, SealId, TokenMove

__all__ = ["EpochCore", "Recovered"]


@dataclass(frozen=True)
class Recovered:
    """What an instance knows after it appended its start record and then read the journal.

    may_abort: the journal stands where its last start record says (it is no copy), so handles may be aborted.
    """

    chain: Chain
    incarnation: Incarnation
    settled: EpochNumber
    sinks: tuple[SinkRule, ...]
    may_abort: bool = True


@dataclass
class _Draft:
    """The open epoch: offered, not yet sealed."""

    epoch: EpochNumber
    seal: SealId
    ends: Positions
    rows: dict[str, int]
    last: frozenset[str]
    waiting: set[str]
    sizes: dict[str, int] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)


class EpochCore:
    """All of the protocol's decisions for one instance of one flow."""

    def __init__(
        self,
        recovered: Recovered,
        *,
        commit: Literal["separately", "together"] = "separately",
        deliver_bytes: int = 64 << 20,
    ) -> None:
        self.chain = recovered.chain
        self.settled = recovered.settled
        self.courses = {
            rule.name: Course(
                rule, self.chain, self.settled, deliver_bytes=deliver_bytes, joins_epochs=commit == "separately"
            )
            for rule in recovered.sinks
        }
        self._incarnation = recovered.incarnation
        self._may_abort = recovered.may_abort
        self._is_together = commit == "together"
        self._draft: _Draft | None = None
        self._orphans: dict[str, tuple[Handle, ...]] = {}
        self._aborts_awaited = 0
        self.orphans_are_gone = False
        self._settling: EpochNumber | None = None
        self._ending: Literal["no", "drain", "stop", "said"] = "no"
        self._is_halted = False

    # ------------------------------------------------------------------------------------------------- questions

    @property
    def can_offer(self) -> bool:
        """Whether the next epoch may be offered now."""
        if self._is_halted or self._draft is not None or self._ending != "no":
            return False
        if not self._is_together:
            return all(course.was_answered for course in self.courses.values())
        return self.orphans_are_gone and all(
            course.is_waiting and not self.chain.has_rows(name, course.cursor, self.chain.head)
            for name, course in self.courses.items()
        )

    def undelivered_bytes(self) -> int:
        """Bytes sealed that some sink has not taken: what the spool's quota bounds. May be asked by any thread."""
        return sum(course.undelivered_bytes for course in self.courses.values())

    def oldest_token(self) -> EpochNumber:
        """Headers are kept back to here (INV-8)."""
        return min((course.cursor for course in self.courses.values()), default=self.chain.head)

    # ----------------------------------------------------------------------------------------------------- verbs

    def start(self) -> list[Step]:
        """The first steps: open every sink."""
        steps = [step for course in self.courses.values() for step in course.open()]
        if not self.courses:
            self.orphans_are_gone = True
        return steps

    def on(self, event: Event) -> list[Step]:
        """Take one event; give the steps to carry out, in order. After a Halt nothing more is given."""
        if self._is_halted:
            return []
        try:
            steps = self._react(event)
            if not any(isinstance(step, Halt) for step in steps):
                steps += self._go_on()
        except OnefoldError as error:
            steps = [Halt(error)]
        for number, step in enumerate(steps):
            if isinstance(step, Halt):
                self._is_halted = True
                return steps[: number + 1]
        return steps

    def _react(self, event: Event) -> list[Step]:
        match event:
            case SinkOpened(sink, token, handles):
                steps = self.courses[sink].opened(token, self.settled)
                self._demand_prepared(sink, handles)
                # Judged by the token that was read with them: a handle may be delivered before all sinks are open.
                self._orphans[sink] = tuple(handle for handle in handles if self._is_orphan(sink, handle))
                return steps
            case OpenFailed(sink, error):
                return self.courses[sink].open_failed(error)
            case EpochOffered():
                return self._open_epoch(event)
            case Prepared():
                return self._prepared(event)
            case PrepareFailed(sink, error):
                return self._prepare_failed(sink, error)
            case Sealed():
                return self._sealed()
            case AppendFailed(error):
                return [Halt(error)]  # INV-6: memory may be ahead of the journal
            case Committed(sink):
                return self.courses[sink].committed()
            case CommitFailed(sink, error):
                return self.courses[sink].failed(error)
            case CommitUnknown(sink, error, is_timeout):
                return self.courses[sink].failed(error, is_timeout=is_timeout)
            case CommitRefused(sink, found):
                return self.courses[sink].refused(found)
            case RowsWereRefused(sink, error):
                return self.courses[sink].rows_refused(error)
            case AttemptRecorded(sink):
                return self.courses[sink].attempt_recorded()
            case OutcomeRecorded(sink):
                return self.courses[sink].outcome_recorded()
            case RetryDue(sink):
                return self.courses[sink].retry()
            case DeliveryDue(sink):
                return self.courses[sink].due()
            case Settled():
                return self._settled()
            case HandleAborted():
                self._aborts_awaited -= 1
                return []
            case FenceDue():
                return self._fence()
            case SettleDue():
                return self._settle()
            case DrainAsked():
                self._ending = "drain"
                return []
            case StopAsked():
                self._ending = "stop"
                return []

    def _go_on(self) -> list[Step]:
        steps = self._abort_orphans()
        is_ending = self._ending in ("drain", "stop")
        for course in self.courses.values():
            if self._may_deliver(course):
                steps += course.deliver(also_token=is_ending and self._draft is None, at_once=is_ending)
        steps += self._end()
        return steps

    def _may_deliver(self, course: Course) -> bool:
        """A sink that prepared the open epoch natively does nothing else until the decision."""
        return not (self._is_together and self._draft is not None and course.rule.name in self._draft.rows)

    # ----------------------------------------------------------------------------------------------- open to seal

    def _open_epoch(self, offer: EpochOffered) -> list[Step]:
        check(self.can_offer, "INV-1: one epoch is open at a time")
        named = offer.last.union(offer.rows)
        check(named <= set(self.courses), "rows are for sinks of the flow", found=sorted(named))
        epoch, seal = EpochNumber(self.chain.head + 1), offer.seal
        rows = {sink: count for sink, count in offer.rows.items() if count and sink not in offer.last}
        rows |= {sink: offer.rows.get(sink, 0) for sink in sorted(offer.last)}
        self._draft = _Draft(epoch, seal, offer.ends, rows, offer.last, waiting=set(rows))
        token = Header(epoch, seal, self.chain.head_id, offer.ends, {}, {}).token()
        steps: list[Step] = [
            Prepare(sink, epoch, seal, TokenMove(self.courses[sink].token, token), tuple(rows))
            if self._is_together
            else Prepare(sink, epoch, seal)
            for sink in rows
        ]
        return steps or self._seal()

    def _prepared(self, event: Prepared) -> list[Step]:
        draft = self._open_draft()
        check(event.sink in draft.waiting, "a sink prepares once", sink=event.sink, epoch=draft.epoch)
        draft.waiting.discard(event.sink)
        if event.is_part:
            draft.sizes[event.sink] = event.size_bytes
        else:
            check(event.sink in draft.last, "only a sink that is prepared last has no part", sink=event.sink)
            del draft.rows[event.sink]
        if event.is_staged:
            draft.staged.add(event.sink)
        return [] if draft.waiting else self._seal()

    def _prepare_failed(self, sink: str, error: Exception) -> list[Step]:
        draft = self._open_draft()
        check(sink in draft.waiting, "a sink prepares once", sink=sink, epoch=draft.epoch)
        aborts: list[Step] = [AbortHandle(name, None, draft.seal) for name in draft.rows] if self._is_together else []
        return [*aborts, Halt(error)]

    def _seal(self) -> list[Step]:
        draft = self._open_draft()
        return [AppendSeal(draft.epoch, draft.seal, self.chain.head_id)]

    def _sealed(self) -> list[Step]:
        draft = self._open_draft()
        staged = frozenset(draft.staged)
        previous = self.chain.head_id
        header = Header(draft.epoch, draft.seal, previous, draft.ends, draft.rows, draft.sizes, staged=staged)
        self.chain.append(header)
        for course in self.courses.values():
            course.sealed(header)
        self._draft = None
        if not self._is_together:
            return []
        return [step for sink in draft.rows for step in self.courses[sink].deliver_prepared(draft.epoch)]

    def _open_draft(self) -> _Draft:
        check(self._draft is not None, "an epoch is open")
        return self._draft  # type: ignore[return-value]

    # -------------------------------------------------------------------------------------------------- orphans

    def _is_orphan(self, sink: str, handle: Handle) -> bool:
        """INV-10: only handles of this journal, of a dead incarnation, that no seal waits to deliver.

        To no sink: a handle may hold the rows of several, and is listed by others beside them.
        """
        if handle.journal != self.chain.journal or handle.incarnation >= self._incarnation:
            return False
        header = self.chain.get(handle.epoch)
        if header is None or header.seal != handle.seal:
            return True
        waiting = self.courses.keys() & {sink, *header.staged}
        return not any(handle.epoch > self.courses[name].cursor for name in waiting)

    def _demand_prepared(self, sink: str, handles: Iterable[Handle]) -> None:
        """Sealed rows that are staged in the sink can come from nowhere else: without them it would try for ever."""
        course = self.courses[sink]
        if not course.is_exact:
            return
        prepared = {handle.seal for handle in handles}
        for header in self.chain.between(course.cursor, course.head_when_opening):  # listed before later ones
            if sink in header.staged and header.seal not in prepared:
                raise StateUnknown(
                    "Rows that a sink had prepared and that are sealed are no longer there.",
                    sink=sink,
                    found=f"no prepared rows of epoch {header.epoch}, seal {header.seal}",
                    next_step="They were aborted by hand or by another copy of this flow, or the sink was restored.",
                )

    def _abort_orphans(self) -> list[Step]:
        """INV-10: not before every sink has been opened and every token compared."""
        if self.orphans_are_gone:
            return []
        if self._aborts_awaited:
            return []
        if any(name not in self._orphans for name in self.courses):
            return []
        orphans = [(sink, handle) for sink, handles in self._orphans.items() for handle in handles]
        self._orphans = dict.fromkeys(self._orphans, ())
        if not orphans:
            self.orphans_are_gone = True
            return []
        if not self._may_abort:
            return self._refuse_copy(orphans)
        self._aborts_awaited = len(orphans)
        return [AbortHandle(sink, handle) for sink, handle in orphans]

    def _refuse_copy(self, orphans: Iterable[tuple[str, Handle]]) -> list[Step]:
        if not self._is_together:  # staged files lie there and hurt nobody
            self.orphans_are_gone = True
            return []
        return [
            Halt(
                StateUnknown(
                    "The journal was moved or copied, and prepared transactions of its last place are undecided.",
                    found=", ".join(f"{sink}: epoch {handle.epoch}" for sink, handle in orphans),
                    next_step="If this is the only copy that runs, adopt it with `onefold recover --adopt`.",
                )
            )
        ]

    # --------------------------------------------------------------------------------------------------- settling

    def _done_through(self) -> EpochNumber:
        return min((course.done_through() for course in self.courses.values()), default=self.chain.head)

    def _settle(self) -> list[Step]:
        done = self._done_through()
        if self._settling is not None or done <= self.settled:
            return []
        self._settling = done
        return [AppendSettle(done)]

    def _settled(self) -> list[Step]:
        check(self._settling is not None, "a settle record was asked for")
        self.settled = self._settling or self.settled
        self._settling = None
        for course in self.courses.values():
            course.skip_empty(self.settled)
        return [TellSources(self.settled, self.chain[self.settled].ends)]

    def _fence(self) -> list[Step]:
        """So that a fork cannot hide in epochs that were empty for a sink, tokens move over them from time to time."""
        if self._draft is not None and self._is_together:
            return []
        return [step for course in self.courses.values() for step in course.deliver(also_token=True)]

    def _end(self) -> list[Step]:
        if self._ending not in ("drain", "stop") or self._draft or self._settling or self._aborts_awaited:
            return []
        pending = [course for course in self.courses.values() if course.done_through() < self.chain.head]
        busy = [c for c in self.courses.values() if c.phase not in ("ready", "stopped") and not c.is_down]
        if busy:
            return []
        if self._ending == "drain" and any(course.phase != "stopped" for course in pending):
            return []
        steps = self._settle()
        if steps:
            return steps
        self._ending = "said"
        return [Drained({course.rule.name: course.cursor for course in pending})]
