"""The order in which files were admitted: the memory of a files source, and what its positions mean.

Each admission is a segment of one file: from where reading of it was left off (0 at first) to wherever it is left next.
A file that grows after it was left is admitted again, so that nothing appended to it is lost.

A position is one of
    {"file": i, "at": 0, "left": e}             segment i is not begun; segment i-1 was left at offset e
    {"file": i, "at": n, "sum": s, "whole": w}  the next record of segment i is at offset n; s is a digest of the bytes
                                                before n; w: the file was finished and ends at n
so the segments that a position knows are the first i, and i itself when it has a "sum".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.types import Position

__all__ = ["MEMORY", "Admissions", "Place", "Segment"]

MEMORY = pa.schema(
    [
        pa.field("file", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("left", pa.int64(), nullable=False),
        pa.field("head_bytes", pa.int64(), nullable=False),
        pa.field("head", pa.string(), nullable=False),
    ]
)
"""file: index of the segment. start: its first offset. left: where the segment before it was left. head: digest of the
file's first head_bytes when it was admitted."""


@dataclass(frozen=True)
class Segment:
    """A row of the memory; see MEMORY."""

    file: int
    path: str
    start: int
    left: int
    head_bytes: int
    head: str


@dataclass(frozen=True)
class Place:
    """A position, taken apart. left: of a place that is not begun. sum is None exactly when it is not begun."""

    file: int
    at: int = 0
    left: int = 0
    sum: str | None = None
    is_whole: bool = False

    @property
    def is_begun(self) -> bool:
        """Whether something of segment `file` was read."""
        return self.sum is not None

    @property
    def known(self) -> int:
        """How many segments the position knows."""
        return self.file + (1 if self.is_begun else 0)

    def position(self) -> Position:
        """As the engine keeps it."""
        if self.sum is None:
            return {"file": self.file, "at": 0, "left": self.left}
        return {"file": self.file, "at": self.at, "sum": self.sum, "whole": self.is_whole}

    @staticmethod
    def of(position: Position) -> Place:
        """The inverse; None is the beginning."""
        if not isinstance(position, Mapping):
            return Place(0)
        body: Mapping[str, Any] = position
        return Place(body["file"], body["at"], body.get("left", 0), body.get("sum"), bool(body.get("whole", False)))


class Admissions:
    """The segments of one source: those remembered, then those of this process that are not sealed yet."""

    def __init__(self, remembered: pa.Table | None) -> None:
        rows = [] if remembered is None else remembered.select(MEMORY.names).to_pylist()
        self.segments = [Segment(**row) for row in sorted(rows, key=lambda row: row["file"])]

    def __len__(self) -> int:
        return len(self.segments)

    def stop_of(self, file: int) -> int | None:
        """Where segment `file` ends, once the next one is admitted; None while it is open."""
        return self.segments[file + 1].left if file + 1 < len(self.segments) else None

    def ends_before(self, place: Place) -> dict[str, int]:
        """Where each file was left, as of a place: what lies beyond is unread."""
        ends: dict[str, int] = {}
        before = self.segments[: place.file]
        for segment, following in zip(before, self.segments[1 : place.file], strict=False):
            ends[segment.path] = following.left
        if before:
            following_left = self.segments[place.file].left if place.is_begun else place.left
            ends[before[-1].path] = following_left
        return ends

    def last_of(self, path: str) -> Segment:
        """The newest segment of a file that was admitted."""
        return next(segment for segment in reversed(self.segments) if segment.path == path)

    def add(self, segment: Segment) -> None:
        """Admit the next one."""
        self.segments.append(segment)

    def drop_last(self) -> None:
        """Forget the last one, of which nothing was read."""
        self.segments.pop()

    def rows(self, known: int, reached: int) -> pa.RecordBatch | None:
        """What a read from a place that knows `known` segments to one that knows `reached` adds to the memory."""
        fresh = self.segments[known:reached]
        return _batch(fresh) if fresh else None


def _batch(segments: Iterable[Segment]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([vars(segment) for segment in segments], MEMORY)
