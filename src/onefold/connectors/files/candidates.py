"""Which file comes next: new ones, and files left earlier that have grown since, under whatever name."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping

from onefold.connectors.files.admission import Admissions, Left, Place, Segment
from onefold.connectors.files.identity import is_same_file
from onefold.connectors.files.left import KnownFile, LeftFiles
from onefold.connectors.files.listing import FileKind, Pattern, Seen
from onefold.protocols import Clock

__all__ = ["Candidates"]

REJOIN_BYTES = 1 << 20
REJOIN_SECONDS = 5.0
"""A file that was left and grows is taken up again when it is finished, has grown by so much, or has waited so long:
every admission is a row to remember for ever."""

_log = logging.getLogger("onefold")


class Candidates:
    """Files with unread bytes, in name order within a listing. Knows where each file was left."""

    def __init__(self, pattern: Pattern, kind: FileKind, admissions: Admissions, clock: Clock) -> None:
        self.pattern = pattern
        self.listing_seconds = 0.0
        self.pending = 0
        """Files of the last listing that have unread bytes but may not be read yet."""
        self.remarks: dict[str, str] = {}
        """By path, what a person should know: that a file is not read, or may be read twice."""
        self._kind = kind
        self._admissions = admissions
        self._clock = clock
        self._queue: deque[Seen] = deque()
        self._left = LeftFiles()
        self._left_at: dict[str, float] = {}
        self._stalled: dict[str, int] = {}
        self._current: tuple[str, int | None] | None = None

    def start_at(self, place: Place) -> None:
        """Forget what was listed; know again where every file was left as of a place."""
        self._queue.clear()
        self._stalled.clear()
        self._left = LeftFiles(self._admissions.left_before(place))
        segment = self._admissions.segments[place.file] if place.is_begun else None
        self._current = (segment.path, segment.inode) if segment is not None else None

    def has_next(self) -> bool:
        """Whether another file than the one in hand can be read now; lists when none was listed before."""
        if not self._queue:
            self._list()
        return bool(self._queue)

    def take(self) -> Seen | None:
        """The next file, now in hand; None when there is none."""
        if not self.has_next():
            return None
        seen = self._queue.popleft()
        self._current = (seen.path, seen.inode)
        return seen

    def hold(self, path: str, inode: int, segment: Segment) -> None:
        """The file of this segment is in hand, at this path."""
        self._current = (path, inode)
        self._left.goes_on(segment, inode, path)

    def end_of(self, path: str) -> int:
        """Where the file was left; 0 for a new one."""
        known = self._left.at(path)
        return known.left.at if known is not None else 0

    def elsewhere(self, inode: int) -> Seen | None:
        """The file with this inode, if the pattern still finds it."""
        return next((seen for seen in self.pattern.seen() if seen.inode == inode), None)

    def leave(self, segment: Segment, left: Left, *, path: str, unread: int) -> None:
        """The file in hand, now at `path`, was left so; unread bytes after that are no whole record yet."""
        self._left.put(segment, left, path)
        self._left_at[path] = self._clock.monotonic()
        self.skip(path, left.at + unread if unread else None)

    def skip(self, path: str, size: int | None) -> None:
        """The file in hand is no longer; at this size it has no whole record beyond what was read."""
        self._current = None
        if size is not None:
            self._stalled[path] = size

    def overlook(self, path: str) -> None:
        """Name a file that is no longer what was read. It is not read again."""
        self._remark(
            path,
            "was rewritten or replaced after it was read; it is not read again. If its rows are new: rename it to a "
            "name that the pattern finds, and it is read as a new file",
        )

    def _remark(self, path: str, what: str) -> None:
        if path not in self.remarks:
            self.remarks[path] = f"file {self.pattern.base / path} {what}"
            _log.warning("%s", self.remarks[path])

    def _list(self) -> None:
        began = self._clock.monotonic()
        now = self._clock.now()
        self.pending = 0
        listed = self.pattern.seen()
        paths = {seen.path for seen in listed}
        self.remarks = {path: what for path, what in self.remarks.items() if path in paths}
        for seen in self._named_once(listed):
            if self._has_more(seen):
                if self._is_ready(seen, now):
                    self._queue.append(seen)
                else:
                    self.pending += 1
        self.listing_seconds = self._clock.monotonic() - began

    def _named_once(self, listed: list[Seen]) -> list[Seen]:
        """The files but for the one in hand, each under one name. Renamed ones are followed first."""
        inodes = {seen.path: seen.inode for seen in listed}
        others = []
        for seen in listed:
            known = self._left.with_inode(seen.inode)
            if self._current is not None and (seen.path == self._current[0] or seen.inode == self._current[1]):
                continue
            if known is not None and known.path != seen.path:
                if inodes.get(known.path) == seen.inode:  # a second name of a file that stands in the list itself
                    continue
                if known.may_be(seen, self.pattern.base / seen.path, may_grow=self._kind.may_grow(seen.path)):
                    _log.info("file %s was renamed: it was %s", self.pattern.base / seen.path, known.path)
                    self._left.move(seen.inode, seen.path)
            others.append(seen)
        self._doubt_copies([seen for seen in others if self._left.at(seen.path) is None], inodes)
        return others

    def _doubt_copies(self, fresh: list[Seen], inodes: Mapping[str, int]) -> None:
        """Name new files that begin with just what was read of one that is gone: they may be copies of it."""
        by_size = self._left.by_size() if fresh else {}
        for seen in fresh:
            known = by_size.get(seen.size)
            if known is None or not seen.size or not self._kind.may_grow(seen.path):
                continue
            is_gone = known.path not in inodes or not is_same_file(self.pattern.base / known.path, known.segment)
            if is_gone and is_same_file(self.pattern.base / seen.path, known.segment):
                self._remark(
                    seen.path,
                    f"has the size and the beginning of {known.path}, which was read; it is read "
                    "as a new file, so if it is a copy of that, its rows are there twice",
                )

    def _has_more(self, seen: Seen) -> bool:
        known = self._left.at(seen.path)
        if known is None:
            return seen.size > 0
        if not self._kind.may_grow(seen.path):
            return False
        if self._is_untouched(seen, known):
            return False
        if seen.size < known.left.at or not known.is_intact(self.pattern.base / seen.path, may_grow=True):
            self.overlook(seen.path)
            return False
        return seen.size > known.left.at

    def _is_untouched(self, seen: Seen, known: KnownFile) -> bool:
        return seen.size == known.left.at and known.left.modified in (None, seen.modified_seconds)

    def _is_ready(self, seen: Seen, now: float) -> bool:
        if self.pattern.completeness.is_finished(seen, now):
            return True
        if not self._kind.may_grow(seen.path) or self._stalled.get(seen.path) == seen.size:
            return False
        known = self._left.at(seen.path)
        if known is None:
            return True
        waited = self._clock.monotonic() - self._left_at.get(seen.path, 0.0)
        return seen.size - known.left.at >= REJOIN_BYTES or waited >= REJOIN_SECONDS
