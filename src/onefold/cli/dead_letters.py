"""`onefold dead-letters list FLOW`: the rows that the flow could not use, with the reason."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from onefold.cli.command import Chosen, Verb, print_json, results_to, takes_flow
from onefold.engines.embedded.deadletters import DeadLetter, dead_letters

__all__ = ["command"]

LONGEST_RAW = 100


@click.group("dead-letters")
def command() -> None:
    """The rows that a flow could not use: malformed, misfit, late."""


@command.command("list", cls=Verb)
@takes_flow
@click.option("--reason", help="Only this reason, such as malformed or late.")
@click.option("--read", "read", help="Only what this read gave.")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), help="At most so many, the newest last."
)
def list_letters(chosen: Chosen, *, reason: str | None, read: str | None, limit: int) -> None:
    """List dead letters of FLOW: which read, where, why, and the bytes as they came."""
    letters, counts = dead_letters(chosen.folder, reason=reason, read=read, limit=limit)
    if chosen.as_json:
        for letter in letters:
            print_json(_as_json(letter))
    elif not letters:
        such = "such " if reason or read else ""
        results_to().print(f"{chosen.plan.flow} has no {such}dead letters.")
    else:
        _show(letters, counts)


def _show(letters: Sequence[DeadLetter], counts: Mapping[str, int]) -> None:
    out = results_to()
    for letter in letters:
        raw = letter.raw.decode("utf-8", "backslashreplace").rstrip("\n")
        shown = raw if len(raw) <= LONGEST_RAW else raw[: LONGEST_RAW - 1] + "…"
        out.print(Text.assemble((letter.reason, "bold red"), f"  {letter.detail}", (f"\n  {shown}", "dim")))
        out.print(Text.assemble(("  " + " ".join((letter.read, _where(letter))), "cyan")))
    total = ", ".join(f"{count:,} {reason}" for reason, count in Counter(counts).most_common())
    more = f"; the newest {len(letters)} are shown, --limit shows more" if sum(counts.values()) > len(letters) else ""
    out.print(f"{total}{more}")


def _where(letter: DeadLetter) -> str:
    """Where it stood in what was read; of a row that a sink refused, in what was prepared for it."""
    place = json.loads(letter.position)
    return " ".join(f"{name} {value}" if "epoch" in place else str(value) for name, value in place.items())


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    """raw as text where it is text, else in base64."""
    body = {**vars(letter)}
    try:
        body["raw"] = letter.raw.decode("utf-8")
    except UnicodeDecodeError:
        del body["raw"]
        body["raw_base64"] = base64.b64encode(letter.raw).decode("ascii")
    return body
