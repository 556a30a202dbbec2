"""`onefold recover FLOW`: a journal from the tokens, a moved one taken for the true one, lost input skipped."""

from __future__ import annotations

import click

from onefold.cli.command import Chosen, Verb, confirm, errors_to, print_json, results_to, takes_flow
from onefold.clock import SystemClock
from onefold.engines.embedded.ingest import Loss
from onefold.engines.embedded.losses import find_losses, skip_losses
from onefold.engines.embedded.recovery import adopt, rebuild
from onefold.errors import StateUnknown

__all__ = ["command"]


@click.command("recover", cls=Verb)
@takes_flow
@click.option("--from-sinks", is_flag=True, help="Rebuild a lost journal from the tokens in the sinks.")
@click.option(
    "--adopt", "is_adopting", is_flag=True, help="Take a journal that was moved to this place for the true one."
)
@click.option("--skip-lost", is_flag=True, help="Go on behind input that is gone from its source.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(chosen: Chosen, *, from_sinks: bool, is_adopting: bool, skip_lost: bool, yes: bool) -> None:
    """Put FLOW right after a loss or a move. Say which: --from-sinks, --adopt or --skip-lost.

    --from-sinks: for a flow that keeps no state, when every sink holds the same token. Other flows are told what they
    hold and what to replay. --adopt: run it only where the original no longer runs: two copies would stop each other.
    --skip-lost: says what is lost before it asks; the books keep the count. Nothing is read: `onefold run` goes on.
    """
    if from_sinks + is_adopting + skip_lost != 1:
        raise click.UsageError("Say one of --from-sinks, --adopt and --skip-lost.")
    if from_sinks:
        _from_sinks(chosen, is_sure=yes)
    elif skip_lost:
        _skip_lost(chosen, is_sure=yes)
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


def _skip_lost(chosen: Chosen, *, is_sure: bool) -> None:
    if not chosen.folder.is_dir():
        raise StateUnknown("This flow has read nothing yet, so it misses nothing.", folder=chosen.folder, next_step="")
    losses = find_losses(chosen.plan, chosen.folder, SystemClock())
    for loss in losses:
        if loss.error.skip is None:
            raise loss.error
    if losses and not chosen.as_json:
        errors_to().print("\n".join(f"{loss.error.summary}\n  {_goes_on(loss)}" for loss in losses))
    if losses:
        confirm("Give this up for good?", is_sure=is_sure)
        skip_losses(chosen.plan, chosen.folder, losses)
    if chosen.as_json:
        print_json({"flow": chosen.plan.flow, "lost": [_as_json(loss) for loss in losses]})
    elif losses:
        results_to().print(f"{chosen.plan.flow} goes on without it; its books keep the count. Run it.")
    else:
        results_to().print(f"{chosen.plan.flow} misses nothing: every partition can be read on from its position.")


def _goes_on(loss: Loss) -> str:
    skip = loss.error.skip
    count = "" if skip.records is None else f"; at most {skip.records:,} records are lost"
    where = "is read no more" if skip.to is None else f"goes on at {skip.to} instead of {loss.start}"
    return f"{loss.read}, partition {loss.partition}, {where}{count}"


def _as_json(loss: Loss) -> dict[str, object]:
    skip, about = loss.error.skip, {"read": loss.read, "partition": loss.partition, "from": loss.start}
    return {**about, "to": skip.to, "records": skip.records, "summary": loss.error.summary}
