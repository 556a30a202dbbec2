"""The pure core under random faults, its runs recorded and compared with the model."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from onefold.chain import Chain, Header
from onefold.course import Course, SinkRule
from onefold.epoch import EpochCore, Recovered
from onefold.errors import InvariantBroken, OutcomeUnknown, SinkUnavailable
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
    EpochOffered,
    Event,
    FenceDue,
    HandleAborted,
    OpenFailed,
    OpenSink,
    OutcomeRecorded,
    PauseSink,
    Prepare,
    Prepared,
    PrepareFailed,
    RetryDue,
    Sealed,
    Settled,
    SettleDue,
    SinkOpened,
    Step,
)  # fmt: skip
from onefold.types import Attempt, EpochNumber, Guarantee, Handle, Incarnation, SealId, Token, TokenMove
from spec.replay import check

EXACTLY, LEAST, MOST = "exactly-once", "at-least-once", "at-most-once"
PAIRS = [(EXACTLY, EXACTLY), (EXACTLY, LEAST), (MOST, EXACTLY), (MOST, LEAST)]
RUNS = 60


@dataclass
class Shop:
    """A sink: its token, its prepared handles, and commits still on their way."""

    token: Token | None = None
    handles: list[Handle] = field(default_factory=list)
    late: list[TokenMove] = field(default_factory=list)

    def take(self, move: TokenMove, is_prepared: bool) -> bool:
        held = [handle for handle in self.handles if handle.seal == move.new.seal]
        if self.token != move.expected or (is_prepared and not held):
            return False
        for handle in held:
            self.handles.remove(handle)
        self.token = move.new
        return True


class Machine:
    """One machine: a journal, sinks, and one process after another; everything is recorded."""

    def __init__(self, seed: int, guarantees: tuple[str, ...], *, together: bool = False) -> None:
        self.choose = random.Random(seed)
        self.guarantees = {f"sink{number}": Guarantee(text) for number, text in enumerate(guarantees)}
        self.together = together
        self.log: list[tuple[Any, ...]] = []
        self.shops = {name: Shop() for name in self.guarantees}
        sinks = {name: str(guarantee) for name, guarantee in self.guarantees.items()}
        self.trace: list[dict[str, Any]] = [{"do": "begin", "sinks": sinks, "together": together}]

    def live(self, incarnations: int = 4) -> list[dict[str, Any]]:
        for _ in range(incarnations):
            self.run_until_killed()
            self.trace.append({"do": "kill"})
        return self.trace

    def run_until_killed(self) -> None:
        self.append("start", ())
        self.incarnation = Incarnation(len(self.log))
        self.core = self.recovered()
        self.draft: dict[str, int] = {}
        self.waiting: list[Step] = list(self.core.start())
        for _ in range(self.choose.randint(3, 60)):
            if self.core._is_halted:
                return
            actions: list[Callable[[], None]] = [self.idle, *[self.step] * (8 if self.waiting else 0)]
            if self.core.can_offer:
                actions.append(self.offer)
            if any(shop.late for shop in self.shops.values()):
                actions.append(self.land)
            self.choose.choice(actions)()

    def recovered(self) -> EpochCore:
        seals = [fields[0] for kind, *fields in self.log if kind == "seal"]
        settled = max((fields[0] for kind, *fields in self.log if kind == "settle"), default=0)
        rules = []
        for name, guarantee in self.guarantees.items():
            through, attempt = 0, None
            for kind, *fields in self.log:
                if kind == "attempt" and fields[0] == name:
                    attempt = Attempt(*fields)
                elif kind == "outcome" and fields[0] == name:
                    through, attempt = fields[1], None
            rules.append(SinkRule(name, guarantee, through=EpochNumber(through), attempt=attempt))
        recovered = Recovered(Chain("journal", seals), self.incarnation, EpochNumber(settled), tuple(rules))
        commit = "together" if self.together else "separately"
        return EpochCore(recovered, commit=commit, deliver_bytes=2)  # type: ignore[arg-type]

    def tell(self, event: Event) -> None:
        self.waiting += self.core.on(event)

    def idle(self) -> None:
        self.tell(self.choose.choice([SettleDue(), FenceDue()]))

    def offer(self) -> None:
        rows = {name: self.choose.randint(0, 2) for name in self.guarantees}
        self.draft = {name: count for name, count in rows.items() if count}
        self.tell(EpochOffered(SealId(f"{self.choose.getrandbits(128):032x}"), {}, rows))

    def land(self) -> None:
        shop = self.choose.choice([shop for shop in self.shops.values() if shop.late])
        shop.take(shop.late.pop(), self.together)

    def append(self, kind: str, record: tuple[Any, ...], **fields: Any) -> None:
        self.log.append((kind, *record))
        self.trace.append({"do": "append", "kind": kind, "number": len(self.log), **fields})

    def step(self) -> None:
        step = self.waiting.pop(self.choose.randrange(len(self.waiting)))
        match step:
            case OpenSink(sink):
                self.open(sink)
            case Prepare():
                self.prepare(step)
            case AbortHandle(sink, handle):
                self.abort(sink, handle)
            case PauseSink(sink):
                self.tell(RetryDue(sink))
            case CommitSink():
                self.commit(step)
            case _:
                self.record(step)

    def open(self, sink: str) -> None:
        if self.choose.random() < 0.2:
            self.tell(OpenFailed(sink, SinkUnavailable()))
            return
        shop = self.shops[sink]
        self.trace.append({"do": "open", "sink": sink, "token": as_list(shop.token)})
        self.tell(SinkOpened(sink, shop.token, tuple(shop.handles)))

    def prepare(self, step: Prepare) -> None:
        if not self.together:
            self.tell(Prepared(step.sink, 1, is_staged=self.together))
            return
        assert step.move is not None
        shop, line = self.shops[step.sink], {"do": "prepare", "sink": step.sink, "epoch": step.epoch, "seal": step.seal}
        if self.choose.random() < 0.1 or shop.handles or shop.token != step.move.expected:
            self.trace.append({**line, "result": "failed"})
            self.tell(PrepareFailed(step.sink, SinkUnavailable()))
            self.finish_aborts()
            return
        shop.handles.append(Handle("journal", self.incarnation, step.epoch, step.seal))
        self.trace.append({**line, "result": "ok"})
        self.tell(Prepared(step.sink, 1, is_staged=self.together))

    def finish_aborts(self) -> None:
        for step in self.waiting:
            if isinstance(step, AbortHandle):
                self.abort(step.sink, step.handle)

    def abort(self, sink: str, handle: Handle | None) -> None:
        shop = self.shops[sink]
        doomed = [h for h in shop.handles if h == handle or (handle is None and h.incarnation == self.incarnation)]
        for each in doomed:
            shop.handles.remove(each)
            line = {"epoch": each.epoch, "seal": each.seal, "incarnation": each.incarnation}
            self.trace.append({"do": "abort", "sink": sink, **line})
        self.tell(HandleAborted(sink))

    def record(self, step: Step) -> None:
        match step:
            case AppendSeal(epoch, seal, previous):
                sizes = dict.fromkeys(self.draft, 1)
                staged = frozenset(self.draft if self.together else ())
                header = Header(epoch, seal, previous, {}, self.draft, sizes, staged=staged)
                fields = {"epoch": epoch, "seal": seal, "previous": previous, "rows": self.draft}
                self.seal(header, fields)
            case AppendAttempt(sink, first, last):
                self.append("attempt", (sink, first, last), sink=sink, first=first, last=last)
                self.tell(AttemptRecorded(sink))
            case AppendOutcome(sink, last, given_up):
                self.append("outcome", (sink, last), sink=sink, last=last, rows_given_up=given_up)
                self.tell(OutcomeRecorded(sink))
            case AppendSettle(epoch):
                self.append("settle", (epoch,), epoch=epoch)
                self.tell(Settled())

    def seal(self, header: Header, fields: dict[str, Any]) -> None:
        luck = self.choose.random()
        if luck > 0.1:
            self.append("seal", (header,), **fields)
            self.tell(Sealed())
            return
        self.append("seal", (header,), **fields, result="failed")
        if luck < 0.05:
            self.log.pop()
        self.tell(AppendFailed(OutcomeUnknown()))

    def commit(self, step: CommitSink) -> None:
        move, sink, luck = step.move, step.sink, self.choose.random()
        expected, new = (as_list(move.expected), as_list(move.new)) if move else (None, None)
        is_prepared = self.together and sink in self.core.chain[step.last].rows
        line = {"do": "commit", "sink": sink, "first": step.first, "last": step.last, "expected": expected, "new": new}
        if luck < 0.15:
            self.trace.append({**line, "result": "unavailable"})
            self.tell(CommitFailed(sink, SinkUnavailable()))
        elif luck < 0.35:
            self.trace.append({**line, "result": "unknown"})
            if move is not None:
                self.shops[sink].late.append(move)
                if luck < 0.25:
                    self.shops[sink].take(self.shops[sink].late.pop(), is_prepared)
            self.tell(CommitUnknown(sink, OutcomeUnknown()))
        elif move is not None and not self.shops[sink].take(move, is_prepared):
            self.trace.append({**line, "result": "refused"})
            self.tell(CommitRefused(sink, self.shops[sink].token))
        else:
            self.trace.append({**line, "result": "ok"})
            self.tell(Committed(sink))


def as_list(token: Token | None) -> list[Any] | None:
    return None if token is None else [token.epoch, token.seal]


def is_caught(machine: Machine) -> bool:
    """By the model alone: what the mutant's own checks say is left aside."""
    with suppress(InvariantBroken):
        machine.live()
    return check(machine.trace) is not None


