"""The verbs by name. A verb's module is imported when it is asked for, so that `onefold --help` is quick."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping

import click

from onefold import __version__

__all__ = ["VERBS", "main"]

VERBS: Mapping[str, tuple[str, str]] = {
    "init": ("init", "Make a runnable project from a template, offline."),
    "doctor": ("doctor", "Would a run succeed? Looks, and changes nothing."),
    "explain": ("explain", "The guarantee that each sink really gets, and why."),
    "run": ("run", "Run a flow."),
    "status": ("status", "Epochs, positions, sinks and books."),
    "dead-letters": ("dead_letters", "The rows that a flow could not use."),
    "maintain": ("maintain", "Join small files and remove old ones in the tables that a flow writes to."),
    "recover": ("recover", "Rebuild a lost journal from the sinks, or adopt a moved one."),
    "reset": ("reset", "Forget a flow's state, and say what that means for each sink."),
    "demo": ("demo", "A million events, five crashes and more, and an independent check."),
}
"""Verb -> its module in this folder, and one line of help."""


class Verbs(click.Group):
    """Loads a verb's module on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which people need them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, or None."""
        if cmd_name not in VERBS:
            return None
        module, _ = VERBS[cmd_name]
        command: click.Command = importlib.import_module(f"onefold.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a verb that there is not comes with the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            if not near or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing any."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, sentence) for verb, (_, sentence) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="onefold %(version)s")
def main() -> None:
    """Exactly-once data pipelines, with the books to prove it.

    FLOW is `path.py[:name]` or `pkg.mod[:name]`: the only Flow of the module, or a function without arguments that
    returns one. `onefold VERB --help` tells the rest.
    """
