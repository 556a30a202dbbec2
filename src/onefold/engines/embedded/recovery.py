"""What a person decides about a state folder: forget it, rebuild it from the sinks' tokens, or adopt a moved one.

Rebuilding: a token holds epoch, seal id and end positions. When all sinks hold the same one, a new journal whose first
seal is that epoch puts them all exactly on its chain, and reading goes on at its ends. Only a flow whose results
depend on nothing but the rows still to come can be continued so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onefold.clock import new_key, new_seal_id, process_name
from onefold.disk import make_folder, publish
from onefold.durations import duration_text
from onefold.engines.embedded.opening import VERSION, journal_location, open_flow
from onefold.engines.embedded.outputs import DEAD_LETTERS_FILE, all_outputs, binding_of
from onefold.engines.embedded.status import history_of
from onefold.errors import FileCorrupt, StateUnknown
from onefold.journal import JOURNAL_FILE, SqliteJournal, locked_folder
from onefold.plan import AggregateNode, DedupNode, Output, Plan, ReadNode
from onefold.protocols import Clock, JournalRecord, TwoPhase
from onefold.records import Seal, SinkEntry, Start
from onefold.spool import FolderSpool
from onefold.types import EpochNumber, Guarantee, Incarnation, RecordNumber, Token

__all__ = ["Adoption", "Rebuilt", "SinkMeaning", "adopt", "archive_state", "rebuild", "reset_meanings", "what_is_held"]


# -------------------------------------------------------------------------------------------------------------- reset


@dataclass(frozen=True)
class SinkMeaning:
    """What a sink holds, and what the next run will make of it once the state is gone."""

    sink: str
    label: str
    is_exact: bool
    meaning: str


def reset_meanings(plan: Plan) -> tuple[SinkMeaning, ...]:
    """For each sink of the plan. Opens nothing."""
    can_rebuild = not what_is_held(plan)
    return tuple(_meaning(output, can_rebuild=can_rebuild) for output in plan.outputs)


def _meaning(output: Output, *, can_rebuild: bool) -> SinkMeaning:
    if output.guarantee is Guarantee.EXACTLY_ONCE:
        ways = [
            "empty the target and remove its token (delete the file or drop the tables)",
            "give the sink a new target",
        ]
        if can_rebuild:
            ways.append("go on behind what it holds with `onefold recover --from-sinks`")
        sentence = (
            "keeps its rows, and a token of the journal that goes. The next run finds the token on no chain of its own "
            f"and stops with sink-forked before it writes anything. To go on: {', or '.join(ways)}."
        )
        return SinkMeaning(output.name, output.label, is_exact=True, meaning=sentence)
    sentence = (
        "keeps its rows and has no token. The next run cannot see them and writes everything again beside them. "
        "Empty the target before you run."
    )
    return SinkMeaning(output.name, output.label, is_exact=False, meaning=sentence)


def archive_state(folder: Path, clock: Clock) -> Path:
    """Give the state folder a dated name beside the old one; nothing is deleted. Returns the new name.

    Raises JournalLocked while the flow runs, StateUnknown when there is nothing. If killed inside: moved or not.
    """
    if not folder.is_dir():
        raise StateUnknown("There is no state to forget.", folder=folder, next_step="")
    with locked_folder(folder):
        return _archive(folder, clock)


def _archive(folder: Path, clock: Clock) -> Path:
    when = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    names = (f"{folder.name}.{when}{suffix}" for suffix in ("", *(f"-{number}" for number in range(2, 1000))))
    archive = next(path for path in (folder.with_name(name) for name in names) if not path.exists())
    publish(folder, archive, step="state.archive")
    return archive


# ------------------------------------------------------------------------------------------------------------ rebuild


@dataclass(frozen=True)
class Rebuilt:
    """A new journal that begins where the sinks are. archive: where the former state folder went, if there was one."""

    epoch: EpochNumber
    ends: Mapping[str, Any]
    archive: Path | None
    notes: tuple[str, ...]


def what_is_held(plan: Plan) -> tuple[str, ...]:
    """What the flow remembers beside positions, in sentences; nothing: its journal can be rebuilt from the sinks."""
    held: list[str] = []
    for node in plan.nodes:
        if isinstance(node, DedupNode):
            horizon = "for ever" if node.within_micros is None else f"for {duration_text(node.within_micros)}"
            held.append(f"{node.name} remembers the keys it has seen, {horizon}")
        elif isinstance(node, AggregateNode):
            what = "groups" if node.window_micros is None else "open windows"
            held.append(f"{node.name} remembers its {what}")
        elif isinstance(node, ReadNode):
            if node.event_time is not None:
                held.append(f"{node.name} remembers the largest {node.event_time}, by which rows are late")
            if node.source.memory is not None:
                held.append(f"{node.label} remembers what it has admitted, and in which order")
    return tuple(held)


def rebuild(plan: Plan, folder: Path, clock: Clock) -> Rebuilt:
    """Make a new journal for a flow without state, beginning at the epoch that all its sinks hold.

    Raises StateUnknown when the journal is there, when the flow holds state (saying what to replay), when a sink
    keeps no token, and when the tokens differ; SinkUnavailable; JournalLocked. The sinks are opened, and so fenced.
    If killed inside: the former state, or a journal that the sinks' tokens refuse until this is run again.
    """
    _refuse_stateful(plan)
    _refuse_weak(plan)
    make_folder(folder)
    with locked_folder(folder):
        _refuse_present(plan, folder)
        journal_id = new_seal_id()
        tokens, notes = _tokens(plan, folder, journal_id)
        token = _agreed(plan, tokens)
        is_left = any((folder / name).exists() for name in (JOURNAL_FILE, DEAD_LETTERS_FILE))
        archive = _archive(folder, clock) if is_left else None
    _write_journal(plan, folder, clock, journal_id=journal_id, token=token)
    return Rebuilt(token.epoch, token.ends, archive, notes)


def _refuse_stateful(plan: Plan) -> None:
    held = what_is_held(plan)
    if held:
        raise StateUnknown(
            "This flow cannot go on from its sinks alone: it holds state that they do not.",
            flow=plan.flow,
            found="; ".join(held),
            expected="a flow whose results depend on nothing but the rows still to come",
            next_step="Restore the newest backup of the state folder. Without one, replay: `onefold reset`, empty "
            "every target with its token or name new ones, and run from the beginning of the input.",
        )


def _refuse_weak(plan: Plan) -> None:
    for output in plan.outputs:
        if output.guarantee is Guarantee.AT_LEAST_ONCE:
            raise StateUnknown(
                f"{output.label} keeps no token, so nobody knows which rows it still lacks.",
                flow=plan.flow,
                sink=output.name,
                next_step="Replay from the beginning into an emptied target, or run with this sink at-most-once.",
            )


def _refuse_present(plan: Plan, folder: Path) -> None:
    if not (folder / JOURNAL_FILE).exists():
        return
    try:
        history, _ = history_of(plan.flow, folder)
    except FileCorrupt:
        return  # this is what it is for: the corrupt one is kept under a dated name
    if history.seals:
        raise StateUnknown(
            "The journal is there and readable: nothing needs to be rebuilt.",
            flow=plan.flow,
            folder=folder,
            next_step="Run the flow. If this journal is not the one that the sinks follow, `onefold reset` it first.",
        )


def _tokens(plan: Plan, folder: Path, journal_id: str) -> tuple[dict[str, Token | None], tuple[str, ...]]:
    tokens: dict[str, Token | None] = {}
    notes = ["dead letters that were sealed but not yet written are not known any more"]
    for output in plan.outputs:
        if output.guarantee is not Guarantee.EXACTLY_ONCE:
            notes.append(f"{output.name} keeps no token: rows that it had not taken yet are given up (at-most-once)")
            continue
        try:
            who: dict[str, Any] = {"flow": plan.flow, "journal": journal_id, "incarnation": Incarnation(1)}
            binding = binding_of(output, **who, spool=FolderSpool(folder / "spool"))
            tokens[output.name] = output.sink.open(binding)
            left = len(output.sink.handles()) if isinstance(output.sink, TwoPhase) else 0
        finally:
            output.sink.close()
        if left:
            notes.append(f"{output.name} has {left} prepared handles of the lost journal, which stay undecided")
    return tokens, tuple(notes)


def _agreed(plan: Plan, tokens: Mapping[str, Token | None]) -> Token:
    found = "; ".join(f"{name}: {_text(token)}" for name, token in tokens.items())
    first = next(iter(tokens.values()), None)
    if first is None or any(token != first for token in tokens.values()):
        raise StateUnknown(
            "The sinks do not agree on how far the flow has come.",
            flow=plan.flow,
            found=found or "no sink with a token",
            expected="the same epoch and seal in every sink",
            next_step="Rows that some sinks lack were in the journal alone. Restore its newest backup, or replay: "
            "`onefold reset`, empty every target with its token, and run from the beginning of the input.",
        )
    unknown = sorted({read.name for read in plan.reads()} ^ set(first.ends))
    if unknown:
        raise StateUnknown(
            "The sinks' tokens are of a flow with other reads.",
            flow=plan.flow,
            found=", ".join(sorted(first.ends)),
            expected=", ".join(read.name for read in plan.reads()),
            next_step="Give the reads the names they had, with name=…",
        )
    return first


def _write_journal(plan: Plan, folder: Path, clock: Clock, *, journal_id: str, token: Token) -> None:
    journal = SqliteJournal(folder, new_id=journal_id)
    try:
        sinks = {
            output.name: SinkEntry(
                {**output.binding_shape(), "guarantee": str(output.guarantee)}, EpochNumber(1), through=token.epoch
            )
            for output in plan.outputs
        }
        start = Start(
            process={**process_name(), "at": clock.now()},
            location=journal_location(journal.path),
            plan=plan.shape(),
            sinks=sinks,
            state_key=new_key().hex(),
            version=VERSION,
        )
        seal = Seal(
            epoch=token.epoch,
            seal=token.seal,
            previous=journal.id,
            ends=token.ends,
            receipts={},
            deltas=(),
            watermarks={},
            books={"operators": {}, "sinks": {}},
            totals={"operators": {}, "sinks": {}},
            sealed_at=clock.now(),
        )
        settle = {"epoch": token.epoch, "freed": token.epoch, "through": {}, "given_up": {}}
        records = (start.record(), seal.record(), JournalRecord("settle", settle))
        for number, record in enumerate(records, start=1):
            journal.append(RecordNumber(number), record)
    finally:
        journal.close()


def _text(token: Token | None) -> str:
    return "no token" if token is None else f"epoch {token.epoch}, seal {token.seal[:8]}…"


# -------------------------------------------------------------------------------------------------------------- adopt


@dataclass(frozen=True)
class Adoption:
    """Where the journal last ran, and where it is now."""

    before: Mapping[str, Any]
    now: Mapping[str, Any]

    @property
    def was_moved(self) -> bool:
        """Whether there was anything to adopt."""
        return self.before != self.now


def adopt(plan: Plan, folder: Path, clock: Clock) -> Adoption:
    """Take a moved or copied journal for the true one: from now on it may abort what was left prepared.

    Raises StateUnknown when there is none, JournalLocked, PlanChanged. If killed inside: adopted or not.
    """
    history, _ = history_of(plan.flow, folder)
    opened = open_flow(plan, folder, all_outputs(plan, folder), clock, adopt=True)
    try:
        now = journal_location(opened.journal.path)
    finally:
        opened.journal.close()
    return Adoption(history.start.location if history.start else {}, now)
