"""`onefold maintain FLOW`: looks after the tables that a flow writes to."""

from __future__ import annotations

import click

from onefold.cli.command import Chosen, Verb, print_json, results_to, takes_flow
from onefold.engines.embedded.maintenance import maintain, maintained_outputs
from onefold.errors import NotSupported

__all__ = ["command"]


@click.command("maintain", cls=Verb)
@click.option("--sink", "sinks", multiple=True, metavar="NAME", help="This sink alone; may be given several times.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Say what would be done, and do nothing.")
@takes_flow
def command(chosen: Chosen, *, sinks: tuple[str, ...], is_dry: bool) -> None:
    """Join small files, expire old versions and remove leftovers in the tables that FLOW writes to.

    May be run while the flow runs. Never touches a token, rows that wait for their delivery, or what a reader may still
    read within the table's retention.
    """
    known = [output.name for output in maintained_outputs(chosen.plan)]
    unknown = [name for name in sinks if name not in known]
    if unknown or not known:
        raise NotSupported(
            "There is no such sink to maintain." if unknown else "No sink of this flow needs to be maintained.",
            found=", ".join(unknown) or ", ".join(output.label for output in chosen.plan.outputs),
            expected=", ".join(known) or "a table of a lakehouse format",
            next_step="Name one of these with --sink." if known else "There is nothing to do.",
        )
    for sink, done in maintain(
        chosen.plan, chosen.folder, is_dry=is_dry, wanted=lambda output: not sinks or output.name in sinks
    ):
        if chosen.as_json:
            print_json({"flow": chosen.plan.flow, "sink": sink, "what": done.what, "found": done.found, "dry": is_dry})
        else:
            results_to().print(f"{sink}: {'would be ' if is_dry else ''}{done.what}: {done.found}")
