"""`onefold run FLOW`: until drained, or until told to stop."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from onefold.cli.command import Chosen, Verb, errors_to, is_verbose, print_json, report, results_to, takes_flow
from onefold.cli.exits import Exit
from onefold.cli.live import ProgressLine, counted
from onefold.cli.logs import logs_to
from onefold.cli.stopping import StopSignals
from onefold.engines.embedded.runner import Run, Summary

__all__ = ["command"]

EVERY_SECONDS = 5.0
LEAST_SECONDS = 0.01


@click.command("run", cls=Verb)
@takes_flow
@click.option(
    "--once", is_flag=True, help="Stop when all input there is has reached every sink; else follow the input."
)
@click.option("--close", "is_closing", is_flag=True, help="With --once: close open windows, as if no more could come.")
@click.option(
    "--every",
    default=EVERY_SECONDS,
    show_default=True,
    type=click.FloatRange(min=LEAST_SECONDS),
    help="Seconds between two lines off a terminal, 0.01 at least.",
)
def command(chosen: Chosen, *, once: bool, is_closing: bool, every: float) -> None:
    """Run FLOW: read, compute, seal, deliver. Kill it whenever you like and run it again: nothing lost, nothing twice.

    Ctrl-C and SIGTERM stop after the epoch in hand, a second one at once. Follows the input for ever unless --once.
    Refuses to start (exit code 3) when a sink cannot keep its guarantee; `onefold explain` tells why.
    """
    if is_closing and not once:
        raise click.UsageError("--close needs --once: windows are closed when the input has ended.")
    console = errors_to()
    logs = logs_to(console, chosen.plan.flow, as_json=chosen.as_json, is_verbose=is_verbose())
    with logs, StopSignals() as signals:
        run = Run(chosen.plan, chosen.folder, until="drained" if once else None, close=is_closing)
        line = ProgressLine(console, chosen.plan.flow, every_seconds=every, as_json=chosen.as_json)
        with line, run:
            signals.then(run.stop)
            summary = _follow(run, line, signals)
    _show(chosen, summary, stopped_by=signals.received.name if signals.received else None)
    if not summary.is_complete:
        raise click.exceptions.Exit(Exit.BEHIND)


def _follow(run: Run, line: ProgressLine, signals: StopSignals) -> Summary:
    is_told = False
    while True:
        try:
            return run.wait(line.look_seconds)
        except TimeoutError:
            if signals.received is not None and not is_told:
                line.tell(f"{signals.received.name}: stopping after the epoch in hand; once more ends it at once")
                is_told = True
            line.show(run.progress())


def _show(chosen: Chosen, summary: Summary, *, stopped_by: str | None) -> None:
    if chosen.as_json:
        print_json(_as_json(summary, stopped_by))
        return
    rate = summary.events / summary.seconds if summary.seconds else 0.0
    how = f"stopped by {stopped_by}" if stopped_by else "drained"
    text = Text.assemble(
        (summary.flow, "bold"),
        f" {how}: {counted(summary.events, 'event')} in {counted(summary.epochs, 'epoch')}, "
        f"{summary.seconds:.1f} s ({rate:,.0f}/s).",
    )
    if summary.is_complete:
        what = " Every sink has everything." if summary.is_all_read else " Every sink has everything that was read."
        text.append(what, "green")
    dead = _dead(summary)
    if dead:
        text.append(f"\n  {dead}; see `onefold dead-letters list`", "yellow")
    for note in summary.notes:
        text.append(f"\n  note: {note}", "yellow")
    for sink, epoch in summary.behind.items():
        text.append(f"\n  {sink} has not taken everything: it is at epoch {epoch}; run again to go on", "yellow")
    results_to().print(text)
    for error in summary.stopped_sinks.values():
        report(error, as_json=False)


def _dead(summary: Summary) -> str:
    """Of this run; "" when there were none."""
    dead = counted(summary.dead, "dead letter") if summary.dead else ""
    return f"{dead} ({summary.late:,} late)" if dead and summary.late else dead


def _as_json(summary: Summary, stopped_by: str | None) -> dict[str, Any]:
    return {
        "flow": summary.flow,
        "event": "summary",
        "events": summary.events,
        "epochs": summary.epochs,
        "dead": summary.dead,
        "late": summary.late,
        "seconds": round(summary.seconds, 3),
        "stopped_by": stopped_by,
        "is_complete": summary.is_complete,
        "behind": dict(summary.behind),
        "stopped_sinks": {name: error.as_json() for name, error in summary.stopped_sinks.items()},
        "is_all_read": summary.is_all_read,
        "notes": list(summary.notes),
        "totals": summary.totals,
    }
