"""Running a flow: threads that read, compute, seal and deliver side by side, joined by bounded queues."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from onefold.clock import SystemClock, new_seal_id
from onefold.engines.embedded.conductor import Conductor, Trace
from onefold.engines.embedded.examination import demand_settings
from onefold.engines.embedded.ingest import Ingest, Loss, gathering
from onefold.engines.embedded.opening import OpenedFlow, open_flow, where_to_read
from onefold.engines.embedded.outputs import all_outputs
from onefold.engines.embedded.pipeline import EpochInput
from onefold.engines.embedded.sealing import Draft
from onefold.engines.embedded.snapshotting import SnapshotPacer
from onefold.engines.embedded.status import Status, status
from onefold.engines.embedded.workers import ThreadWorkers
from onefold.errors import Fenced, OnefoldError
from onefold.guarantee.declared import refuse_unkept
from onefold.plan import Plan
from onefold.protocols import Clock
from onefold.steps import DrainAsked, StopAsked
from onefold.types import EpochNumber

__all__ = ["Progress", "Run", "Status", "Summary", "run", "start", "status"]

LOG = logging.getLogger("onefold")

READ_AHEAD_EPOCHS = 2
"""Epochs that wait between reading and computing, and between computing and sealing: bounded memory."""

POLL_SECONDS = 0.1

IDLE_SECONDS = 0.2
"""How long a read waits for input before the run looks elsewhere."""


@dataclass(frozen=True)
class Progress:
    """Where a run is. events: rows read by this run; epoch: the newest sealed; settled: through which all is done.

    is_caught_up: the last look at the sources gave nothing new.
    """

    events: int
    epoch: EpochNumber
    settled: EpochNumber
    seconds: float
    undelivered_bytes: int
    waiting_sinks: Mapping[str, str] = field(default_factory=dict)
    is_caught_up: bool = False


@dataclass(frozen=True, repr=False)
class Summary:
    """How a run ended. totals: books since the flow began. behind: sinks that have not taken everything.

    dead: rows of this run that became dead letters, late ones among them. is_all_read: no source knows of input that it
    does not read; else the notes name it.
    """

    flow: str
    events: int
    epochs: int
    seconds: float
    totals: Mapping[str, Any]
    behind: Mapping[str, EpochNumber]
    notes: tuple[str, ...] = ()
    stopped_sinks: Mapping[str, OnefoldError] = field(default_factory=dict)
    dead: int = 0
    late: int = 0
    is_all_read: bool = True

    def __repr__(self) -> str:
        read = f"{self.events:,} events in {self.epochs:,} epochs, {self.seconds:.1f} s"
        behind = ", ".join({**self.behind, **self.stopped_sinks})
        rest = [f"{self.dead:,} dead"] * bool(self.dead) + [f"behind: {behind}"] * bool(behind) + list(self.notes)
        return f"<Summary of {self.flow}: {'; '.join([read, *rest])}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>"

    @property
    def is_complete(self) -> bool:
        """Whether everything that was read has reached every sink."""
        return not self.behind and not self.stopped_sinks


def run(
    plan: Plan,
    folder: Path,
    *,
    until: Literal["drained"] | None = None,
    close: bool = False,
    trace: Trace | None = None,
) -> Summary:
    """Run until drained (or until it fails, or is stopped by KeyboardInterrupt).

    close: at the end of the input, close open windows. Raises what stops the flow: nothing is lost by running again.
    """
    with Run(plan, folder, until=until, close=close, trace=trace) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            running.stop()
            return running.wait()


def start(plan: Plan, folder: Path) -> Run:
    """Start in the background; the result is a context manager that stops it."""
    return Run(plan, folder).__enter__()


class Run:
    """A flow that is running: three threads of its own and one a sink."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        until: Literal["drained"] | None = None,
        close: bool = False,
        skipping: Sequence[Loss] = (),
        trace: Trace | None = None,
        clock: Clock | None = None,
        is_locked: bool = True,
    ) -> None:
        """Open the flow: everything that can be wrong with its state is raised here. Nothing is read yet.

        skipping: read nothing, but seal that these losses are accepted, and end.
        """
        demand_settings(plan)
        refuse_unkept(plan)
        self._clock = clock or SystemClock()
        outputs = all_outputs(plan, folder)
        self._opened: OpenedFlow = open_flow(plan, folder, outputs, self._clock, is_locked=is_locked)
        self._until, self._close, self._skipping = until, close, skipping
        self._ingest = Ingest(self._opened.pipeline, *where_to_read(self._opened))
        self._conductor = Conductor(self._opened, ThreadWorkers(), self._clock, self._ingest.settle, trace=trace)
        self._pacer = SnapshotPacer(self._opened)
        self._to_compute: queue.Queue[EpochInput | None] = queue.Queue(READ_AHEAD_EPOCHS)
        self._computed: queue.Queue[Draft | None] = queue.Queue(READ_AHEAD_EPOCHS)
        self._stopping = threading.Event()
        self._must_end = threading.Event()
        self._is_dropping = False
        self._failure: BaseException | None = None
        self._is_told = False
        self._threads: list[threading.Thread] = []
        self._began = self._clock.monotonic()
        self._events = self._dead = self._late = 0
        self._is_caught_up = False
        self._summary: Summary | None = None
        self._first_epoch = self._conductor.core.chain.head

    # ----------------------------------------------------------------------------------------------------- verbs

    def __enter__(self) -> Self:
        """Start, unless `start` did already."""
        if self._threads:
            return self
        for name, target in (("read", self._read), ("compute", self._compute), ("conduct", self._conduct)):
            thread = threading.Thread(target=self._guard, args=(target,), name=f"onefold-{name}", daemon=True)
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and wait for the end. Raises what stopped the run, unless `wait` did or another error is under way."""
        self.stop()
        self._join()
        if self._failure is not None and kind is None and not self._is_told:
            raise self._failure

    def stop(self) -> None:
        """Stop reading, finish the epoch in hand, deliver what the sinks can take, settle; returns at once."""
        self._stopping.set()

    def wait(self, timeout_seconds: float | None = None) -> Summary:
        """Until it has ended; raises what stopped it. Raises TimeoutError (the run goes on)."""
        conduct = self._threads[-1]
        conduct.join(timeout_seconds)
        if conduct.is_alive():
            raise TimeoutError(f"The flow {self._opened.plan.flow} still runs after {timeout_seconds} seconds.")
        self._join()
        if self._failure is not None:
            self._is_told = True
            raise self._failure
        if self._summary is None:
            raise OnefoldError("The run ended without a result.", flow=self._opened.plan.flow)
        return self._summary

    def progress(self) -> Progress:
        """Where it is now; from any thread."""
        core = self._conductor.core
        return Progress(
            events=self._events,
            epoch=core.chain.head,
            settled=core.settled,
            seconds=self._clock.monotonic() - self._began,
            undelivered_bytes=core.undelivered_bytes(),
            waiting_sinks={name: error.summary for name, error in dict(self._conductor.waiting_sinks).items()},
            is_caught_up=self._is_caught_up,
        )

    def __repr__(self) -> str:
        state = "not begun" if not self._threads else "running" if self.is_running else "ended"
        now = self.progress()
        sealed = f"{now.events:,} events read, epoch {now.epoch} sealed, {now.settled} settled"
        return f"<Run of {self._opened.plan.flow}: {state}, {sealed}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self).strip('<>'))}</p>"

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._threads[-1].is_alive()

    # --------------------------------------------------------------------------------------------------- threads

    def _guard(self, target: Any) -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001 - raised again by wait()
            if self._failure is None or isinstance(error, Fenced):  # what else failed is its consequence
                self._failure = error
        finally:
            if target != self._conduct:
                self._put(self._to_compute if target == self._read else self._computed, None)
            self._conductor.ask(None)

    def _read(self) -> None:
        if self._skipping:
            self._put(self._to_compute, self._ingest.skipping(self._skipping))
            return
        self._ingest.open()
        settings = self._opened.plan.settings
        while not (self._stopping.is_set() or self._must_end.is_set()):
            if self._conductor.core.undelivered_bytes() > settings.spool_quota_bytes:
                self._stopping.wait(POLL_SECONDS)
                continue
            wait = 0.0 if self._until and self._ingest.is_idle else IDLE_SECONDS
            until_idle = self._until == "drained"
            more = gathering(self._clock, settings.epoch_seconds, self._stopping.wait, until_idle=until_idle)
            epoch = self._ingest.next(wait, more)
            self._is_caught_up = epoch is None
            if epoch is not None:
                self._put(self._to_compute, epoch)
            elif self._until == "drained" and self._ingest.is_idle:
                break
        if self._close and not self._stopping.is_set():
            self._put(self._to_compute, self._ingest.closing())

    def _compute(self) -> None:
        while (epoch := self._next_input()) is not None:
            result = self._opened.pipeline.compute(epoch)
            self._events += result.read_rows
            self._dead += result.dead_rows
            self._late += result.late_rows
            self._put(self._computed, Draft(result, new_seal_id(), self._pacer.freeze_if_due(result)))
            self._conductor.ask(None)

    def _next_input(self) -> EpochInput | None:
        """None at the end of the input; and when the run must end, for then nobody may be left to say so."""
        while not self._must_end.is_set():
            with contextlib.suppress(queue.Empty):
                return self._to_compute.get(timeout=POLL_SECONDS)
        return None

    def _conduct(self) -> None:
        conductor = self._conductor
        try:
            conductor.begin()
            waiting: Draft | None = None
            is_ended = False
            asked: DrainAsked | StopAsked | None = None
            while conductor.drained is None and conductor.halted is None:
                if waiting is None and not is_ended:
                    waiting, is_ended = self._take_computed()
                if is_ended and asked != self._end():  # a drain becomes a stop when that is asked for
                    asked = self._end()
                    conductor.ask(asked)
                if waiting is not None and self._must_drop():
                    waiting = None
                    continue
                if waiting is not None and conductor.core.can_offer:
                    conductor.offer(waiting)
                    waiting = None
                    continue
                conductor.pump(POLL_SECONDS)
        finally:
            self._must_end.set()
            try:
                conductor.close(self._failure)
            finally:
                self._threads[0].join()  # sources stay open longer than they are read: they are told what is settled
                self._ingest.close()
        if conductor.halted is not None:
            raise conductor.halted
        self._summary = self._sum_up()

    def _take_computed(self) -> tuple[Draft | None, bool]:
        try:
            draft = self._computed.get_nowait()
        except queue.Empty:
            return None, False
        return draft, draft is None

    def _must_drop(self) -> bool:
        """When stopping while a sink that commits together with others is down: nothing can be sealed any more.

        What was computed is forgotten, as after a kill; its input is read again.
        """
        core = self._conductor.core
        if self._stopping.is_set() and self._conductor.waiting_sinks and not core.can_offer:
            self._is_dropping |= self._opened.plan.commit == "together"
        return self._is_dropping

    def _end(self) -> DrainAsked | StopAsked:
        is_drain = self._until == "drained" and not self._stopping.is_set() and self._failure is None
        return DrainAsked() if is_drain else StopAsked()

    def _put(self, target: queue.Queue[Any], item: Any) -> None:
        while True:
            try:
                target.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                if self._must_end.is_set():
                    return
            else:
                return

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _sum_up(self) -> Summary:
        conductor, remarks = self._conductor, self._ingest.remarks()
        return Summary(
            flow=self._opened.plan.flow,
            events=self._events,
            epochs=conductor.core.chain.head - self._first_epoch,
            seconds=self._clock.monotonic() - self._began,
            totals=conductor.totals,
            behind=conductor.drained.behind if conductor.drained else {},
            notes=(*self._opened.notes, *remarks),
            is_all_read=not remarks,
            stopped_sinks=dict(conductor.stopped_sinks),
            dead=self._dead + conductor.refused,
            late=self._late,
        )
