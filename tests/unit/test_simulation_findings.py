"""What the simulation found, told to the core step by step; and the seeds that found it."""

from __future__ import annotations

import random

import pytest

from onefold.chain import Chain, Header
from onefold.course import SinkRule
from onefold.epoch import EpochCore, Recovered
from onefold.errors import StateUnknown
from onefold.steps import CommitSink, Halt, SinkOpened
from onefold.testing.simulation import simulate
from onefold.types import EpochNumber, Guarantee, Handle, Incarnation, SealId, Token

FOUND = {
    52: "a copy's prepared rows hold the token until our incarnations have passed the copy's",
    380: "a copy of a journal, started twice, took the place for its own and aborted rows that the other had sealed",
    1100: "a token moved over an empty epoch while rows were prepared that expect the former token",
    2089: "an aborting instance took the prepared rows of a copy with the same incarnation for its own",
    7223: "rows were prepared for a token that the sink no longer held",
    12359: "a zombie finds a token newer than what it has read of its own journal",
    15039: "rows that are sealed and no longer prepared were tried again for ever",
}


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_stays_mended(seed: int) -> None:
    simulate(random.Random(seed))


def together(*handles: Handle) -> list[object]:
    """A restarted instance whose epoch 1 is sealed and prepared at one sink; the sink is opened with these handles."""
    header = Header(EpochNumber(1), SealId("one"), "J", {}, {"a": 2}, {"a": 20})
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
