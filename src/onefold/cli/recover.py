"""`onefold recover FLOW`: a journal from the sinks' tokens, or a moved journal taken for the true one."""

from __future__ import annotations

import click

from onefold.cli.command import Chosen, Verb, confirm, print_json, results_to, takes_flow
from onefold.clock import SystemClock
from onefold.engines.embedded.recovery import adopt, rebuild

__all__ = ["command"]


@click.command("recover", cls=Verb)
@takes_flow
@click.option("--from-sinks", is_flag=True, help="Rebuild a lost journal from the tokens in the sinks.")
@click.option(
    "--adopt", "is_adopting", is_flag=True, help="Take a journal that was moved to this place for the true one."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(chosen: Chosen, *, from_sinks: bool, is_adopting: bool, yes: bool) -> None:
    """Put FLOW's state right after a loss or a move. Say which: --from-sinks or --adopt.

    --from-sinks: for a flow that keeps no state, when every sink holds the same token. Other flows are told what they
    hold and what to replay. --adopt: run it only where the original no longer runs: two copies would stop each other.
    """
    if from_sinks == is_adopting:
        raise click.UsageError("Say one of --from-sinks and --adopt.")
    if from_sinks:
        _from_sinks(chosen, is_sure=yes)
    else:
        _adopt(chosen, is_sure=yes)


def _from_sinks(chosen: Chosen, *, is_sure: bool) -> None:
    confirm("This opens every sink and shuts out any other process of this flow. Go on?", is_sure=is_sure)
    rebuilt = rebuild(chosen.plan, chosen.folder, SystemClock())
    if chosen.as_json:
        print_json({"flow": chosen.plan.flow, **vars(rebuilt)})
        return
    out = results_to()
    out.print(f"{chosen.plan.flow} goes on after epoch {rebuilt.epoch}, which all its sinks hold.")
    if rebuilt.archive is not None:
        out.print(f"  The former state is kept in {rebuilt.archive}")
    for note in rebuilt.notes:
        out.print(f"  note: {note}", style="yellow")


def _adopt(chosen: Chosen, *, is_sure: bool) -> None:
    confirm("Is the original of this journal gone, or stopped for good?", is_sure=is_sure)
    adoption = adopt(chosen.plan, chosen.folder, SystemClock())
    if chosen.as_json:
        print_json({"flow": chosen.plan.flow, "was_moved": adoption.was_moved, **vars(adoption)})
    elif adoption.was_moved:
        results_to().print(
            f"{chosen.plan.flow} was last run at {adoption.before.get('path')}; this is the true journal from now on."
        )
    else:
        results_to().print(f"{chosen.plan.flow} stands where it was; there was nothing to adopt.")
