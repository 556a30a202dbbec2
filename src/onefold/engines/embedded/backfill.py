"""A sink that is added later and is to hold what was before: which part of the flow fills it, and how far that is.

The part has a journal of its own below the state, under the same flow and sink: its last token is where the sink stands
when it joins the flow (SinkEntry.base), so that a zombie of the backfill is refused like any other (INV-3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onefold.errors import BackfillDue, NotSupported
from onefold.plan import AggregateNode, DedupNode, Output, Plan
from onefold.records import Seal, SinkEntry
from onefold.types import Token

if TYPE_CHECKING:
    from onefold.engines.embedded.opening import History

__all__ = ["Backfill", "due_backfills", "partial_nodes"]

FOLDER = "backfill"


@dataclass(frozen=True)
class Backfill:
    """plan: the part of the flow that this one output needs. folder: its state."""

    plan: Plan
    folder: Path

    @staticmethod
    def of(plan: Plan, output: Output, state: Path) -> Backfill:
        """state: the flow's."""
        part = plan.reduced([output])
        return Backfill(replace(part, settings=replace(part.settings, max_dead=1.0)), state / FOLDER / output.name)

    @property
    def sink(self) -> str:
        """The name of the sink that is filled."""
        return self.plan.outputs[0].name

    def is_complete(self, flow: History, own: History) -> bool:
        """Whether the sink has all that the flow has read. own: the backfill's."""
        ours, theirs = own.newest, flow.newest
        if ours is None or theirs is None or own.settled < own.head:
            return False
        return all(_place(ours, read.name) == _place(theirs, read.name) for read in self.plan.reads())

    def joins(self, flow: History, own: History) -> Joining:
        """How the sink joins the flow now. Raises BackfillDue, NotSupported."""
        self._demand_whole_state(flow)
        newest = own.newest
        if newest is None or not self.is_complete(flow, own):
            raise BackfillDue(sink=self.sink, flow=self.plan.flow)
        fresh = [name for name in stateful_nodes(self.plan) if not _was_there(flow, name)]
        return Joining(Token(newest.epoch, newest.seal, newest.ends), tuple(fresh))

    def adopted(self, entry: SinkEntry, table: str) -> bool:
        """Whether the flow takes this table over: of a new step, or the versions that the sink's rows have."""
        return table in (entry.adopts or ()) or table.startswith(f"latest:{self.sink}:")

    def _demand_whole_state(self, flow: History) -> None:
        """The flow goes on with its own state, which must be what the backfill has come to."""
        partial = set(flow.start.partial) if flow.start else set()
        for name in stateful_nodes(self.plan):
            if name in partial:
                raise NotSupported(
                    f"The sink {self.sink} cannot be backfilled: {name} was added later and lacks what was before.",
                    sink=self.sink,
                    node=name,
                    next_step="Give the step another name for this sink, or leave out backfill=True.",
                )
        for read in self.plan.reads():
            if not read.source.promise.is_replayable:
                raise NotSupported(
                    f"The sink {self.sink} cannot be backfilled: {read.label} cannot be read again.",
                    sink=self.sink,
                    next_step="Leave out backfill=True: the sink gets what comes next.",
                )


@dataclass(frozen=True)
class Joining:
    """What a backfilled sink brings: the token it holds, and the steps whose state the flow takes over."""

    base: Token
    adopts: tuple[str, ...]


def due_backfills(flow: History, plan: Plan) -> Sequence[Output]:
    """The sinks that must be filled before the flow goes on: new, in a flow that has sealed something."""
    known: Mapping[str, SinkEntry] = flow.start.sinks if flow.start else {}
    return [one for one in plan.outputs if one.is_backfilled and flow.head and one.name not in known]


def stateful_nodes(plan: Plan) -> list[str]:
    """The steps that remember rows."""
    return [node.name for node in plan.nodes if isinstance(node, DedupNode | AggregateNode)]


def partial_nodes(flow: History, plan: Plan, entries: Mapping[str, SinkEntry]) -> tuple[str, ...]:
    """The steps whose state lacks what was read before they were added."""
    if flow.start is None or not flow.head:
        return ()
    adopted = {name for entry in entries.values() if not entry.retired for name in entry.adopts or ()}
    begun_empty = {name for name in stateful_nodes(plan) if not _was_there(flow, name) and name not in adopted}
    return tuple(name for name in stateful_nodes(plan) if name in begun_empty.union(flow.start.partial))


def _was_there(flow: History, node: str) -> bool:
    return flow.start is not None and node in flow.start.plan["nodes"]


def _place(seal: Seal, read: str) -> tuple[object, object]:
    return dict(seal.ends.get(read, {})), dict(seal.watermarks.get(read, {}))