@pytest.mark.parametrize("guarantees", PAIRS)
def test_runs_of_the_core_are_paths_of_the_model(guarantees: tuple[str, ...]) -> None:
    for seed in range(RUNS):
        run = Machine(seed, guarantees).live()
        assert check(run) is None, f"seed {seed}"


def test_runs_of_the_core_under_two_phase_commit_are_paths_of_the_model() -> None:
    for seed in range(RUNS * 2):
        run = Machine(seed, (EXACTLY, EXACTLY), together=True).live()
        assert check(run) is None, f"seed {seed}"


def test_a_core_that_takes_no_answer_for_success_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Course, "failed", lambda self, error, is_timeout=False: self.committed())
    assert any(is_caught(Machine(seed, (EXACTLY, EXACTLY))) for seed in range(20))


def test_a_core_that_tries_again_at_most_once_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(self: Course, error: Exception, *, is_timeout: bool = False) -> list[Step]:
        return self._commit()

    monkeypatch.setattr(Course, "failed", again)
    assert any(is_caught(Machine(seed, (MOST, MOST))) for seed in range(20))


def test_a_core_that_settles_what_it_sealed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpochCore, "_done_through", lambda self: self.chain.head)
    assert any(is_caught(Machine(seed, (EXACTLY, EXACTLY))) for seed in range(20))


def test_a_core_that_goes_on_after_a_failed_seal_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    before = EpochCore._react
    monkeypatch.setattr(
        EpochCore, "_react", lambda self, event: before(self, Sealed() if isinstance(event, AppendFailed) else event)
    )
    assert any(is_caught(Machine(seed, (EXACTLY, EXACTLY))) for seed in range(20))
