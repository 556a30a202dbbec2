"""What the simulation found, told to the core step by step; and the seeds that found it."""

from __future__ import annotations

import random

import pytest

from onefold.chain import Chain, Header
from onefold.course import SinkRule
from onefold.epoch import EpochCore, Recovered
from onefold.errors import SinkUnavailable, StateUnknown
from onefold.steps import (
    CommitFailed,
    CommitSink,
    EpochOffered,
    Halt,
    OpenSink,
    Prepared,
    RetryDue,
    Sealed,
    SinkOpened,
)
from onefold.testing.simulation import simulate
from onefold.types import EpochNumber, Guarantee, Handle, Incarnation, SealId, Token

FOUND = {
    195: "an epoch that was staged and sealed while its sink was being listed was taken for lost",
    1044: "prepared rows of a restored sink were to be committed together with an empty epoch after them",
    11237: "the same, with other sinks",
    12377: "the original of a copied journal aborts what the copy has staged: the copy is told",
    15290: "a sink restored to before it prepared the rows of the open epoch",
    39514: "rows are freed just when their sink turns out to be restored: unknown, then SinkRestored",
}
"""Seeds that failed before something was mended. They find it again while the simulator draws in the same order; what
was found stands below step by step, or in tests/mutants as a bug."""


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_stays_mended(seed: int) -> None:
    simulate(random.Random(seed))


def together(*handles: Handle) -> list[object]:
    """A restarted instance whose epoch 1 is sealed and prepared at one sink; the sink is opened with these handles."""
    header = Header(EpochNumber(1), SealId("one"), "J", {}, {"a": 2}, {"a": 20}, staged=frozenset("a"))
    rule = SinkRule("a", Guarantee.EXACTLY_ONCE)
    core = EpochCore(Recovered(Chain("J", [header]), Incarnation(7), EpochNumber(0), (rule,)), commit="together")
    core.start()
    return list(core.on(SinkOpened("a", None, handles)))


def test_sealed_rows_that_are_no_longer_prepared_stop_the_instance() -> None:
    (step,) = together(Handle("J", Incarnation(2), EpochNumber(1), SealId("another")))
    assert isinstance(step, Halt)
    assert isinstance(step.error, StateUnknown)
    assert "epoch 1, seal one" in str(step.error)


def test_sealed_rows_that_are_still_prepared_are_committed() -> None:
    (step,) = together(Handle("J", Incarnation(2), EpochNumber(1), SealId("one")))
    assert isinstance(step, CommitSink)
    assert step.move is not None
    assert step.move.new == Token(EpochNumber(1), SealId("one"))


def test_rows_sealed_after_a_sink_was_listed_are_not_missed() -> None:
    """The listing was under way while an epoch was prepared and sealed."""
    rule = SinkRule("a", Guarantee.EXACTLY_ONCE)
    core = EpochCore(Recovered(Chain("J"), Incarnation(1), EpochNumber(0), (rule,)))
    core.start()
    for event in (
        SinkOpened("a", None),
        EpochOffered(SealId("one"), {}, {"a": 1}),
        Prepared("a", 10, is_staged=True),
        Sealed(),
        CommitFailed("a", SinkUnavailable("down")),
    ):
        core.on(event)
    assert core.on(RetryDue("a")) == [OpenSink("a")]
    listed = SinkOpened("a", None, (Handle("J", Incarnation(1), EpochNumber(1), SealId("one")),))
    for event in (EpochOffered(SealId("two"), {}, {"a": 1}), Prepared("a", 10, is_staged=True), Sealed()):
        core.on(event)
    (step,) = core.on(listed)
    assert isinstance(step, CommitSink)
    assert (step.first, step.last) == (1, 2)


def test_a_delivery_of_prepared_rows_ends_with_their_epoch() -> None:
    """What was prepared holds the token of its own epoch; an empty one after it is moved over later."""
    staged = frozenset("a")
    one = Header(EpochNumber(1), SealId("one"), "J", {}, {"a": 2}, {"a": 20}, staged=staged)
    two = Header(EpochNumber(2), SealId("two"), "one", {}, {}, {})
    rule = SinkRule("a", Guarantee.EXACTLY_ONCE)
    core = EpochCore(Recovered(Chain("J", [one, two]), Incarnation(7), EpochNumber(0), (rule,)), commit="together")
    core.start()
    (step,) = core.on(SinkOpened("a", None, (Handle("J", Incarnation(2), EpochNumber(1), SealId("one")),)))
    assert isinstance(step, CommitSink)
    assert (step.first, step.last) == (1, 1)
