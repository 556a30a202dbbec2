"""The same engine on one thread: every step in one order, time by a clock that the caller moves. For tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onefold.clock import new_seal_id
from onefold.engines.embedded.conductor import Conductor, Trace
from onefold.engines.embedded.ingest import Ingest
from onefold.engines.embedded.opening import open_flow, where_to_read
from onefold.engines.embedded.sealing import Draft
from onefold.engines.embedded.snapshotting import SnapshotPacer
from onefold.engines.embedded.workers import InlineWorkers
from onefold.errors import OnefoldError
from onefold.plan import Output, Plan
from onefold.steps import DrainAsked, StopAsked

__all__ = ["InlineRun", "ManualClock"]

MOST_IDLE_TURNS = 10_000
"""A drain that needs more waiting than this will never end: a sink stays down."""


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start_seconds: float = 1_700_000_000.0) -> None:
        self.seconds = start_seconds

    def monotonic(self) -> float:
        """See Clock."""
        return self.seconds

    def now(self) -> float:
        """See Clock."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


class InlineRun:
    """One instance, driven by hand: `step` reads, computes and seals one epoch; `drain` goes on to the end.

    Any exception, a simulated crash among them, leaves it as a killed process would: call `abandon`, open another.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        outputs: Mapping[str, Output],
        *,
        clock: ManualClock | None = None,
        trace: Trace | None = None,
        is_locked: bool = True,
    ) -> None:
        self.clock = clock or ManualClock()
        self._opened = open_flow(plan, folder, outputs, self.clock, is_locked=is_locked)
        self._ingest = Ingest(self._opened.pipeline, *where_to_read(self._opened))
        self.conductor = Conductor(self._opened, InlineWorkers(), self.clock, self._ingest.settle, trace=trace)
        self._pacer = SnapshotPacer(self._opened)

    def begin(self) -> None:
        """Open sources and sinks; deliver what earlier instances sealed."""
        self._ingest.open()
        self.conductor.begin()
        self.pump()

    def step(self) -> bool:
        """One epoch: read, compute, seal, deliver as far as the sinks go along. False when there is no input."""
        self._wait_for_offer()
        epoch = self._ingest.next(0.0)
        if epoch is None:
            return False
        result = self._opened.pipeline.compute(epoch)
        self.conductor.offer(Draft(result, new_seal_id(), self._pacer.freeze_if_due(result)))
        self.pump()
        return True

    def close_windows(self) -> None:
        """The end of the input: one epoch that closes every open window."""
        self._wait_for_offer()
        result = self._opened.pipeline.compute(self._ingest.closing())
        self.conductor.offer(Draft(result, new_seal_id()))
        self.pump()

    def pump(self) -> None:
        """Do what is due now, without new input."""
        while self.conductor.pump(0.0):
            self._raise_if_halted()
        self._raise_if_halted()

    def _raise_if_halted(self) -> None:
        if self.conductor.halted is not None:
            raise self.conductor.halted

    def drain(self) -> None:
        """Deliver and settle everything that was sealed, then close."""
        self._end(DrainAsked())

    def stop(self) -> None:
        """Deliver what the sinks take right now, settle that, then close."""
        self._end(StopAsked())

    @property
    def notes(self) -> tuple[str, ...]:
        """What opening had to say."""
        return self._opened.notes

    def abandon(self) -> None:
        """As after a kill: let go of the lock, write nothing more."""
        self._opened.journal.close()

    def _end(self, event: DrainAsked | StopAsked) -> None:
        self.conductor.ask(event)
        for _ in range(MOST_IDLE_TURNS):
            self.pump()
            if self.conductor.drained is not None:
                self._ingest.close()
                self.conductor.close()
                self._raise_if_halted()
                return
            self.clock.advance(1.0)
        raise OnefoldError(
            "The flow does not drain: a sink takes nothing.",
            found={name: error.summary for name, error in self.conductor.waiting_sinks.items()},
        )

    def _wait_for_offer(self) -> None:
        for _ in range(MOST_IDLE_TURNS):
            self.pump()
            if self.conductor.core.can_offer:
                return
            self.clock.advance(1.0)
        raise OnefoldError("The flow takes no more epochs.", found=self.conductor.waiting_sinks)
