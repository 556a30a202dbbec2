"""Opening a flow's state folder: append a start record, read the journal, load the state, find out where every sink is.

The start record is appended at the number after the last one read, if absent: nothing can stand between what was read
and our start, and from then on an older process cannot append (INV-2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onefold.chain import Chain
from onefold.clock import machine_name, new_key, new_seal_id, process_name
from onefold.course import SinkRule
from onefold.engines.embedded.archive import Archive
from onefold.engines.embedded.identity import check_plan, joining_notes, removed_reads, sink_entries
from onefold.engines.embedded.outputs import pace_of
from onefold.engines.embedded.pipeline import Pipeline, StateTable
from onefold.engines.embedded.undecided import Undecided
from onefold.epoch import Recovered
from onefold.errors import Fenced, FileCorrupt, StateError, StateUnknown
from onefold.journal import SqliteJournal
from onefold.plan import Output, Plan
from onefold.protocols import Clock, Journal
from onefold.records import Seal, Start
from onefold.spool import FolderSpool
from onefold.state.snapshots import SnapshotStore
from onefold.types import Attempt, EpochNumber, Incarnation, PartitionId, Positions, RecordNumber

__all__ = ["VERSION", "History", "OpenedFlow", "journal_location", "open_flow", "read_history", "where_to_read"]

VERSION = "0.1"


@dataclass
class History:
    """What the journal's records say, read from the first to the last."""

    journal: str
    last: RecordNumber = RecordNumber(0)  # noqa: RUF009
    start: Start | None = None
    incarnation: Incarnation = Incarnation(0)  # noqa: RUF009
    seals: list[tuple[RecordNumber, Seal]] = field(default_factory=list)
    settled: EpochNumber = EpochNumber(0)  # noqa: RUF009
    freed: EpochNumber = EpochNumber(0)  # noqa: RUF009
    through: dict[str, EpochNumber] = field(default_factory=dict)
    given_up: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    latest: dict[str, RecordNumber] = field(default_factory=dict)
    undecided: Path | None = None
    """The mark that an epoch may be prepared and undecided, if there is one."""

    @property
    def head(self) -> EpochNumber:
        """The newest sealed epoch."""
        return self.seals[-1][1].epoch if self.seals else EpochNumber(0)

    @property
    def newest(self) -> Seal | None:
        """The newest seal."""
        return self.seals[-1][1] if self.seals else None


@dataclass(frozen=True)
class OpenedFlow:
    """An opened flow, ready for an EpochCore."""

    plan: Plan
    folder: Path
    journal: SqliteJournal
    spool: FolderSpool
    archive: Archive
    snapshots: SnapshotStore
    pipeline: Pipeline
    recovered: Recovered
    outputs: Mapping[str, Output]
    history: History
    notes: tuple[str, ...]


def open_flow(
    plan: Plan,
    folder: Path,
    outputs: Mapping[str, Output],
    clock: Clock,
    *,
    is_locked: bool = True,
    adopt: bool = False,
) -> OpenedFlow:
    """Open the state of `plan` in `folder`. outputs: the plan's and the built-in ones, by name.

    Raises JournalLocked, Fenced, FileCorrupt, PlanChanged, SinkChanged, DiskError.
    If killed inside: at most a start record more.
    """
    journal = SqliteJournal(folder, new_id=new_seal_id(), is_locked=is_locked)
    try:
        return _open(plan, journal, outputs, clock, adopt=adopt)
    except BaseException:
        journal.close()
        raise


def _open(
    plan: Plan, journal: SqliteJournal, outputs: Mapping[str, Output], clock: Clock, *, adopt: bool
) -> OpenedFlow:
    history = read_history(journal, journal.id)
    undecided = Undecided(journal.folder)
    history.undecided = undecided.file if undecided.is_marked else None
    before = history.start
    if before is not None:
        check_plan(before, plan)
    entries = sink_entries(history, outputs)
    joining = joining_notes(history, entries)
    location = journal_location(journal.path)
    # A copy stays a copy, however often it starts, until a person adopts it (INV-10).
    is_home = adopt or before is None or before.location == location
    start = Start(
        process={**process_name(), "at": clock.now()},
        location=location if is_home or before is None else before.location,
        plan=plan.shape(),
        sinks=entries,
        state_key=before.state_key if before else new_key().hex(),
        version=VERSION,
    )
    pipeline = Pipeline(plan, bytes.fromhex(start.state_key))
    start = replace(start, since=_state_begins(history, pipeline.tables), removed=removed_reads(history, plan))
    incarnation = Incarnation(history.last + 1)
    journal.append(RecordNumber(incarnation), start.record())
    history.last, history.latest["start"] = RecordNumber(incarnation), RecordNumber(incarnation)
    history.start, history.incarnation = start, incarnation
    spool = FolderSpool(journal.folder / "spool", incarnation=incarnation)
    headers = [seal.chain_header(has_payload=seal.epoch > history.freed) for _, seal in history.seals]
    chain = Chain(journal.id, headers)
    archive = Archive(journal, spool, plan.settings)
    archive.freed = history.freed
    for number, seal in history.seals:
        archive.add(number, seal, hold=False)
    snapshots = SnapshotStore(journal.folder / "snapshots", incarnation=incarnation)
    with _successor_blamed_first(journal, incarnation):
        notes = _load_state(pipeline, snapshots, history, chain, spool)
        spool.sweep(archive.named_files())
    rules = tuple(
        _rule(name, output, entries[name], history, is_separate=plan.commit == "separately")
        for name, output in outputs.items()
    )
    recovered = Recovered(chain, incarnation, history.settled, rules, may_abort=is_home)
    return OpenedFlow(
        plan,
        journal.folder,
        journal,
        spool,
        archive,
        snapshots,
        pipeline,
        recovered,
        outputs,
        history,
        (*joining, *notes),
    )


