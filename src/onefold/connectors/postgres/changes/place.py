"""Where the reading of changes goes on: a place in the log, and in the first reading of the tables.

Source: PostgreSQL's documentation, chapters Logical Decoding Concepts and WAL Internals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onefold.errors import check
from onefold.types import Position

__all__ = ["Place", "lsn_number", "lsn_text"]


def lsn_number(text: str) -> int:
    """A place in the write-ahead log as a number of bytes: "16/B374D848" and so on."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(number: int) -> str:
    """The inverse of `lsn_number`."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


@dataclass(frozen=True)
class Place:
    """What is read next.

    Args:
        begin: how often input was given up: 0, or the LSN of the last loss that was accepted. It names a beginning.
        lsn: every transaction whose commit record starts below it is done; None: nothing is, and reading begins where
            the slot does.
        commit, done: so many rows are done of the next transaction, the one with this commit record; 0, 0: none.
        table, after: the tables are still being read for the first time: this one, behind the row with this key (as
            text; None: from its first row). table None: that is done, or was not asked for.
        system, timeline: the history that lsn is a place in.
    """

    begin: int = 0
    lsn: int | None = None
    commit: int = 0
    done: int = 0
    table: str | None = None
    after: tuple[str, ...] | None = None
    system: str = ""
    timeline: int = 0

    @staticmethod
    def of(position: Position) -> Place:
        """The inverse of `position`."""
        check(isinstance(position, Mapping), "a position of changes is an object", found=position)
        found: Any = position
        lsn, after = found.get("lsn"), found.get("after")
        return Place(
            begin=int(found.get("begin", 0)),
            lsn=None if lsn is None else lsn_number(lsn),
            commit=lsn_number(found["commit"]) if "commit" in found else 0,
            done=int(found.get("done", 0)),
            table=found.get("table"),
            after=None if after is None else tuple(after),
            system=str(found.get("system", "")),
            timeline=int(found.get("timeline", 0)),
        )

    def position(self) -> Position:
        """As it stands in the journal."""
        found: dict[str, Any] = {"begin": self.begin} if self.begin else {}
        if self.lsn is None:
            return found
        found |= {"system": self.system, "timeline": self.timeline, "lsn": lsn_text(self.lsn)}
        if self.commit:
            found |= {"commit": lsn_text(self.commit), "done": self.done}
        if self.table is not None:
            found["table"] = self.table
        if self.after is not None:
            found["after"] = list(self.after)
        return found

    def shares_history(self, other: Place) -> bool:
        """Whether both are places in one log, of one beginning."""
        mine, theirs = ((each.begin, each.system, each.timeline) for each in (self, other))
        return mine == theirs

    def reaches(self, end: Place) -> bool:
        """Whether no change before `end` is left to read."""
        if end.lsn is None:
            return True
        if self.lsn is None:
            return False
        if not end.commit:
            return (self.commit or self.lsn) >= end.lsn
        return (self.commit, self.done) >= (end.commit, end.done) if self.commit else self.lsn > end.commit
