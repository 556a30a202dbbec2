"""The verbs by name. A verb's module is imported when it is asked for, so that `onefold --help` is quick."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

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
    """Loads a verb's module on first use; programs are told of a wrong command line as of any other error."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run the command line and exit."""
        given = list(sys.argv[1:] if args is None else args)
        if "--json" not in given:
            return super().main(args, *rest, **extra)
        try:
            ended = super().main(given, *rest, **{**extra, "standalone_mode": False})
        except (click.ClickException, click.Abort) as error:
            sys.exit(_told_as_json(error))
        sys.exit(ended if isinstance(ended, int) else 0)

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


def _told_as_json(error: click.ClickException | click.Abort) -> int:
    from onefold.cli.command import report
    from onefold.errors import CommandInvalid

    if isinstance(error, click.Abort):
        report(CommandInvalid("It was not confirmed."), as_json=True)
        return 1
    context = getattr(error, "ctx", None)
    path = "onefold" if context is None else context.command_path
    report(CommandInvalid(error.format_message(), next_step=f"`{path} --help` tells the rest."), as_json=True)
    return error.exit_code


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="onefold %(version)s")
def main() -> None:
    """Exactly-once data pipelines, with the books to prove it.

    FLOW is `path.py[:name]` or `pkg.mod[:name]`: the only Flow of the module, or a function without arguments that
    returns one. `onefold VERB --help` tells the rest.
    """
