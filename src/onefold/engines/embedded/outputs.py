"""The sinks of a flow: those of its plan, and the built-in one for dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onefold.connectors.sqlite import SqliteFile
from onefold.engines.embedded.pipeline import DEAD_LETTERS
from onefold.operators.reading import DEAD_SCHEMA
from onefold.plan import Output, Plan
from onefold.types import Guarantee

__all__ = ["DEAD_LETTERS_FILE", "all_outputs"]

DEAD_LETTERS_FILE = "dead-letters.sqlite"


def all_outputs(plan: Plan, folder: Path) -> Mapping[str, Output]:
    """By name. Dead letters go to a table of their own beside the journal, exactly once like everything else."""
    endpoint = SqliteFile(str(folder / DEAD_LETTERS_FILE)).table("dead_letters")
    dead = Output(
        name=DEAD_LETTERS,
        input="",
        sink=endpoint.as_sink("append", ()),
        label=endpoint.label,
        schema=DEAD_SCHEMA,
        mode="append",
        guarantee=Guarantee.EXACTLY_ONCE,
    )
    return {**{output.name: output for output in plan.outputs}, DEAD_LETTERS: dead}
