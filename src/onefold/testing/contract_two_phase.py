"""Contracts of sinks that stage rows natively: their handles survive their process."""

from __future__ import annotations

from typing import cast

from onefold.protocols import TwoPhase
from onefold.testing.contract_case import SinkBench, after_restart, equal, move, numbered, token
from onefold.types import Handle

__all__ = ["TWO_PHASE_CONTRACTS"]


def handles_are_listed_until_decided(bench: SinkBench) -> None:
    """What is staged is listed with journal, incarnation, epoch and seal; committed and aborted ones are not."""
    sink, _ = bench.instance(3)
    phases = cast("TwoPhase", sink)
    receipt = bench.prepare(sink, 1, numbered(1), move=move(0, 1))
    listed = phases.handles()
    equal([_named(handle) for handle in listed], [(bench.binding().journal, 3, 1, token(1).seal)], "it is listed")
    equal(bench.ids(), [], "what is staged is not visible")
    later, found = bench.instance(4)
    equal(found, None, "nor has the token moved")
    second = cast("TwoPhase", later)
    equal([_named(handle) for handle in second.handles()], [_named(handle) for handle in listed], "it is found again")
    later.commit([after_restart(receipt)], move(0, 1))
    equal((bench.ids(), [*second.handles()]), ([1], []), "a committed handle is gone")
    unwanted = bench.prepare(later, 2, numbered(2), move=move(1, 2))
    [orphan] = second.handles()
    equal((_named(orphan)[1:], unwanted.rows), ((4, 2, token(2).seal), 1), "the next is listed")
    second.abort(orphan)
    second.abort(orphan)
    equal((bench.ids(), [*second.handles()]), ([1], []), "an aborted handle is gone")
    for handle in listed:
        second.abort(handle)
    equal((bench.ids(), bench.look()[1]), ([1], token(1)), "aborting never touches what is committed")
    later.commit([bench.prepare(later, 2, numbered(3), move=move(1, 2))], move(1, 2))
    equal((bench.ids(), bench.look()[1]), ([1, 3], token(2)), "the next epoch lands")


def _named(handle: Handle) -> tuple[object, ...]:
    return handle.journal, handle.incarnation, handle.epoch, handle.seal


TWO_PHASE_CONTRACTS = (handles_are_listed_until_decided,)
