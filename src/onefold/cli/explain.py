"""`onefold explain FLOW`: what each sink really gets."""

from __future__ import annotations

import click
from rich.text import Text

from onefold.cli.command import Chosen, Verb, print_json, results_to, takes_flow
from onefold.cli.exits import Exit
from onefold.guarantee.declared import Explanation, Verdict, explain

__all__ = ["command"]


@click.command("explain", cls=Verb)
@takes_flow
def command(chosen: Chosen) -> None:
    """The guarantee that each sink of FLOW really gets, why, and what must be true for it.

    Nothing is connected to. Exit code 3 when a sink cannot keep what the flow asks of it: `run` would refuse too.
    """
    explanation = explain(chosen.plan)
    if chosen.as_json:
        print_json({**explanation.as_json(), "is_kept": all(one.is_kept for one in explanation.verdicts)})
    else:
        _show(explanation)
    if not all(one.is_kept for one in explanation.verdicts):
        raise click.exceptions.Exit(Exit.REFUSED)


def _show(explanation: Explanation) -> None:
    out = results_to()
    out.print(f"flow {explanation.flow}", style="bold")
    for verdict in explanation.verdicts:
        out.print(_of(verdict))
    weakest = min(explanation.verdicts, key=lambda one: one.kept)
    out.print(Text.assemble("\n  weakest link: ", (weakest.sink, "bold"), f", {weakest.kept}"))


def _of(verdict: Verdict) -> Text:
    colour = "green" if verdict.is_kept else "bold red"
    text = Text.assemble("\n  ", (verdict.sink, "bold"), ": ", (str(verdict.kept), colour))
    if not verdict.is_kept:
        text.append(f", but {verdict.asked} is asked for: run refuses", "red")
    text.append(f"\n    {verdict.label}", "dim")
    text.append(f"\n    because {verdict.reason}")
    for condition in verdict.conditions:
        text.append(f"\n    as long as {condition}", "dim")
    return text