@contextlib.contextmanager
def _successor_blamed_first(journal: Journal, incarnation: Incarnation) -> Iterator[None]:
    """What is missing may be gone because another process has started since and freed it: that is no damage."""
    try:
        yield
    except StateError as error:
        last = journal.last_number()
        if last > incarnation:
            raise Fenced(found=f"record {last}", expected=f"our start, record {incarnation}, to be the last") from error
        raise


def read_history(journal: Journal, journal_id: str) -> History:
    """Read all records. Changes nothing."""
    history = History(journal_id)
    for number, record in journal.read(RecordNumber(1)):
        history.last = number
        header = record.header
        match record.kind:
            case "start":
                history.start, history.incarnation = Start.of(record), Incarnation(number)
                history.latest["start"] = number
            case "seal":
                history.seals.append((number, Seal.of(record)))
            case "settle":
                history.settled, history.freed = header["epoch"], header["freed"]
                history.through.update(header["through"])
                history.given_up.update(header["given_up"])
                if header.get("start") is not None:
                    history.start, history.incarnation = Start.from_json(header["start"]), header["incarnation"]
                    history.latest["start"] = number
                history.latest = {what: at for what, at in history.latest.items() if not what.startswith("outcome ")}
                history.latest["settle"] = number
            case "attempt":
                sink = header["sink"]
                history.attempts[sink] = Attempt(sink, header["first"], header["last"])
                history.latest[f"attempt {sink}"] = number
            case "outcome":
                sink = header["sink"]
                history.through[sink] = header["last"]
                history.given_up[sink] = history.given_up.get(sink, 0) + header["rows_given_up"]
                history.attempts.pop(sink, None)
                history.latest.pop(f"attempt {sink}", None)
                history.latest[f"outcome {sink}"] = number
    if history.last and history.start is None:
        raise FileCorrupt(
            "The journal lacks its start record.", found=f"records through {history.last}", journal=journal_id
        )
    return history


def where_to_read(opened: OpenedFlow) -> tuple[dict[str, dict[PartitionId, Any]], EpochNumber, Positions]:
    """The positions to read next, by read; the number of the next epoch; the positions before which all is settled."""
    newest = opened.history.newest
    ends = {name: dict(marks) for name, marks in newest.ends.items()} if newest else {}
    chain = opened.recovered.chain
    settled = chain.get(opened.recovered.settled)
    return ends, EpochNumber(chain.head + 1), settled.ends if settled is not None else {}


def _rule(name: str, output: Output, entry: Any, history: History, *, is_separate: bool) -> SinkRule:
    return SinkRule(
        name,
        output.guarantee,
        entry.joined,
        entry.base,
        max(entry.through, history.through.get(name, EpochNumber(0))),
        history.attempts.get(name),
        output.sink.promise.rows_outlive_token,
        is_paced=is_separate and pace_of(output.sink) > 0,
    )


def _state_begins(history: History, tables: Mapping[str, StateTable]) -> dict[str, EpochNumber]:
    """By table, the epoch after which its state began: for one that the process before did not have, the head."""
    before = history.start
    if before is None:
        return dict.fromkeys(tables, EpochNumber(0))
    known = before.since
    if known is None:  # written before this was: only steps have a name there
        known = {name: EpochNumber(0) for name in tables if ":" in name or name in before.plan["nodes"]}
    return {name: known.get(name, history.head) for name in tables}


def _load_state(
    pipeline: Pipeline, snapshots: SnapshotStore, history: History, chain: Chain, spool: FolderSpool
) -> tuple[str, ...]:
    """The newest sound snapshot, then the deltas after it."""
    snapshots.discard_after(history.head)
    tables = pipeline.tables
    since = (history.start.since if history.start else None) or {}
    loaded = snapshots.load_latest(history.head)
    begin = EpochNumber(0)
    if loaded is not None:
        header = chain.get(loaded.epoch)
        if header is not None and header.seal != loaded.seal:
            raise StateUnknown(
                "A snapshot belongs to another history than the journal.",
                found=f"epoch {loaded.epoch}, seal {loaded.seal}",
                expected=f"seal {header.seal}",
                next_step="Restore journal and snapshots together, from one backup.",
            )
        begin = loaded.epoch
        for name, table in loaded.tables.items():
            if name in tables and loaded.epoch > since.get(name, 0):
                tables[name].load(table.blocks(), rows=table.rows)
    for _, seal in history.seals:
        if seal.epoch > begin:
            _apply_deltas(
                {name: table for name, table in tables.items() if seal.epoch > since.get(name, 0)}, seal, spool
            )
    if history.newest is not None:
        for name, marks in history.newest.watermarks.items():
            if name in pipeline.watermarks:
                pipeline.watermarks[name] = {PartitionId(partition): mark for partition, mark in marks.items()}
    return (loaded.note,) if loaded is not None and loaded.note else ()


def _apply_deltas(tables: Mapping[str, StateTable], seal: Seal, spool: FolderSpool) -> None:
    for delta in seal.deltas:
        if delta.inline is None and "file" not in delta.detail:
            raise FileCorrupt(
                "The state cannot be rebuilt: a change of it is gone and no snapshot holds it.",
                table=delta.table,
                epoch=seal.epoch,
            )
        if delta.table in tables:
            tables[delta.table].apply_delta(spool.get(delta.detail, delta.inline).to_batches())


def journal_location(path: Path) -> dict[str, Any]:
    """Where the journal stands: a copied or moved one stands somewhere else."""
    status = path.stat()
    return {"machine": machine_name(), "path": str(path.resolve()), "inode": status.st_ino}
