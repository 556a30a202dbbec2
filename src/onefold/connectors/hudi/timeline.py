"""What a reader follows in a Hudi table: which completed instant is next, and which files it wrote.

Instants are followed in the order in which they were requested, and never past one that is under way: it may complete
later, and a reader that had gone on would not come back for it.
Source: Apache Hudi's documentation, page Timeline; hudi-rs 0.5, HudiTimeline.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from onefold.connectors.hudi.naming import META, is_of_rows
from onefold.connectors.hudi.place import Place
from onefold.errors import InputLost
from onefold.types import Position, Skip

__all__ = ["History", "Step", "pending", "step_after"]

_WRITING = frozenset({"commit", "deltacommit", "replacecommit", "clustering"})
_REWRITES = frozenset({"CLUSTER", "COMPACT"})
"""Operations that move rows to other files and change none."""


@dataclass(frozen=True)
class Step:
    """One instant of which something is to be read: its files from one on, and in that the rows from one on.

    is_whole: all rows of the table as it was then are read, not only what the instant wrote.
    """

    instant: str
    is_whole: bool = False
    file: int = 0
    row: int = 0

    @property
    def done(self) -> Position:
        """The position behind it."""
        return {"done": self.instant}

    def at(self, file: int, row: int) -> Position:
        """A position in it."""
        place: dict[str, Any] = {"in": self.instant, "file": file, "row": row}
        return {**place, "whole": True} if self.is_whole else place


class _Group(NamedTuple):
    """Files that follow each other."""

    partition: str
    name: str


class History:
    """The completed instants of a table, as hudi-rs finds them."""

    def __init__(self, table: Any, place: Place, label: str) -> None:
        timeline = table.get_timeline()
        found = [*timeline.get_completed_commits(), *timeline.get_completed_replacecommits()]
        completed = {str(one.timestamp): one for one in found}
        under_way = pending(place, completed)
        self._place = place
        self._instants = {name: one for name, one in completed.items() if under_way is None or name < under_way}
        self._timeline = timeline
        self._label = label
        self.names = sorted(self._instants)

    @property
    def newest(self) -> str | None:
        """None: nothing was written yet."""
        return self.names[-1] if self.names else None

    def after(self, done: str) -> str | None:
        """The first instant behind it that wrote rows. Raises InputLost."""
        self.demand(done)
        for name in self.names:
            if name > done and not self._is_rewrite(name):
                return name
        return None

    def demand(self, instant: str) -> None:
        """Raises InputLost unless the timeline still holds it: what came after may be archived with it."""
        if instant in self._instants:
            return
        raise InputLost(
            f"{self._label} no longer tells what was written after an instant.",
            found=f"instants from {self.names[0]} on" if self.names else "no instants",
            expected=f"instant {instant}",
            next_step="Restore the table, or have its writer keep more commits (hoodie.keep.min.commits)",
            skip=Skip({"done": self.newest}) if self.newest else None,
        )

    def files(self, instant: str) -> list[str]:
        """What it wrote, below the table's folder, in one order. Raises InputLost where it took rows back."""
        told, stats = self._told(instant), self._stats(instant)
        if _replaced(told) or any(one["numDeletes"] for one in stats):
            raise InputLost(
                f"{self._label} took rows back, which a reader of what is written does not see.",
                found=f"instant {instant}, {told.get('operationType')}",
                expected="inserts and updates",
                next_step="Read a table whose rows are only added and updated",
                skip=Skip({"done": instant}),
            )
        return sorted(str(one["path"]) for one in stats if one["path"])

    def all_files(self, instant: str) -> list[str]:
        """Those that held the table's rows when this instant was its newest. Raises InputLost where one is gone."""
        held = self._on_disk(instant)
        wanted: dict[_Group, str] = {}
        for name in self.names:
            for one in self._stats(name):
                group = _Group(one["partitionPath"], one["fileId"])
                if name <= instant and one["path"]:
                    wanted[group] = one["path"]
                elif name > instant and one["prevCommit"] not in ("null", None) and one["prevCommit"] <= instant:
                    wanted.setdefault(group, "")  # it had a file then, whose commit may be archived
            if name <= instant:
                for group in _replaced(self._told(name)):
                    wanted.pop(group, None)
                    held.pop(group, None)
        for group, path in wanted.items():
            if group not in held or path not in ("", held[group]):
                raise InputLost(
                    f"A file of {self._label} is gone before its rows were read.",
                    found=f"no file {path or group}",
                    next_step="Restore it, or have the table's writer keep more (hoodie.cleaner.commits.retained)",
                )
        return sorted(held.values())

    def _on_disk(self, instant: str) -> dict[_Group, str]:
        """The newest file of each group that is not newer than the instant, of instants that have completed."""
        found: dict[_Group, tuple[str, str]] = {}
        for name in self._place.names():
            match = is_of_rows(name)
            if match is None or match["instant"] > instant:
                continue
            if match["instant"] not in self._instants and (not self.names or match["instant"] >= self.names[0]):
                continue
            group = _Group(name.rpartition("/")[0], match["group"])
            found[group] = max(found.get(group, ("", "")), (match["instant"], name))
        return {group: path for group, (_, path) in found.items()}

    def _stats(self, instant: str) -> list[dict[str, Any]]:
        return [one for part in self._told(instant)["partitionToWriteStats"].values() for one in part]

    def _is_rewrite(self, instant: str) -> bool:
        return str(self._told(instant).get("operationType")) in _REWRITES

    def _told(self, instant: str) -> Mapping[str, Any]:
        told: Mapping[str, Any] = json.loads(self._timeline.get_instant_metadata_in_json(self._instants[instant]))
        return told


def _replaced(told: Mapping[str, Any]) -> list[_Group]:
    parts = told.get("partitionToReplaceFileIds") or {}
    return [_Group(part, name) for part, names in parts.items() for name in names]


def pending(place: Place, completed: Container[str]) -> str | None:
    """The oldest instant that writes, was requested, and is not among the completed, which were looked at before.

    What is older than a completed one was requested before it, and its request stays where it is when it completes: so
    none is missed that completes while we look.
    """
    requested = set()
    for name in place.names(f"{META}/timeline") or place.names(META):
        *folders, file = name.split("/")
        if folders not in ([META, "timeline"], [META]):  # up to table version 6 there is no such folder
            continue
        instant, _, rest = file.partition(".")
        if instant.isdigit() and (rest == "inflight" or rest.partition(".")[0] in _WRITING):
            requested.add(instant)
    return min((instant for instant in requested if instant not in completed), default=None)


def step_after(history: History, start: Position, until: Position) -> Step | None:
    """What follows the position; None: nothing yet. Raises InputLost."""
    place: Mapping[str, Any] = start if isinstance(start, Mapping) else {}
    end: Mapping[str, Any] = until if isinstance(until, Mapping) else {}
    if "in" in place:
        history.demand(place["in"])
        return Step(place["in"], bool(place.get("whole")), place["file"], place["row"])
    if "done" in place:
        following = history.after(place["done"])
        last = end.get("done", end.get("in"))
        return None if following is None or (last is not None and following > last) else Step(following)
    whole = end.get("done", history.newest)
    return None if whole is None or not history.all_files(whole) else Step(whole, is_whole=True)
