"""Which file comes next: new ones, and files left earlier that have grown since."""

from __future__ import annotations

import logging
from collections import deque

from onefold.connectors.files.admission import Admissions, Place
from onefold.connectors.files.identity import is_same_file
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
        self._kind = kind
        self._admissions = admissions
        self._clock = clock
        self._queue: deque[Seen] = deque()
        self._ends: dict[str, int] = {}
        self._left_at: dict[str, float] = {}
        self._stalled: dict[str, int] = {}
        self._current: str | None = None
        self._warned: set[str] = set()

    def start_at(self, place: Place) -> None:
        """Forget what was listed; know again where every file was left as of a place."""
        self._queue.clear()
        self._stalled.clear()
        self._ends = self._admissions.ends_before(place)
        self._current = self._admissions.segments[place.file].path if place.is_begun else None

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
        self._current = seen.path
        return seen

    def hold(self, path: str) -> None:
        """This file is in hand."""
        self._current = path

    def end_of(self, path: str) -> int:
        """Where the file was left; 0 for a new one."""
        return self._ends.get(path, 0)

    def leave(self, path: str, end: int, unread: int) -> None:
        """The file in hand was read up to `end`; unread bytes after it are no whole record yet."""
        self._ends[path] = end
        self._left_at[path] = self._clock.monotonic()
        self.skip(path, end + unread if unread else None)

    def skip(self, path: str, size: int | None) -> None:
        """The file in hand is no longer; at this size it has no whole record beyond what was read."""
        self._current = None
        if size is not None:
            self._stalled[path] = size

    def warn_once(self, path: str) -> None:
        """Name a file that is no longer what was read. It is not read again."""
        if path not in self._warned:
            self._warned.add(path)
            _log.warning("file %s was rewritten after it was read; it is not read again", self.pattern.base / path)

    def _list(self) -> None:
        began = self._clock.monotonic()
        now = self._clock.now()
        self.pending = 0
        for seen in self.pattern.seen():
            if seen.path != self._current and self._has_more(seen):
                if self._is_ready(seen, now):
                    self._queue.append(seen)
                else:
                    self.pending += 1
        self.listing_seconds = self._clock.monotonic() - began

    def _has_more(self, seen: Seen) -> bool:
        end = self._ends.get(seen.path)
        if end is None:
            return seen.size > 0
        if not self._kind.may_grow(seen.path) or seen.size == end:
            return False
        if seen.size < end or not is_same_file(self.pattern.base / seen.path, self._admissions.last_of(seen.path)):
            self.warn_once(seen.path)
            return False
        return True

    def _is_ready(self, seen: Seen, now: float) -> bool:
        if self.pattern.completeness.is_finished(seen, now):
            return True
        if not self._kind.may_grow(seen.path) or self._stalled.get(seen.path) == seen.size:
            return False
        end = self._ends.get(seen.path)
        if end is None:
            return True
        waited = self._clock.monotonic() - self._left_at.get(seen.path, 0.0)
        return seen.size - end >= REJOIN_BYTES or waited >= REJOIN_SECONDS
