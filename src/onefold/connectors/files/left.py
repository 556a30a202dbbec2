"""Files that were left, by the paths that they have now: a file is followed when it is renamed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onefold.connectors.files.admission import Left, Segment
from onefold.connectors.files.identity import is_same_file, tail_sum
from onefold.connectors.files.listing import Seen

__all__ = ["KnownFile", "LeftFiles"]


@dataclass(frozen=True)
class KnownFile:
    """A file that was left. segment: the newest of it. path: where it is now, as far as we know."""

    segment: Segment
    left: Left
    path: str

    def may_be(self, seen: Seen, path: Path, *, may_grow: bool) -> bool:
        """Whether a file with its inode is this file, and not a later one that was given the same number.

        One that did not grow must have its modification time too: a file that was removed may be followed by one with
        the same bytes. Raises OSError.
        """
        if may_grow and seen.size < self.left.at:
            return False
        has_grown = may_grow and seen.size > self.left.at
        if not has_grown and self.left.modified not in (None, seen.modified_seconds):
            return False
        return self.is_intact(path, may_grow=may_grow)

    def is_intact(self, path: Path, *, may_grow: bool) -> bool:
        """Whether a file that is long enough begins and goes on as it did when it was read. Raises OSError."""
        if not is_same_file(path, self.segment):
            return False
        return not may_grow or self.left.sum is None or tail_sum(path, self.left.at) == self.left.sum


class LeftFiles:
    """By path and by inode."""

    def __init__(self, left: Iterable[tuple[Segment, Left]] = ()) -> None:
        """left: in the order of the segments."""
        self._by_path: dict[str, KnownFile] = {}
        self._by_inode: dict[int, KnownFile] = {}
        for segment, how in left:
            self.put(segment, how, segment.path)

    def at(self, path: str) -> KnownFile | None:
        """The file that was left at a path, unless it is known to be elsewhere now."""
        return self._by_path.get(path)

    def with_inode(self, inode: int) -> KnownFile | None:
        """The file that had this inode."""
        return self._by_inode.get(inode)

    def put(self, segment: Segment, left: Left, path: str) -> None:
        """A segment was left; its file is at `path`, and no longer where it was before.

        Another file may have the number of one that was replaced by a copy: that one stays known by its path.
        """
        known = KnownFile(segment, left, path)
        if segment.inode is not None:
            before = self._by_inode.get(segment.inode)
            if before is not None and _goes_on(segment, before) and self._by_path.get(before.path) is before:
                del self._by_path[before.path]
            self._by_inode[segment.inode] = known
        self._by_path[path] = known

    def goes_on(self, segment: Segment, inode: int, path: str) -> None:
        """The file of this segment is at `path`, with this inode. Where it was left before, it is no longer."""
        known = self._by_inode.get(inode)
        if known is not None and _goes_on(segment, known):
            self.move(inode, path)

    def move(self, inode: int, path: str) -> None:
        """The file with this inode is at `path` now, and its former path is free."""
        known = self._by_inode.get(inode)
        if known is not None and known.path != path:
            self.put(known.segment, known.left, path)

    def by_size(self) -> dict[int, KnownFile]:
        """A file for each offset at which one was left."""
        return {known.left.at: known for known in self._by_path.values()}


def _goes_on(segment: Segment, before: KnownFile) -> bool:
    """Whether it is of the same file: a later segment begins where the file was left, that of a new file at 0."""
    return segment == before.segment or segment.start == before.left.at > 0
