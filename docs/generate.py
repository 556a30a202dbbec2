"""Writes the reference pages that follow from the code: `python docs/generate.py`. A tidy test keeps them current."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from onefold import errors
from onefold.cli.exits import MEANINGS as MEANINGS_OF_EXITS
from onefold.cli.group import VERBS, main
from onefold.plan import Settings

REFERENCE = Path(__file__).parent / "reference"

ERRORS_HEAD = """\
# Errors

Every error that onefold raises on purpose has a class in `onefold.errors` and a code that does not change. It says
what is wrong, where (flow, sink, partition, epoch, …), what was found and what was expected, and what to do next.
`onefold … --json` prints the same as an object. Classes are indented below the class they are a kind of, so
`except onefold.errors.SinkError` catches all of a sink's.

_This page is written by `python docs/generate.py`._
"""


def family(parent: type[errors.OnefoldError], depth: int = 0) -> Iterator[tuple[int, type[errors.OnefoldError]]]:
    """A class and all its kinds, in the order in which they are defined, with their depth."""
    yield depth, parent
    for kind in parent.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from family(kind, depth + 1)


def errors_page() -> str:
    """docs/reference/errors.md."""
    tree = list(family(errors.OnefoldError))
    parts = [ERRORS_HEAD]
    parts.append("\n".join(f"{'  ' * depth}- [`{kind.__name__}`](#{kind.code})" for depth, kind in tree) + "\n")
    for _, kind in tree:
        sentence = (kind.__doc__ or "").strip().splitlines()[0]
        again = "yes" if kind.retry_is_safe else "no, not by itself"
        lines = [f"## {kind.code}", "", f"`onefold.errors.{kind.__name__}`. {sentence}", ""]
        lines += [f"- May be run again as it is: {again}."]
        lines += [f"- Next: {kind.next_default}"] if kind.next_default else ["- Next: said by the message itself."]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


CLI_HEAD = """\
# The command line

`onefold VERB …`; `python -m onefold` is the same. FLOW is `path.py[:name]` or `pkg.mod[:name]`: the only Flow of the
module, or a function without arguments, annotated to return one. Importing a flow connects to nothing and needs no
settings. Results go to standard output; progress, logs and errors to standard error.

With `--json` standard output has lines of JSON and nothing else: what a flow prints itself, by `of.console()` or
`print`, goes to standard error. So does every error, as [an object](errors.md), a wrong command line's included.

_This page is written by `python docs/generate.py`._

## Exit codes

| code | meaning |
|---|---|
"""

SETTINGS_HEAD = """\
# Settings

_This page is written by `python docs/generate.py`._

## Of a run

Keywords of `Flow`, each with a working default: `of.Flow("revenue", max_dead="1%", keep_settled="2 days")`. Durations
and sizes may be text; a name may be written without its unit where that is clear.

| setting | default | meaning |
|---|---|---|
"""

SETTINGS_TAIL = """
## Of the environment

- `ONEFOLD_STATE`: the folder that holds the state of flows, each below its own name. `--state` goes before it; without
  either it is `.onefold` beside the module of the flow.

## In texts of a flow

`${NAME}` in a path or an address is read when the flow runs: from the environment, else from the file that `--env-file`
(or `env_file=` of `flow.run`) names. It is shown as `${NAME}` everywhere; only a path that is a sink's target stands in
the journal with its value. `$${` stands for the text `${`. The file holds `KEY=VALUE` lines; comments begin with `#`;
values may stand in single quotes (taken as they are) or double quotes (with `\\n`, `\\t`, `\\"`, `\\$`).
"""

MEANINGS = {
    "epoch_bytes": "input bytes of an epoch, at most",
    "epoch_rows": "input rows of an epoch, at most",
    "epoch_seconds": "how long an epoch gathers input after its first rows, unless it is full",
    "deliver_bytes": "bytes of sealed epochs that are delivered together, at most",
    "spool_quota_bytes": "bytes sealed but not delivered, before sealing stops",
    "keep_settled_seconds": "how long rows that every sink has are kept, for a sink that is restored; `keep_settled`",
    "keep_settled_bytes": "and how many bytes of them",
    "fence_every_seconds": "how often a sink that got no rows is sent its token alone",
    "settle_every_seconds": "how often sources are told what has taken effect for good",
    "max_dead": "the share of a run's rows that may become dead letters before the flow stops, from its 100th row on; "
    "unless said, a sink that refuses every row of an epoch of 100 or more stops it too",
    "snapshot_every_bytes": "changes of state between two snapshots",
}


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name, those inside groups too."""
    for verb in VERBS:
        command = main.get_command(click.Context(main), verb)
        if isinstance(command, click.Group):
            yield from ((f"{verb} {name}", inner) for name, inner in command.commands.items())
        elif command is not None:
            yield verb, command


def cli_page() -> str:
    """docs/reference/cli.md."""
    rows = [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS_OF_EXITS.items()]
    rows.append("| 130, 143 | ended at once by a second Ctrl-C or SIGTERM; nothing is lost |")
    parts = [CLI_HEAD + "\n".join(rows) + "\n"]
    for name, command in verbs():
        usage = " ".join(["onefold", name, *command.collect_usage_pieces(click.Context(command))])
        parts.append(
            f"## onefold {name}\n\n    {usage}\n\n{inspect.cleandoc(command.help or '')}\n\n{options(command)}\n"
        )
    return "\n".join(parts)


def options(command: click.Command) -> str:
    """The options of a command, one a line."""
    lines = []
    for option in command.params:
        if isinstance(option, click.Option):
            value = "" if option.is_flag else f" {option.make_metavar(click.Context(command))}"
            default = f" Default: {option.default}." if option.show_default else ""
            lines.append(f"- `{', '.join(option.opts)}{value}`: {option.help}{default}")
    return "\n".join(lines)


def settings_page() -> str:
    """docs/reference/settings.md."""
    rows = [f"| `{field.name}` | {_shown(field)} | {MEANINGS[field.name]} |" for field in fields(Settings)]
    return SETTINGS_HEAD + "\n".join(rows) + "\n" + SETTINGS_TAIL


def _shown(field: Field[Any]) -> str:
    if field.name.endswith("_bytes"):
        return f"{field.default >> 20} MiB"
    if field.name.endswith("_seconds"):
        return f"{field.default:g} s"
    return "all" if field.default is None else f"{field.default:,}"


PAGES = {
    REFERENCE / "errors.md": errors_page,
    REFERENCE / "cli.md": cli_page,
    REFERENCE / "settings.md": settings_page,
}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), "utf-8")
