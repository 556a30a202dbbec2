"""Is this the flow that the state belongs to, and are these its sinks (INV-12)?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onefold.errors import PlanChanged, SinkChanged
from onefold.plan import Output, Plan
from onefold.records import SinkEntry, Start
from onefold.types import EpochNumber, Token

if TYPE_CHECKING:
    from onefold.engines.embedded.opening import History

__all__ = ["check_plan", "joining_notes", "removed_reads", "sink_entries"]


def check_plan(start: Start, plan: Plan) -> None:
    """Nodes that stay must be what they were; new ones begin empty. Raises PlanChanged with the difference.

    A read that was removed does not come back: it would begin anew, and what it had read be written a second time.
    """
    before, now = start.plan, plan.shape()
    for read in plan.reads():
        if read.name in start.removed:
            raise PlanChanged(
                f"The read {read.name} was removed from this flow, and with it the knowledge of what it had read.",
                flow=plan.flow,
                node=read.name,
                next_step="Give it another name and sinks of its own: it then reads everything.",
            )
    if before["commit"] != now["commit"]:
        raise PlanChanged(flow=plan.flow, found=f"commit={now['commit']}", expected=f"commit={before['commit']}")
    nodes: Any = now["nodes"]
    for name, shape in before["nodes"].items():
        if name in nodes and nodes[name] != shape:
            changed = sorted(field for field in shape if nodes[name].get(field) != shape[field])
            raise PlanChanged(
                flow=plan.flow,
                node=name,
                found=", ".join(f"{field} = {nodes[name].get(field)}" for field in changed),
                expected=", ".join(f"{field} = {shape[field]}" for field in changed),
            )


def removed_reads(history: History, plan: Plan) -> tuple[str, ...]:
    """The reads that the flow had and has no more. One that has read nothing leaves nothing behind."""
    start, kept = history.start, {read.name for read in plan.reads()}
    if start is None:
        return ()
    had = {name for name, shape in start.plan["nodes"].items() if not shape["inputs"]} if history.head else set()
    return tuple(sorted(had.union(start.removed) - kept))


def sink_entries(history: History, outputs: Mapping[str, Output]) -> dict[str, SinkEntry]:
    """The sinks' entries for the next start record. Raises SinkChanged while epochs wait for a sink that changed."""
    before = dict(history.start.sinks) if history.start else {}
    entries = {name: _entry(history, name, output, before.get(name)) for name, output in outputs.items()}
    for name, entry in before.items():
        if name not in outputs:
            entries[name] = entry if entry.retired else _retire(history, name, entry)
    return entries


def joining_notes(history: History, entries: Mapping[str, SinkEntry]) -> tuple[str, ...]:
    """What a sink that is new, or new again, does not have. The built-in ones miss nothing that matters."""
    before = dict(history.start.sinks) if history.start else {}
    return tuple(
        f"{name} joins with epoch {entry.joined}: what was before is not written to it"
        for name, entry in entries.items()
        if history.head
        and entry.joined > history.head
        and not name.startswith("_")
        and not entry.retired
        and (name not in before or before[name].joined != entry.joined)
    )


def _entry(history: History, name: str, output: Output, before: SinkEntry | None) -> SinkEntry:
    shape = {**output.binding_shape(), "guarantee": str(output.guarantee)}
    joined = EpochNumber(history.head + 1)
    if before is None:
        return SinkEntry(shape, joined)
    if before.retired:
        return SinkEntry(shape, joined, before.base if _place(before.shape) == _place(shape) else None)
    through = EpochNumber(max(before.through, history.through.get(name, EpochNumber(0))))
    if before.shape == shape:
        return replace(before, through=through)
    _demand_drained(history, name, found=shape, expected=before.shape)
    if _place(before.shape) == _place(shape):
        return SinkEntry(shape, joined, _token_held(history, before), through)
    _demand_decided(history, name, found=shape)
    return SinkEntry(shape, joined, None, through)


def _place(shape: Mapping[str, Any]) -> tuple[Any, Any]:
    """Where rows and token are."""
    return shape["target"], shape.get("tokens")


def _retire(history: History, name: str, entry: SinkEntry) -> SinkEntry:
    _demand_drained(history, name, found="it is no longer in the flow", expected=entry.shape)
    _demand_decided(history, name, found="it is no longer in the flow")
    return replace(entry, base=_token_held(history, entry), retired=True)


def _token_held(history: History, entry: SinkEntry) -> Token | None:
    """What a drained sink holds: the head's token if it is exactly-once, else what it had when it joined."""
    newest = history.newest
    if entry.shape["guarantee"] != "exactly-once" or newest is None or newest.epoch < entry.joined:
        return entry.base
    return Token(newest.epoch, newest.seal, newest.ends)


def _demand_drained(history: History, name: str, *, found: object, expected: object) -> None:
    if history.settled < history.head:
        raise SinkChanged(
            sink=name, found=found, expected=f"{expected}, until epoch {history.head} is settled ({history.settled} is)"
        )


def _demand_decided(history: History, name: str, *, found: object) -> None:
    if history.undecided is not None:
        raise SinkChanged(
            "A run ended while an epoch may have been prepared: what a sink that leaves the flow holds stays locked.",
            sink=name,
            found=found,
            expected="a run of the former version that ends by itself",
            next_step="Run the former version of the flow with --once: it forgets what was prepared. If its target is "
            f"gone for good, remove {history.undecided}.",
        )
