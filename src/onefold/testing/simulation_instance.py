"""One simulated process: opens a journal, drives an EpochCore, does its steps in lanes, and can be killed anywhere.

Each lane does its jobs in order and tells what happened in order; which lane comes next is chance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onefold.chain import Chain
from onefold.engines.embedded.identity import sink_entries
from onefold.engines.embedded.opening import History, read_history
from onefold.epoch import EpochCore, Recovered
from onefold.errors import DiskFailed, Fenced, OnefoldError, OutcomeUnknown, RowsRefused, SinkUnavailable, TokenRefused
from onefold.protocols import JournalRecord
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
    SinkOpened,
    Step,
    StopSink,
    TellSources,
)
from onefold.testing import simulation_world as outside
from onefold.testing.simulation_records import ROW_BYTES, Draft, Surroundings, rule_of, seal_record, start_record
from onefold.testing.simulation_world import Delivery, PromiseBroken, SimulatedJournal, SimulatedSink
from onefold.types import EpochNumber, Handle, Incarnation, PartitionId, RecordNumber, SealId

__all__ = ["Instance"]

SEALING = "sealing"


@dataclass(frozen=True)
class _Forgotten:
    before: EpochNumber


class Instance:
    """A process from its start record to its end. Raises what opening a flow raises."""

    def __init__(self, around: Surroundings, journal: SimulatedJournal, name: str) -> None:
        self.around = around
        self.journal = journal
        self.name = name
        self.lanes: dict[str, deque[tuple[Callable[[Any], None], Any]]] = {}
        self.told: dict[str, deque[Event | _Forgotten]] = {}
        self.paused: list[str] = []
        self.stopped: set[str] = set()
        self.drained: Drained | None = None
        self.halted: Exception | None = None
        self.is_zombie = False
        self._draft: Draft | None = None
        self._open(read_history(journal, journal.id))

    def _open(self, history: History) -> None:
        entries = sink_entries(history, self.around.outputs())
        before = history.start
        place = {"path": self.journal.place}
        home = before.location if before else place
        self.number = RecordNumber(history.last + 1)
        self.incarnation = Incarnation(self.number)
        self.journal.append(self.number, start_record(entries, home).record())
        self._latest = {**history.latest, "start": self.number}
        self._through, self._given_up = dict(history.through), dict(history.given_up)
        self._freed = history.freed
        self.journal.freed = history.freed
        self._numbers = {seal.epoch: number for number, seal in history.seals}
        self._seals = {seal.epoch: seal.seal for _, seal in history.seals}
        newest = history.newest
        self.position = int(newest.ends["r"]["0"]) if newest else 0
        self.rules = tuple(rule_of(name, self.around, entries[name], history) for name in self.around.guarantees)
        chain = Chain(self.journal.id, [s.chain_header(has_payload=s.epoch > history.freed) for _, s in history.seals])
        recovered = Recovered(chain, self.incarnation, history.settled, self.rules, home == place)
        self.core = EpochCore(recovered, commit=self.around.commit, deliver_bytes=self.around.deliver_bytes)
        self._carry_out(self.core.start())

    # ----------------------------------------------------------------------------------------------- what may happen

    @property
    def is_over(self) -> bool:
        """Whether the core has nothing more to say; jobs may be left."""
        return self.halted is not None or self.drained is not None

    @property
    def given_up(self) -> Mapping[str, int]:
        """Rows counted as given up, by sink."""
        return self._given_up

    def choices(self) -> list[tuple[Callable[[Any], None], Any]]:
        """Everything that can happen here next: a job is done, or what was done is told to the core."""
        found: list[tuple[Callable[[Any], None], Any]] = [
            (self.work, lane) for lane, jobs in self.lanes.items() if jobs
        ]
        if not self.is_over:
            found += [(self.hear, lane) for lane, events in self.told.items() if events]
            found += [(self.retry, sink) for sink in self.paused]
        return found

    def work(self, lane: str) -> None:
        """Do the next job of a lane."""
        job, step = self.lanes[lane].popleft()
        job(step)

    def hear(self, lane: str) -> None:
        """Tell the core what happened next in a lane."""
        event = self.told[lane].popleft()
        if isinstance(event, _Forgotten):
            self.core.chain.forget_before(event.before)
        else:
            self.tell(event)

    def retry(self, sink: str) -> None:
        """A pause is over."""
        self.paused.remove(sink)
        self.tell(RetryDue(sink))

    def tell(self, event: Event) -> None:
        """Give the core an event and line up what it asks for."""
        if self.around.note:
            self.around.note(f"{self.name} < {event}")
        if isinstance(event, Sealed):
            self._draft = None
        self._carry_out(self.core.on(event))

    def offer(self, size: int) -> None:
        """Read so many positions, compute them, offer them. Only while core.can_offer."""
        around = self.around
        around.epochs += 1
        seal, end = SealId(f"{self.name}.{around.epochs}"), min(self.position + size, around.inputs)
        rows = {
            name: tuple(p for p in range(self.position, end) if outside.wants(around.sinks[name].place, p))
            for name in (rule.name for rule in self.rules)
        }
        self._draft = Draft(seal, end, {name: some for name, some in rows.items() if some})
        self.position = end
        self.tell(EpochOffered(seal, {"r": {"0": end}}, {name: len(some) for name, some in rows.items()}))  # type: ignore[dict-item]

    def kill(self) -> None:
        """Gone at any moment: what is under way happens, or not, or is still on its way."""
        chance = self.around.chance.random
        for jobs in self.lanes.values():
            if jobs and chance() < 0.5:
                job, step = jobs.popleft()
                if isinstance(step, CommitSink) and chance() < 0.5:
                    self.around.sinks[step.sink].floating.append(self._delivery(step))
                else:
                    job(step)
        self.lanes.clear()
        self.told.clear()
        self.halted = self.halted or Fenced("killed")

    # ------------------------------------------------------------------------------------------------ steps to jobs

    def _carry_out(self, steps: list[Step]) -> None:
        for step in steps:
            if self.around.note:
                self.around.note(f"{self.name} > {step}")
            match step:
                case OpenSink(sink):
                    self._line_up(sink, self._open_sink, step)
                case CommitSink(sink):
                    self._line_up(sink, self._commit, step)
                case AbortHandle(sink):
                    self._line_up(sink, self._abort, step)
                case Prepare():
                    self._line_up(SEALING, self._prepare, step)
                case AppendSeal():
                    self._line_up(SEALING, self._seal, step)
                case AppendAttempt() | AppendOutcome():
                    self._line_up(SEALING, self._record, step)
                case AppendSettle():
                    self._line_up(SEALING, self._settle, step)
                case PauseSink(sink):
                    self.paused.append(sink)
                case StopSink(sink):
                    self.stopped.add(sink)
                case TellSources():
                    self._tell_sources(step)
                case Drained():
                    self.drained = step
                case Halt(error):
                    self.halted = error

    def _line_up(self, lane: str, job: Callable[[Any], None], step: object) -> None:
        self.lanes.setdefault(lane, deque()).append((job, step))

    def _tell(self, lane: str, event: Event | _Forgotten) -> None:
        self.told.setdefault(lane, deque()).append(event)

    def _fails(self, likelihood: float) -> bool:
        return self.around.chance.random() < likelihood * self.around.roughness

    def _tell_sources(self, step: TellSources) -> None:
        end = int(step.ends["r"][PartitionId("0")])  # type: ignore[arg-type]
        self.around.judge.settling(end, list(self.around.sinks.values()), self._given_up)
        self.core.chain.strip(self._freed)
        oldest = EpochNumber(min(self.core.oldest_token(), self.core.settled))
        self._line_up(SEALING, self._free, oldest)

    # ----------------------------------------------------------------------------------------------- the sealing lane

    def _prepare(self, step: Prepare) -> None:
        sink = self.around.sinks[step.sink]
        error = self._prepare_error(sink, step)
        if error is not None:
            self._tell(SEALING, PrepareFailed(step.sink, error))
            return
        draft = self._draft
        if draft is None or draft.seal != step.seal:
            raise PromiseBroken(f"{self.name}: {step} is of no open epoch")
        positions = draft.rows[step.sink]
        self.around.rows[step.seal, step.sink] = positions
        if sink.stages:
            handle = Handle(self.journal.id, self.incarnation, step.epoch, step.seal)
            sink.handles[step.seal] = (handle, step.move)
        self._tell(SEALING, Prepared(step.sink, len(positions) * ROW_BYTES, sink.stages))

    def _prepare_error(self, sink: SimulatedSink, step: Prepare) -> OnefoldError | None:
        if self._fails(0.01) or (sink.stages and (sink.is_held(()) or sink.is_down)):
            return SinkUnavailable("It cannot prepare now.")
        if step.move is not None and sink.locks and sink.token != step.move.expected:
            return TokenRefused("It compares the token when it prepares.")
        return None

    def _seal(self, step: AppendSeal) -> None:
        draft = self._draft
        if draft is None or draft.seal != step.seal:
            raise PromiseBroken(f"{self.name}: {step} is of no open epoch")
        seal = seal_record(step, draft, {name for name, sink in self.around.sinks.items() if sink.stages})
        if self._append(seal.record()):
            self._numbers[step.epoch], self._seals[step.epoch] = self.number, step.seal
            self._tell(SEALING, Sealed())

    def _record(self, step: AppendAttempt | AppendOutcome) -> None:
        kind: Literal["attempt", "outcome"] = "attempt" if isinstance(step, AppendAttempt) else "outcome"
        if not self._append(JournalRecord(kind, vars(step))):
            return
        self._latest[f"{kind} {step.sink}"] = self.number
        if isinstance(step, AppendAttempt):
            self._tell(SEALING, AttemptRecorded(step.sink))
            return
        self._through[step.sink] = step.last
        self._given_up[step.sink] = self._given_up.get(step.sink, 0) + step.rows_given_up
        self._latest.pop(f"attempt {step.sink}", None)
        self._tell(SEALING, OutcomeRecorded(step.sink))

    def _settle(self, step: AppendSettle) -> None:
        freed = EpochNumber(self._freed + int(self.around.chance.random() * (step.epoch - self._freed + 1)))
        header = {"epoch": step.epoch, "freed": freed, "through": dict(self._through), "given_up": dict(self._given_up)}
        if self._append(JournalRecord("settle", header)):
            self._latest["settle"] = self.number
            self._freed = freed
            self._tell(SEALING, Settled())

    def _free(self, oldest: EpochNumber) -> None:
        self.journal.freed = max(self.journal.freed, self._freed)
        least = EpochNumber(min(oldest, self._freed + 1))
        needed = [*self._latest.values(), *(number for epoch, number in self._numbers.items() if epoch >= least)]
        self.journal.drop_before(RecordNumber(min(needed)))
        self._tell(SEALING, _Forgotten(least))

    def _append(self, record: JournalRecord) -> bool:
        fails, lands = self._fails(0.005), self.around.chance.random() < 0.5
        try:
            if lands or not fails:
                self.journal.append(RecordNumber(self.number + 1), record)
                if record.kind == "seal":
                    self._tell_judge(record)
            if fails:
                raise DiskFailed("append")
        except OnefoldError as error:
            self._tell(SEALING, AppendFailed(error))
            return False
        self.number = RecordNumber(self.number + 1)
        return True

    def _tell_judge(self, record: JournalRecord) -> None:
        header = record.header
        rows = {sink: self.around.rows[header["seal"], sink] for sink in header["receipts"]}
        laws = {rule.name: rule.guarantee for rule in self.rules}
        self.around.judge.sealing(header["seal"], outside.Sealed(header["epoch"], header["previous"], rows, laws))

    # ------------------------------------------------------------------------------------------------ the sinks' lanes

    def _open_sink(self, step: OpenSink) -> None:
        sink = self.around.sinks[step.sink]
        if sink.is_down:
            self._tell(step.sink, OpenFailed(step.sink, SinkUnavailable("down")))
            return
        sink.floating.clear()  # fenced
        self._tell(step.sink, SinkOpened(step.sink, sink.token, sink.listed()))

    def _delivery(self, step: CommitSink) -> Delivery:
        rows: list[outside.Row] = []
        handles: tuple[str, ...] = ()
        is_staged = self.around.sinks[step.sink].stages
        for number in range(step.first, step.last + 1):
            if EpochNumber(number) not in self._seals:
                raise PromiseBroken(f"{self.name}: {step} needs epoch {number}, which no record holds")
            seal = self._seals[EpochNumber(number)]
            positions = self.around.rows.get((seal, step.sink), ())
            rows += [(position, seal) for position in positions]
            handles += (seal,) if positions and is_staged else ()
        law = next(rule.guarantee for rule in self.rules if rule.name == step.sink)
        return Delivery(tuple(rows), step.move, law, handles)

    def _lacks_payload(self, step: CommitSink) -> bool:
        """What is wanted was freed: by another process, or just when its sink turned out to be restored."""
        freed = range(step.first, min(step.last, self.journal.freed) + 1)
        lacks = any(self.around.rows.get((self._seals[EpochNumber(n)], step.sink)) for n in freed)
        if self.around.sinks[step.sink].stages:
            return False
        if lacks and not self.is_zombie and step.sink not in self.around.judge.was_restored:
            raise PromiseBroken(f"{self.name}: {step} needs rows that were freed")
        return lacks

    def _commit(self, step: CommitSink) -> None:
        sink, delivery = self.around.sinks[step.sink], self._delivery(step)
        if self._lacks_payload(step):
            self._tell(step.sink, CommitUnknown(step.sink, OutcomeUnknown("the rows are gone")))
            return
        if sink.is_down:
            self._tell(step.sink, CommitFailed(step.sink, SinkUnavailable("down")))
            return
        if any(position == sink.poison for position, _ in delivery.rows):
            self._tell(step.sink, RowsWereRefused(step.sink, RowsRefused("poison")))
            return
        if not self._fails(0.2):
            self._tell(step.sink, self._landed(sink, delivery))
            return
        fate = self.around.chance.random()
        if fate < 0.3:
            sink.land(delivery, self.around.judge)
        elif fate < 0.6:
            sink.floating.append(delivery)
        elif fate < 0.7:
            self._tell(step.sink, CommitFailed(step.sink, SinkUnavailable("not now")))
            return
        self._tell(step.sink, CommitUnknown(step.sink, OutcomeUnknown("no answer"), is_timeout=fate * 10 % 1 < 0.5))

    def _landed(self, sink: SimulatedSink, delivery: Delivery) -> Event:
        if sink.is_held(delivery.handles):
            return CommitFailed(sink.name, SinkUnavailable("prepared rows hold the token"))
        if sink.land(delivery, self.around.judge):
            return Committed(sink.name)
        if delivery.move is not None and sink.token == delivery.move.expected:
            return CommitUnknown(sink.name, OutcomeUnknown("the prepared rows are gone"))
        return CommitRefused(sink.name, sink.token)

    def _abort(self, step: AbortHandle) -> None:
        sink = self.around.sinks[step.sink]
        seal = step.handle.seal if step.handle else self._draft.seal if self._draft else ""
        sink.forget(seal)
        is_ours = self.journal.place == "home" and step.handle is not None
        if seal in self.around.judge.sealed and not is_ours:
            raise PromiseBroken(f"{self.name}: {step} takes rows away that are sealed")
        if step.handle:
            self._tell(step.sink, HandleAborted(step.sink))
