"""Rules of the core about other histories' prepared rows, told step by step."""

from __future__ import annotations

import pytest

from onefold.chain import Chain, Header
from onefold.course import SinkRule
from onefold.epoch import EpochCore, Recovered
from onefold.errors import StateUnknown
from onefold.steps import AbortHandle, CommitSink, Committed, Halt, SinkOpened, Step
from onefold.types import EpochNumber, Guarantee, Handle, Incarnation, SealId, Token

SEALED = Header(EpochNumber(1), SealId("one"), "J", {}, {"a": 2}, {"a": 20})


def opened(handle: Handle, *, may_abort: bool = True) -> list[Step]:
    """What an instance, incarnation 7 of journal J, does about a handle that it finds when both sinks are opened."""
    rules = tuple(SinkRule(name, Guarantee.EXACTLY_ONCE) for name in ("a", "b"))
    recovered = Recovered(Chain("J", [SEALED]), Incarnation(7), EpochNumber(1), rules, may_abort)
    core = EpochCore(recovered, commit="together")
    core.start()
    token = Token(EpochNumber(1), SealId("one"))
    first = core.on(SinkOpened("a", token, (handle,)))
    assert first == [], "nothing is aborted before every sink has been opened and every token compared"
    return core.on(SinkOpened("b", token))


def handle(journal: str = "J", incarnation: int = 3, epoch: int = 2, seal: str = "two") -> Handle:
    return Handle(journal, Incarnation(incarnation), EpochNumber(epoch), SealId(seal))


def test_unsealed_rows_of_a_dead_incarnation_are_aborted() -> None:
    assert opened(handle()) == [AbortHandle("a", handle())]


@pytest.mark.parametrize("other", [handle(journal="K"), handle(incarnation=7), handle(incarnation=8)])
def test_rows_of_another_journal_or_a_living_incarnation_are_left_alone(other: Handle) -> None:
    assert opened(other) == []


def test_a_copied_journal_aborts_nothing() -> None:
    (step,) = opened(handle(), may_abort=False)
    assert isinstance(step, Halt)
    assert isinstance(step.error, StateUnknown)
    assert "--adopt" in str(step.error)


def test_rows_delivered_before_all_sinks_are_open_are_no_leftovers() -> None:
    """Found by a zombie of a copied journal: the copy refused its own first delivery as undecided."""
    staged = Header(EpochNumber(2), SealId("two"), "one", {}, {"a": 2}, {"a": 20}, staged=frozenset({"a"}))
    rules = tuple(SinkRule(name, Guarantee.EXACTLY_ONCE) for name in ("a", "b"))
    recovered = Recovered(Chain("J", [SEALED, staged]), Incarnation(7), EpochNumber(1), rules, False)
    core = EpochCore(recovered, commit="together")
    core.start()
    token = Token(EpochNumber(1), SealId("one"))
    (commit,) = core.on(SinkOpened("a", token, (handle(),)))
    assert isinstance(commit, CommitSink)
    assert not any(isinstance(step, Halt) for step in core.on(Committed("a")))
    assert core.on(SinkOpened("b", token)) == []
    assert core.can_offer
