"""The order in which files were admitted: the memory of a files source, and what its positions mean.

Each admission is a segment of one file: from where reading of it was left off (0 at first) to wherever it is left next.
A file that grows after it was left is admitted again, so that nothing appended to it is lost.

A position is one of
    {"file": i, "at": 0, "left": e, "left_sum": s, "left_modified": m}
        segment i is not begun; segment i-1 was left at offset e, after bytes with the digest s; m as below
    {"path": p, "file": i, "at": n, "sum": s, "whole": w, "modified": m}
        the next record of segment i, which is at path p, is at offset n; s is a digest of the bytes before n; w: the
        file was finished and ends at n; m: when the file was modified last, if it ended at n when it was looked at
so the segments that a position knows are the first i, and i itself when it has a "sum".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.types import Position

__all__ = ["MEMORY", "Admissions", "Left", "Place", "Segment"]

MEMORY = pa.schema(
    [
        pa.field("file", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("left", pa.int64(), nullable=False),
        pa.field("head_bytes", pa.int64(), nullable=False),
        pa.field("head", pa.string(), nullable=False),
        pa.field("inode", pa.uint64()),
        pa.field("left_sum", pa.string()),
        pa.field("left_modified", pa.float64()),
    ]
)
"""file: index of the segment. start: its first offset. left: where the segment before it was left; left_sum and
left_modified belong to that. head: digest of the file's first head_bytes when it was admitted. inode: its inode then.
The last three are NULL in rows of versions that did not follow renamed files."""


@dataclass(frozen=True)
class Segment:
    """A row of the memory; see MEMORY."""

    file: int
    path: str
    start: int
    left: int
    head_bytes: int
    head: str
    inode: int | None = None
    left_sum: str | None = None
    left_modified: float | None = None

    @property
    def before(self) -> Left:
        """How the segment before this one was left."""
        return Left(self.left, self.left_sum, self.left_modified)


@dataclass(frozen=True)
class Left:
    """How a segment was left: the offset, the digest of the bytes before it, and when the file was modified last.

    modified: None unless the file ended there.
    """

    at: int = 0
    sum: str | None = None
    modified: float | None = None


@dataclass(frozen=True)
class Place:
    """A position, taken apart. left: of a place that is not begun. sum is None exactly when it is not begun."""

    file: int
    at: int = 0
    left: Left = Left()
    sum: str | None = None
    is_whole: bool = False
    modified: float | None = None
    path: str = ""

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
            left = self.left
            return {"file": self.file, "at": 0, "left": left.at, "left_sum": left.sum, "left_modified": left.modified}
        return {
            "path": self.path,
            "file": self.file,
            "at": self.at,
            "sum": self.sum,
            "whole": self.is_whole,
            "modified": self.modified,
        }

    @staticmethod
    def of(position: Position) -> Place:
        """The inverse; None is the beginning."""
        if not isinstance(position, Mapping):
            return Place(0)
        body: Mapping[str, Any] = position
        left = Left(body.get("left", 0), body.get("left_sum"), body.get("left_modified"))
        whole, modified = bool(body.get("whole", False)), body.get("modified")
        return Place(body["file"], body["at"], left, body.get("sum"), whole, modified, body.get("path", ""))


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

    def left_before(self, place: Place) -> Iterator[tuple[Segment, Left]]:
        """How each segment before a place was left, in order: what lies beyond is unread."""
        before = self.segments[: place.file]
        for segment, following in zip(before, self.segments[1 : place.file], strict=False):
            yield segment, following.before
        if before:
            yield before[-1], self.segments[place.file].before if place.is_begun else place.left

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
