"""The sink lanes: open, commit and abort, one lane a sink, and what each answer means."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from onefold.engines.embedded.opening import OpenedFlow
from onefold.engines.embedded.outputs import binding_of
from onefold.engines.embedded.sealing import Note
from onefold.errors import (
    InvariantBroken,
    OnefoldError,
    OutcomeUnknown,
    RowsRefused,
    SinkError,
    SinkRefused,
    SinkUnavailable,
    StateError,
    TokenRefused,
    check,
)
from onefold.protocols import Maintain, Renewing, TwoPhase
from onefold.steps import (
    AbortHandle,
    CommitFailed,
    CommitRefused,
    CommitSink,
    Committed,
    CommitUnknown,
    Event,
    HandleAborted,
    OpenFailed,
    RowsWereRefused,
    SinkOpened,
)
from onefold.types import Guarantee, Receipt, Token

__all__ = ["SinkLanes"]

LOG = logging.getLogger("onefold")

ABORT_PAUSES = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts to forget what was prepared, while the sink does not answer."""


class SinkLanes:
    """Every job runs on the lane of its sink; they tell the core with `post`."""

    def __init__(self, opened: OpenedFlow, *, post: Callable[[Event], None], note: Note) -> None:
        self.opened = opened
        self.has_failed_to_abort = False
        """Whether a handle could not be removed."""
        self._post = post
        self._note = note
        self._bindings = {
            name: binding_of(
                output,
                opened.plan,
                journal=opened.journal.id,
                incarnation=opened.recovered.incarnation,
                spool=opened.spool,
            )
            for name, output in opened.outputs.items()
        }

    def open(self, name: str) -> None:
        """Open, fence, read the token and list what is prepared."""
        sink = self.opened.outputs[name].sink
        sink.close()
        try:
            token = sink.open(self._bindings[name])
            handles = tuple(sink.handles()) if isinstance(sink, TwoPhase) else ()
        except (SinkUnavailable, OutcomeUnknown) as error:
            self._post(OpenFailed(name, error))
            return
        self._note("open", sink=name, token=_short(token))
        self._post(SinkOpened(name, token, handles))

    def commit(self, step: CommitSink, receipts: Sequence[Receipt]) -> None:
        """Deliver, and say what became of it."""
        output = self.opened.outputs[step.sink]
        check(
            (step.move is None) == (output.guarantee is not Guarantee.EXACTLY_ONCE),
            "INV-3: an exactly-once commit moves the token with the rows",
            sink=step.sink,
        )
        event: Event
        try:
            output.sink.commit(receipts, step.move)
            event = Committed(step.sink)
        except TokenRefused as error:
            event = CommitRefused(step.sink, error.found if isinstance(error.found, Token) else None)
        except RowsRefused as error:
            event = RowsWereRefused(step.sink, error)
        except SinkUnavailable as error:
            event = CommitFailed(step.sink, error)
        except (StateError, InvariantBroken, SinkRefused):
            raise  # our own files are damaged, or we are, or the sink will not have us: stop, for no retry repairs it
        except OnefoldError as error:
            event = CommitUnknown(step.sink, error, isinstance(error.__cause__, TimeoutError))
        except Exception as error:  # noqa: BLE001 - INV-5: what we do not understand may have landed
            event = CommitUnknown(step.sink, OutcomeUnknown(found=repr(error), sink=step.sink))
        self._note_commit(step, event)
        self._post(event)

    def renew_every(self) -> dict[str, float]:
        """Seconds by sink, of those whose target forgets tokens."""
        return {
            name: output.sink.renew_every_seconds
            for name, output in self.opened.outputs.items()
            if isinstance(output.sink, Renewing) and output.guarantee is Guarantee.EXACTLY_ONCE
        }

    def renew(self, name: str) -> None:
        """Have the token written again. A failure is told; the next commit finds the sink closed and opens it."""
        sink = self.opened.outputs[name].sink
        if isinstance(sink, Renewing):
            try:
                sink.renew()
            except SinkError as error:
                LOG.warning("sink %s: its token was not written again: %s", name, error, extra=self._about(name))

    def maintain_every(self) -> dict[str, float]:
        """Seconds by sink, of those whose target is to be looked after within the run."""
        return {
            name: every
            for name, output in self.opened.outputs.items()
            if isinstance(output.sink, Maintain) and (every := output.sink.maintain_every_seconds) is not None
        }

    def maintain(self, name: str) -> None:
        """Look after the target. A failure is told; the next time it is tried again."""
        sink = self.opened.outputs[name].sink
        if isinstance(sink, Maintain):
            try:
                for done in sink.maintain(self._bindings[name], is_dry=False):
                    LOG.info("sink %s: %s %s", name, done.what, done.found, extra=self._about(name))
            except SinkError as error:
                LOG.warning("sink %s was not maintained: %s", name, error, extra=self._about(name))

    def abort(self, step: AbortHandle) -> None:
        """Remove a handle, or what this instance prepared there for the epoch that is given up.

        A copy of the journal may have our incarnation's number: only the seal id tells its handles from ours.
        """
        sink = self.opened.outputs[step.sink].sink
        if isinstance(sink, TwoPhase):
            try:
                self._abort(sink, step)
            except BaseException:
                self.has_failed_to_abort = True
                raise
        if step.handle:
            self._post(HandleAborted(step.sink))

    def _about(self, sink: str) -> dict[str, str]:
        """Fields of a log record."""
        return {"flow": self.opened.plan.flow, "sink": sink}

    def _abort(self, sink: TwoPhase, step: AbortHandle) -> None:
        """Again and again while the sink does not answer, within ABORT_PAUSES."""
        for pause in (*ABORT_PAUSES, None):
            try:
                handles = [step.handle] if step.handle else [h for h in sink.handles() if h.seal == step.seal]
                for handle in handles:
                    sink.abort(handle)
                    self._note("abort", sink=step.sink, epoch=handle.epoch)
                return
            except (SinkUnavailable, OutcomeUnknown) as error:
                if pause is None:
                    raise SinkUnavailable(
                        f"What an unfinished epoch had prepared in sink {step.sink} could not be forgotten.",
                        found=error.found,
                        next_step="Run again when it answers: the run forgets it. It keeps its locks until then.",
                        sink=step.sink,
                    ) from error
                threading.Event().wait(pause)

    def _note_commit(self, step: CommitSink, event: Event) -> None:
        results = {"Committed": "ok", "CommitRefused": "refused", "CommitFailed": "unavailable"}
        self._note(
            "commit",
            sink=step.sink,
            first=step.first,
            last=step.last,
            expected=_short(step.move.expected) if step.move else None,
            new=_short(step.move.new) if step.move else None,
            result=results.get(type(event).__name__, "unknown"),
        )


def _short(token: Token | None) -> list[Any] | None:
    return None if token is None else [token.epoch, token.seal]
