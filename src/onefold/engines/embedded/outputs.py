"""The sinks of a flow: those of its plan, and the built-in one for dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from onefold.connectors.sqlite import SqliteFile
from onefold.connectors.sqlite.sink import SqliteSink
from onefold.engines.embedded.pipeline import DEAD_LETTERS
from onefold.operators.reading import DEAD_SCHEMA
from onefold.plan import Output, Plan
from onefold.protocols import Paced, Sink, SinkPromise, Spool
from onefold.types import Binding, Guarantee, Incarnation

__all__ = ["DEAD_LETTERS_FILE", "all_outputs", "binding_of", "pace_of"]

DEAD_LETTERS_FILE = "dead-letters.sqlite"


def all_outputs(plan: Plan, folder: Path) -> Mapping[str, Output]:
    """By name. Dead letters go to a table of their own beside the journal, exactly once like everything else."""
    endpoint = SqliteFile(str(folder / DEAD_LETTERS_FILE)).table("dead_letters")
    dead = Output(
        name=DEAD_LETTERS,
        input="",
        sink=_BesideJournal(endpoint.path, endpoint.name),
        label=endpoint.label,
        schema=DEAD_SCHEMA,
        mode="append",
        guarantee=Guarantee.EXACTLY_ONCE,
    )
    return {**{output.name: output for output in plan.outputs}, DEAD_LETTERS: dead}


def binding_of(output: Output, plan: Plan, *, journal: str, incarnation: Incarnation, spool: Spool | None) -> Binding:
    """Who the output's sink works for. spool: None where nothing is prepared."""
    return Binding(
        journal=journal,
        flow=plan.flow,
        lane="0",
        sink=output.name,
        incarnation=incarnation,
        schema=output.schema,
        mode=output.mode,
        key=output.key,
        guarantee=output.guarantee,
        spool=spool,
        is_shared=output.is_shared,
        is_together=plan.commit == "together",
        is_sifted=output.is_sifted,
    )


def pace_of(sink: Sink) -> float:
    """Seconds between deliveries to it; 0 for one that takes them as they come."""
    return sink.commit_every_seconds if isinstance(sink, Paced) else 0.0


class _BesideJournal(SqliteSink):
    """Belongs to the state folder and moves with it: its identity names no place (INV-12)."""

    @property
    def promise(self) -> SinkPromise:
        """As SQLite's, wherever the folder stands."""
        return replace(super().promise, target="sqlite:beside the journal")
