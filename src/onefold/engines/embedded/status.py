"""Where a flow stands, from its state folder: nothing is opened, fenced or written.

The one thing that no journal knows is what a process had prepared when it died before its seal; of a flow that commits
together its sinks are asked for that.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onefold.clock import new_seal_id
from onefold.engines.embedded.opening import History, read_history
from onefold.engines.embedded.outputs import binding_of
from onefold.errors import OnefoldError, StateUnknown
from onefold.journal import JOURNAL_FILE, LOCK_FILE, SqliteJournal
from onefold.plan import Output, Plan
from onefold.protocols import Check
from onefold.types import EpochNumber, Handle, Incarnation

__all__ = ["SinkStatus", "Status", "is_decided", "running_process", "status"]


@dataclass(frozen=True)
class SinkStatus:
    """One sink, as the journal knows it.

    delivered_through: every epoch through this one has surely taken effect here; more may have, which the sink's token
    tells when the flow opens it. waiting_rows: sealed after that. rows_given_up: at-most-once, an upper bound.
    prepared: how many of these are staged in the sink itself; decided: their names: they wait to be committed.
    undecided: names of what is prepared there and not sealed; the next run forgets it. None: the sink does not answer.
    """

    name: str
    label: str
    guarantee: str
    joined: EpochNumber
    delivered_through: EpochNumber
    waiting_rows: int
    rows_given_up: int
    prepared: int = 0
    decided: tuple[str, ...] = ()
    undecided: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class Status:
    """A flow's state. epoch: the newest sealed. positions: to read next. totals: the books since the flow began."""

    flow: str
    folder: Path
    journal: str
    incarnation: Incarnation
    started_at: float | None
    running: Mapping[str, Any] | None
    epoch: EpochNumber
    settled: EpochNumber
    sealed_at: float | None
    lag_bytes: int
    positions: Mapping[str, Any]
    watermarks: Mapping[str, Any]
    sinks: tuple[SinkStatus, ...]
    totals: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**vars(self), "folder": str(self.folder), "sinks": [vars(sink) for sink in self.sinks]}


def status(plan: Plan, folder: Path) -> Status:
    """Read the journal of `plan` in `folder`, also while the flow runs. Raises StateUnknown, FileCorrupt."""
    history, journal_id = history_of(plan.flow, folder)
    newest, start = history.newest, history.start
    waiting = [seal for _, seal in history.seals if seal.epoch > history.settled]
    return Status(
        flow=plan.flow,
        folder=folder,
        journal=journal_id,
        incarnation=history.incarnation,
        started_at=start.process.get("at") if start else None,
        running=running_process(folder),
        epoch=history.head,
        settled=history.settled,
        sealed_at=newest.sealed_at if newest else None,
        lag_bytes=sum(part.size_bytes for seal in waiting for parts in seal.receipts.values() for part in parts),
        positions=newest.ends if newest else {},
        watermarks=newest.watermarks if newest else {},
        sinks=_sinks(plan, history, journal_id),
        totals=newest.totals if newest else {},
    )


def history_of(flow: str, folder: Path) -> tuple[History, str]:
    """What the journal in `folder` says, and its id; nothing is made. Raises StateUnknown, FileCorrupt."""
    if not (folder / JOURNAL_FILE).exists():
        raise StateUnknown(
            "The flow has not run with this state folder.",
            flow=flow,
            folder=folder,
            next_step="Run it, or name the folder with --state or ONEFOLD_STATE.",
        )
    journal = SqliteJournal(folder, new_id=new_seal_id(), is_locked=False)
    try:
        return read_history(journal, journal.id), journal.id
    finally:
        journal.close()


def running_process(folder: Path) -> Mapping[str, Any] | None:
    """Who runs the flow now (pid and host), from the lock that it holds; None when nobody does."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        holder = os.read(descriptor, 4096)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        named: Mapping[str, Any] = json.loads(holder or b"{}")
        return named
    finally:
        os.close(descriptor)
    return None


def is_decided(handle: Handle, history: History, journal: str) -> bool:
    """Whether what is prepared belongs to a seal of this journal: then it is committed, never forgotten."""
    return handle.journal == journal and any(seal.seal == handle.seal for _, seal in history.seals)


def _undecided(output: Output, plan: Plan, history: History, journal: str) -> tuple[str, ...] | None:
    if plan.commit != "together" or not isinstance(output.sink, Check):
        return ()
    binding = binding_of(output, plan, journal=journal, incarnation=history.incarnation, spool=None)
    try:
        findings = output.sink.check(binding)
    except OnefoldError:
        return None
    if any(finding.status == "failed" for finding in findings):
        return None
    handles = [handle for finding in findings for handle in finding.prepared]
    return tuple(str(handle.detail["name"]) for handle in handles if not is_decided(handle, history, journal))


def _sinks(plan: Plan, history: History, journal: str) -> tuple[SinkStatus, ...]:
    entries = history.start.sinks if history.start else {}
    outputs = {output.name: output for output in plan.outputs}
    found = []
    for name, entry in entries.items():
        if entry.retired:
            continue
        through = max(history.settled, history.through.get(name, EpochNumber(0)), EpochNumber(entry.joined - 1))
        parts = [part for _, seal in history.seals if seal.epoch > through for part in seal.receipts.get(name, ())]
        native = [part for part in parts if part.kind == "native"]
        found.append(
            SinkStatus(
                name,
                outputs[name].label if name in outputs else str(entry.shape["target"]),
                str(entry.shape["guarantee"]),
                entry.joined,
                through,
                sum(part.rows for part in parts),
                history.given_up.get(name, 0),
                len(native),
                tuple(str(part.detail[key]) for part in native for key in ("name", "staged") if key in part.detail),
                _undecided(outputs[name], plan, history, journal) if name in outputs else (),
            )
        )
    return tuple(found)
