"""Deliveries to a sink that is paced, told to the core step by step."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.chain import Chain
from onefold.course import SinkRule
from onefold.epoch import EpochCore, Recovered
from onefold.errors import SinkUnavailable
from onefold.steps import (
    CommitFailed,
    CommitSink,
    Committed,
    DeliveryDue,
    DrainAsked,
    EpochOffered,
    Event,
    FenceDue,
    Prepared,
    RetryDue,
    Sealed,
    SinkOpened,
)
from onefold.types import EpochNumber, Guarantee, Incarnation, SealId

DELIVER_BYTES = 100


def core(*, is_paced: bool = True) -> EpochCore:
    """A new flow with one sink, opened."""
    rule = SinkRule("a", Guarantee.EXACTLY_ONCE, is_paced=is_paced)
    made = EpochCore(Recovered(Chain("J"), Incarnation(1), EpochNumber(0), (rule,)), deliver_bytes=DELIVER_BYTES)
    made.start()
    made.on(SinkOpened("a", None))
    return made


def ranges(core: EpochCore, *events: Event) -> list[tuple[int, int]]:
    """The deliveries that these events start."""
    steps = [step for event in events for step in core.on(event)]
    return [(step.first, step.last) for step in steps if isinstance(step, CommitSink)]


def seal(core: EpochCore, *, size_bytes: int = 10, is_staged: bool = False) -> list[tuple[int, int]]:
    """One epoch more, with one row; the deliveries that it starts."""
    offered = EpochOffered(SealId(f"seal {core.chain.head + 1}"), {}, {"a": 1})
    return ranges(core, offered, Prepared("a", size_bytes, is_staged), Sealed())


def delivered(core: EpochCore, sizes: Sequence[int] = (10,)) -> EpochCore:
    """The first epoch has been delivered, the others wait."""
    assert seal(core) == [(1, 1)], "nothing came before: nothing to wait for"
    assert ranges(core, Committed("a")) == []
    for size in sizes:
        assert seal(core, size_bytes=size) == []
    return core


def test_epochs_are_gathered_until_the_next_delivery_is_due() -> None:
    made = delivered(core(), sizes=(10, 10, 10))
    assert ranges(made, DeliveryDue("a")) == [(2, 4)]
    assert ranges(made, Committed("a")) == []
    assert seal(made) == []
    assert ranges(made, DeliveryDue("a")) == [(5, 5)]


def test_a_due_delivery_without_rows_is_made_when_rows_come() -> None:
    made = delivered(core(), sizes=())
    assert ranges(made, DeliveryDue("a")) == []
    assert seal(made) == [(2, 2)]


def test_a_delivery_full_of_spooled_rows_does_not_wait() -> None:
    made = delivered(core(), sizes=(60,))
    assert seal(made, size_bytes=60) == [(2, 2)]


def test_rows_staged_in_the_target_wait_however_many_they_are_and_go_in_one_commit() -> None:
    made = delivered(core(), sizes=())
    for _ in range(20):
        assert seal(made, size_bytes=60, is_staged=True) == []
    assert ranges(made, DeliveryDue("a")) == [(2, 21)]


def test_the_end_of_a_run_waits_for_nothing() -> None:
    assert ranges(delivered(core()), DrainAsked()) == [(2, 2)]


def test_a_token_that_is_moved_alone_is_paced_too() -> None:
    made = delivered(core(), sizes=())
    assert ranges(made, EpochOffered(SealId("empty"), {}, {}), Sealed(), FenceDue()) == []
    assert ranges(made, DeliveryDue("a"), FenceDue()) == [(2, 2)]


def test_after_a_failure_the_retry_alone_decides_when() -> None:
    made = delivered(core())
    assert ranges(made, DeliveryDue("a")) == [(2, 2)]
    assert ranges(made, CommitFailed("a", SinkUnavailable("It is away.")), RetryDue("a")) == []
    token = made.chain[EpochNumber(1)].token()
    assert ranges(made, SinkOpened("a", token)) == [(2, 2)]


def test_other_sinks_are_not_paced() -> None:
    made = core(is_paced=False)
    assert seal(made) == [(1, 1)]
    assert ranges(made, Committed("a")) == []
    assert seal(made) == [(2, 2)]
