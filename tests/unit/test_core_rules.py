"""Rules of the core about prepared rows, of other histories and of the open epoch, told step by step."""

from __future__ import annotations

import pytest

from onefold.chain import Chain, Header
from onefold.course import SinkRule
from onefold.epoch import EpochCore, Recovered
from onefold.errors import StateUnknown
from onefold.steps import (
    AbortHandle,
    AppendSeal,
    CommitSink,
    Committed,
    EpochOffered,
    Halt,
    Prepare,
    Prepared,
    Sealed,
    SinkOpened,
    Step,
)
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


@pytest.mark.parametrize(
    "late", [SinkRule("b", Guarantee.EXACTLY_ONCE), SinkRule("b", Guarantee.EXACTLY_ONCE, EpochNumber(3))]
)
@pytest.mark.parametrize("first", ["a", "b"])
def test_rows_that_another_sink_waits_for_are_not_aborted_through_one_that_is_past_them(
    late: SinkRule, first: str
) -> None:
    """A handle of `a` alone, in a transaction that `b` lists too: its token went on alone, or it joined later."""
    staged = Header(EpochNumber(2), SealId("two"), "one", {}, {"a": 2}, {"a": 20}, staged=frozenset({"a"}))
    rules = (SinkRule("a", Guarantee.EXACTLY_ONCE), late)
    core = EpochCore(Recovered(Chain("J", [SEALED, staged]), Incarnation(7), EpochNumber(1), rules), commit="together")
    core.start()
    tokens = {"a": Token(EpochNumber(1), SealId("one")), "b": Token(EpochNumber(2), SealId("two"))}
    if late.joined > 1:
        tokens["b"] = None
    steps = core.on(SinkOpened(first, tokens.pop(first), (handle(),)))
    [(second, token)] = tokens.items()
    steps += core.on(SinkOpened(second, token, (handle(),)))
    assert [type(step) for step in steps] == [CommitSink]
    assert core.on(Committed("a")) == []
    assert core.can_offer


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


@pytest.mark.parametrize("is_part", [True, False])
def test_a_sink_that_takes_what_others_refuse_is_prepared_last_and_may_have_no_part(is_part: bool) -> None:
    rules = tuple(SinkRule(name, Guarantee.EXACTLY_ONCE) for name in ("dead", "a", "b"))
    core = EpochCore(Recovered(Chain("J"), Incarnation(1), EpochNumber(0), rules), commit="together")
    core.start()
    for name in ("dead", "a", "b"):
        core.on(SinkOpened(name, None))
    asked = core.on(EpochOffered(SealId("one"), {}, {"a": 3, "b": 0}, frozenset({"dead"})))
    assert [step.sink for step in asked if isinstance(step, Prepare)] == ["a", "dead"]
    assert core.on(Prepared("a", 10, is_staged=True)) == []
    assert isinstance(core.on(Prepared("dead", 5, is_part=is_part))[0], AppendSeal)
    sinks = [step.sink for step in core.on(Sealed()) if isinstance(step, CommitSink)]
    assert sinks == (["a", "dead"] if is_part else ["a"])
