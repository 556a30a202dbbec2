"""`onefold reset FLOW`: forget the state, and say what each sink's token will mean afterwards."""

from __future__ import annotations

import click
from rich.text import Text

from onefold.cli.command import Chosen, Verb, confirm, errors_to, print_json, results_to, takes_flow
from onefold.clock import SystemClock
from onefold.engines.embedded.recovery import archive_state, reset_meanings
from onefold.engines.embedded.undecided import Undecided
from onefold.errors import StateUnknown
from onefold.journal import locked_folder

__all__ = ["command"]


@click.command("reset", cls=Verb)
@takes_flow
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(chosen: Chosen, *, yes: bool) -> None:
    """Forget what FLOW has done, so that its next run begins anew.

    The state folder gets a dated name; nothing is deleted, and no sink is touched. Sinks keep their rows and their
    tokens, so the next run stops at each exactly-once sink rather than write a second copy, until you have emptied it,
    renamed it, or recovered from it: said sink by sink before you are asked.
    """
    if not chosen.folder.is_dir():
        raise StateUnknown("There is no state to forget.", flow=chosen.plan.flow, folder=chosen.folder, next_step="")
    with locked_folder(chosen.folder):  # so that nobody is asked in vain; it is taken again when the answer is there
        pass
    meanings = reset_meanings(chosen.plan)
    if not chosen.as_json:
        text = Text.assemble("After the reset of ", (chosen.plan.flow, "bold"), ":")
        for one in meanings:
            text.append(f"\n  {one.sink}", "bold").append(f", {one.label}\n", "dim")
            text.append(f"    {one.meaning}", "" if one.is_exact else "yellow")
        errors_to().print(text)
    if Undecided(chosen.folder).is_marked:
        errors_to().print(
            "A run ended while an epoch may have been prepared; what is keeps its locks, and after a reset nobody can "
            "decide it. Run the flow once more first, or look with `onefold doctor`.",
            style="yellow",
        )
    confirm(f"Forget the state of {chosen.plan.flow} in {chosen.folder}?", is_sure=yes)
    archive = archive_state(chosen.folder, SystemClock())
    if chosen.as_json:
        print_json({"flow": chosen.plan.flow, "archive": str(archive), "sinks": [vars(one) for one in meanings]})
    else:
        results_to().print(f"The former state is kept in {archive}")
