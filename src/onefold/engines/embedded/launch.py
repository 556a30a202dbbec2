"""Starting a flow: sinks that are new and are to hold what was before are filled first, then all go on together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from onefold.engines.embedded.backfill import Backfill
from onefold.engines.embedded.conductor import Trace
from onefold.engines.embedded.opening import read_past
from onefold.engines.embedded.runner import Run, Summary
from onefold.errors import BackfillDue, InputLost
from onefold.plan import Plan

__all__ = ["launch", "run", "start"]

LOG = logging.getLogger("onefold")

TELL_SECONDS = 10.0


def launch(
    plan: Plan,
    folder: Path,
    *,
    until: Literal["drained"] | None = None,
    close: bool = False,
    trace: Trace | None = None,
    is_locked: bool = True,
    filling: Callable[[Run], None] | None = None,
) -> Run:
    """A run that can begin. filling: is told of every backfill that begins, so that it can stop it.

    Raises what `Run` raises, and what stops a backfill: the next launch goes on with it.
    """
    while True:
        try:
            return Run(plan, folder, until=until, close=close, trace=trace, is_locked=is_locked)
        except BackfillDue as due:
            if not _fill(plan, folder, str(due.where["sink"]), filling):
                raise


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
    with launch(plan, folder, until=until, close=close, trace=trace) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            running.stop()
            return running.wait()


def start(plan: Plan, folder: Path) -> Run:
    """Start in the background; the result is a context manager that stops it."""
    return launch(plan, folder).__enter__()


def _fill(plan: Plan, folder: Path, sink: str, told: Callable[[Run], None] | None) -> bool:
    """Give the sink what the flow has read so far. Returns whether it has all of it now; not, when it was stopped."""
    [output] = (one for one in plan.outputs if one.name == sink)
    backfill = Backfill.of(plan, output, folder)
    past = read_past(backfill.plan, folder)
    LOG.info("%s is new: it is given what the flow has read so far", sink)
    with Run(backfill.plan, backfill.folder, until="drained", past=past) as running:
        if told is not None:
            told(running)
        while True:
            try:
                summary = running.wait(TELL_SECONDS)
            except TimeoutError:
                LOG.info("%s is filled: %s events so far", sink, f"{running.progress().events:,}")
                continue
            except InputLost as lost:
                raise _cannot_fill(lost, sink) from None
            for error in summary.stopped_sinks.values():
                raise error
            LOG.info("%s was given %s events", sink, f"{summary.events:,}")
            return summary.is_complete and not running.is_stopping


def _cannot_fill(lost: InputLost, sink: str) -> InputLost:
    return InputLost(
        f"{sink} cannot be given what the flow has read: {lost.summary}",
        found=lost.found,
        expected=lost.expected,
        next_step="Bring the input back, or leave out backfill=True: the sink then begins with what comes next.",
        **lost.where,
    )
