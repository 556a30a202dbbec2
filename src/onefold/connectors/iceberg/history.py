"""The history of a table as a reader follows it: which snapshot is next after a position, and what it added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyiceberg.manifest import ManifestContent, ManifestEntryStatus
from pyiceberg.table import FileScanTask
from pyiceberg.table.snapshots import Operation

from onefold.errors import InputLost
from onefold.types import Position, Skip

__all__ = ["Step", "files_of", "next_step"]

_MOST_NAMED = 3


@dataclass(frozen=True)
class Step:
    """What is to be read next: one file of a snapshot, from one row on.

    is_whole: all files of the snapshot are read, not only those that it added. until_file, until_row: where to stop;
    -1: nowhere.
    """

    table: Any
    snapshot: int
    is_whole: bool
    file: int
    row: int
    until_file: int = -1
    until_row: int = 0

    @property
    def done(self) -> Position:
        """The position behind the snapshot."""
        return {"done": self.snapshot}

    def at(self, file: int, row: int) -> Position:
        """A position in the snapshot."""
        place: dict[str, Any] = {"in": self.snapshot, "file": file, "row": row}
        return {**place, "whole": True} if self.is_whole else place


def next_step(table: Any, start: Position, until: Position, label: str) -> Step | None:
    """What follows the position; None: nothing yet. Raises InputLost."""
    place: Mapping[str, Any] = start if isinstance(start, Mapping) else {}
    end: Mapping[str, Any] = until if isinstance(until, Mapping) else {}
    if "in" in place:
        _demand(table, place["in"], place, label)
        found = Step(table, place["in"], bool(place.get("whole")), place["file"], place["row"])
    elif "done" in place:
        following = _after(table, place["done"], label)
        if following is None:
            return None
        found = Step(table, following, False, 0, 0)
    else:
        current = table.metadata.current_snapshot_id
        if current is None:
            return None
        found = Step(table, end.get("in", end.get("done", current)), True, 0, 0)
    if end.get("in") == found.snapshot and bool(end.get("whole")) == found.is_whole:
        is_reached = (found.file, found.row) >= (end["file"], end["row"])
        if is_reached:
            return None
        return Step(table, found.snapshot, found.is_whole, found.file, found.row, end["file"], end["row"])
    return found


def files_of(step: Step) -> list[FileScanTask]:
    """The snapshot's files in the order in which they were added, each with what deletes rows of it."""
    if step.is_whole:
        tasks = step.table.scan(snapshot_id=step.snapshot).plan_files()
        order = _places(step.table, step.snapshot)
        return sorted(tasks, key=lambda task: order[task.file.file_path])
    snapshot = step.table.metadata.snapshot_by_id(step.snapshot)
    found = []
    for manifest in snapshot.manifests(step.table.io):
        if manifest.content != ManifestContent.DATA or manifest.added_snapshot_id != step.snapshot:
            continue
        found += [
            FileScanTask(entry.data_file)
            for entry in manifest.fetch_manifest_entry(step.table.io, discard_deleted=True)
            if entry.status == ManifestEntryStatus.ADDED and entry.snapshot_id == step.snapshot
        ]
    return found


def _places(table: Any, snapshot: int) -> dict[str, tuple[int, int, int]]:
    """path -> (sequence number, manifest, entry): ascending, these are the order of appending."""
    places = {}
    for at, manifest in enumerate(table.metadata.snapshot_by_id(snapshot).manifests(table.io)):
        for number, entry in enumerate(manifest.fetch_manifest_entry(table.io, discard_deleted=True)):
            places[entry.data_file.file_path] = (entry.sequence_number or 0, at, number)
    return places


def _after(table: Any, done: int, label: str) -> int | None:
    """The first snapshot after it that appended, on the way to the current one. Raises InputLost."""
    current = table.metadata.current_snapshot()
    if current is None:
        raise _forgotten(label, done)
    way = []
    while current is not None and current.snapshot_id != done:
        way.append(current)
        parent = current.parent_snapshot_id
        known = None if parent is None else table.metadata.snapshot_by_id(parent)
        if known is None and parent != done:
            raise _lost(label, done, [one.snapshot_id for one in way], parent)
        current = known
    for snapshot in reversed(way):
        operation = snapshot.summary.operation if snapshot.summary else None
        if operation is Operation.REPLACE:
            continue
        if operation is not Operation.APPEND:
            raise _changed(label, snapshot.snapshot_id, operation)
        return int(snapshot.snapshot_id)
    return None


def _demand(table: Any, snapshot: int, place: Mapping[str, Any], label: str) -> None:
    if table.metadata.snapshot_by_id(snapshot) is None:
        raise InputLost(
            f"{label} has forgotten the snapshot that was being read.",
            found=", ".join(str(one.snapshot_id) for one in table.metadata.snapshots[:_MOST_NAMED]) or "no snapshot",
            expected=f"snapshot {snapshot}, from file {place['file']}, row {place['row']}",
            next_step="Restore the table's history, and keep snapshots for longer than the flow is ever down",
            position=dict(place),
            skip=Skip({"done": table.metadata.current_snapshot_id}) if table.metadata.current_snapshot_id else None,
        )


def _forgotten(label: str, done: int) -> InputLost:
    return InputLost(
        f"{label} has no history: it was made anew.",
        found="no snapshot",
        expected=f"snapshot {done}, which was read, or a later one",
        next_step="Restore the table",
        position={"done": done},
        skip=Skip({}),
    )


def _lost(label: str, done: int, way: list[int], parent: int | None) -> InputLost:
    oldest, current = way[-1], way[0]
    gone = f"snapshot {parent} and what was before it" if parent is not None else f"everything between {done} and it"
    return InputLost(
        f"{label} has forgotten snapshots that were not read.",
        found=f"its history goes back to snapshot {oldest}, not to {done}: {gone} is gone",
        expected=f"every snapshot after {done}, up to {current}",
        next_step="Restore the table's history, and keep snapshots for longer than the flow is ever down",
        position={"done": done},
        skip=Skip({"done": current}),
    )


def _changed(label: str, snapshot: int, operation: Operation | None) -> InputLost:
    return InputLost(
        f"{label} was not only appended to: a reader of appended rows cannot tell what snapshot {snapshot} changed.",
        found=f"snapshot {snapshot} is a {operation.value if operation else 'change without a summary'}",
        expected="append, or replace (a compaction)",
        next_step=f"Read the table anew from that snapshot, under another name and with from_snapshot={snapshot}",
        position=snapshot,
        skip=Skip({"done": snapshot}),
    )
