"""Where a files source stands: which segment is open, when it is left, what may not have happened to its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from onefold.connectors.files.admission import Admissions, Left, Place, Segment
from onefold.connectors.files.candidates import Candidates
from onefold.connectors.files.identity import head_of, is_same_file
from onefold.connectors.files.left import KnownFile
from onefold.connectors.files.listing import FileKind, Seen
from onefold.connectors.files.records import Cut, Records
from onefold.errors import InputLost, InvariantBroken, check
from onefold.protocols import Clock, Limit
from onefold.types import Skip

__all__ = ["Cursor"]


class Cursor:
    """Moves over the segments in order, and admits the next file when it has come to the end of the known ones.

    open_records: opens a segment at an offset.
    """

    def __init__(
        self,
        candidates: Candidates,
        admissions: Admissions,
        kind: FileKind,
        clock: Clock,
        open_records: Callable[[Segment, int], Records],
    ) -> None:
        self.place = Place(0)
        self._candidates = candidates
        self._admissions = admissions
        self._kind = kind
        self._clock = clock
        self._open_records = open_records
        self._records: Records | None = None
        self._moved: str | None = None
        """Where the file in hand is now, when it is not where it was admitted."""

    def seek(self, place: Place) -> None:
        """Stand at a place; the file is opened and compared when it is read."""
        self.close()
        check(place.known <= len(self._admissions), "every admission that a position knows is remembered")
        self.place = place
        self._candidates.start_at(place)

    def close(self) -> None:
        """Close the file in hand."""
        if self._records is not None:
            self._records.close()
            self._records = None

    def gather(self, limit: Limit, until: Place | None) -> list[pa.RecordBatch]:
        """Records from here on, across files. Raises InputLost, OSError, SourceError."""
        batches: list[pa.RecordBatch] = []
        rows, size_bytes = limit.rows, limit.size_bytes
        while rows > 0 and size_bytes > 0 and not self.has_reached(until):
            if self._records is None and not self._enter():
                break
            cut = self._take(rows, size_bytes, until)
            if cut is not None:
                rows -= len(cut)
                size_bytes -= cut.size_bytes
                if len(cut):
                    batches.append(_batch(cut, self._segment.path))
            elif not self._leave(until):
                break
        return batches

    def has_reached(self, until: Place | None) -> bool:
        """Whether we stand at or behind a place."""
        return until is not None and (self.place.file, self.place.at) >= (until.file, until.at)

    def is_drained(self) -> bool:
        """Whether, as of the last look, nothing is unread anywhere."""
        return (self._records is None or self._records.unread() == 0) and self._candidates.pending == 0

    # ------------------------------------------------------------------------------------------------ in a segment

    @property
    def _segment(self) -> Segment:
        return self._admissions.segments[self.place.file]

    def _path(self, segment: Segment) -> Path:
        return self._candidates.pattern.base / (self._moved or segment.path)

    def _open(self) -> Records:
        if self._records is None:
            raise InvariantBroken("No file is open.", position=self.place)
        return self._records

    def _take(self, rows: int, size_bytes: int, until: Place | None) -> Cut | None:
        records, file = self._open(), self.place.file
        stops = [self._admissions.stop_of(file), until.at if until is not None and until.file == file else None]
        stop = min((stop for stop in stops if stop is not None), default=None)
        cut = records.take(rows, size_bytes, stop, self._is_finished)
        if cut is not None:
            seen = self._seen_in_hand(self._segment, records) if records.unread() == 0 else None
            modified = seen.modified_seconds if seen is not None and seen.inode == records.inode() else None
            path, is_whole = self._segment.path, self._is_complete(seen)
            self.place = Place(file, records.at, Left(), records.sum(), is_whole, modified, path)
        return cut

    def _is_finished(self) -> bool:
        """Whether nothing more is to come in the file in hand."""
        return self._is_complete(self._seen_in_hand(self._segment, self._open()))

    def _is_complete(self, seen: Seen | None) -> bool:
        completeness = self._candidates.pattern.completeness
        return seen is not None and completeness.is_finished(seen, self._clock.now())

    def _seen(self, segment: Segment) -> Seen | None:
        try:
            stat = self._path(segment).stat()
        except FileNotFoundError:
            return None
        return Seen(self._moved or segment.path, stat.st_size, stat.st_mtime, stat.st_ino)

    # ---------------------------------------------------------------------------------------------------- entering

    def _enter(self) -> bool:
        """Open the segment that we are at, admitting a file for it if need be. False when there is none."""
        while True:
            is_known = self.place.file < len(self._admissions)
            if not is_known and not self._admit():
                return False
            if self._reopen(is_known=is_known):
                return True

    def _admit(self) -> bool:
        seen = self._candidates.take()
        if seen is None:
            return False
        path = self._candidates.pattern.base / seen.path
        try:
            head = head_of(path)
        except FileNotFoundError:  # gone before it was admitted: it never was part of the input
            self._candidates.skip(seen.path, None)
            return self._admit()
        left = self.place.left
        self._admissions.add(
            Segment(
                file=self.place.file,
                path=seen.path,
                start=self._candidates.end_of(seen.path),
                left=left.at,
                head_bytes=head.size_bytes,
                head=head.digest,
                inode=seen.inode,
                left_sum=left.sum,
                left_modified=left.modified,
            )
        )
        return True

    def _reopen(self, *, is_known: bool) -> bool:
        """Open the segment here, under its file's present name. False when it was wholly read, and is gone now."""
        segment, place = self._segment, self.place
        at = place.at if place.is_begun else segment.start
        self._moved = self._new_name(segment, at) if is_known else None
        wrong = self._open_at(segment, at, is_known=is_known)
        if wrong is not None and self._moved is not None:
            self._moved = None
            wrong = self._open_at(segment, at, is_known=is_known)
        if wrong is not None:
            return self._refuse(wrong, at)
        self._candidates.hold(self._moved or segment.path, self._open().inode(), segment)
        return True

    def _open_at(self, segment: Segment, at: int, *, is_known: bool) -> str | None:
        """Open the file where it is; or what is wrong with it."""
        seen = self._seen(segment)
        if seen is None:
            return "vanished"
        if is_known and not is_same_file(self._path(segment), segment):
            return "was replaced"
        if self._kind.may_grow(segment.path) and seen.size < at:
            return f"shrank to {seen.size} bytes"
        self._records = self._open_records(replace(segment, path=seen.path), at)
        if self.place.is_begun and self._records.sum() != self.place.sum:
            self.close()
            return "was rewritten"
        return None

    def _new_name(self, segment: Segment, at: int) -> str | None:
        """The path of the segment's file, if it was renamed since it was admitted."""
        here = self._seen(segment)
        if segment.inode is None or (here is not None and here.inode == segment.inode):
            return None
        seen = self._candidates.elsewhere(segment.inode)
        if seen is None:
            return None
        known = KnownFile(segment, Left(at, self.place.sum, self.place.modified), segment.path)
        may_grow = self._kind.may_grow(seen.path)
        return seen.path if known.may_be(seen, self._candidates.pattern.base / seen.path, may_grow=may_grow) else None

    def _refuse(self, what: str, at: int) -> bool:
        """The file is not what it was. That is no loss if it was finished and wholly read."""
        segment = self._segment
        if not self.place.is_whole:
            raise self._lost(segment, what, at)
        if what != "vanished":
            self._candidates.overlook(segment.path)
        left = Left(at, self.place.sum, self.place.modified)
        self._candidates.leave(segment, left, path=segment.path, unread=0)
        self.place = Place(self.place.file + 1, left=left)
        return False

    # ----------------------------------------------------------------------------------------------------- leaving

    def _leave(self, until: Place | None) -> bool:
        """Nothing whole is left here: move on if that is right. False when there is nothing to do but to wait."""
        records, segment = self._open(), self._segment
        stop = self._admissions.stop_of(self.place.file)
        if stop is not None and records.at >= stop:
            return self._move_on(records)
        if until is not None and until.file == self.place.file:
            return False
        if stop is not None:
            raise self._lost(segment, f"ends before {stop}", records.at)
        seen, unread = self._seen_in_hand(segment, records), records.unread()
        if unread < 0:
            raise self._lost(segment, "shrank", records.at)
        if seen is None or seen.inode != records.inode():
            if unread:
                raise self._lost(segment, "vanished" if seen is None else "was replaced", records.at)
            return self._reenter()
        if unread == 0 and not self._kind.may_grow(segment.path):
            return self._move_on(records)
        if not self._candidates.has_next():
            return False
        return self._move_on(records) if self.place.is_begun else self._turn_away(seen)

    def _move_on(self, records: Records) -> bool:
        segment, unread = self._segment, records.unread()
        left = Left(records.at, records.sum(), self.place.modified if unread == 0 else None)
        self._candidates.leave(segment, left, path=self._moved or segment.path, unread=unread)
        self.place = Place(self.place.file + 1, left=left)
        self.close()
        return True

    def _seen_in_hand(self, segment: Segment, records: Records) -> Seen | None:
        """The open file where it is now: it may have been renamed since it was opened."""
        seen = self._seen(segment)
        if seen is not None and seen.inode == records.inode():
            return seen
        renamed = self._candidates.elsewhere(records.inode())
        if renamed is None:
            return seen
        self._moved = renamed.path
        self._candidates.hold(renamed.path, renamed.inode, segment)
        return renamed

    def _turn_away(self, seen: Seen) -> bool:
        """Nothing of it was read, so it need not be admitted now."""
        self._candidates.skip(seen.path, seen.size)
        self._admissions.drop_last()
        self.close()
        return True

    def _reenter(self) -> bool:
        """All of the open file was read, but its path names another file or none: look at that one."""
        if self.place.is_begun:
            self.place = replace(self.place, is_whole=True)
        else:
            self._candidates.skip(self._moved or self._segment.path, None)
            self._admissions.drop_last()
        self.close()
        return True

    def _lost(self, segment: Segment, what: str, at: int) -> InputLost:
        unit = "row" if self._kind.layout == "parquet" else "byte"
        return InputLost(
            f"The file {self._path(segment)} {what} before it was read to its end.",
            expected=f"the file as it was, from {unit} {at} on",
            next_step="Put the file back as it was",
            skip=self._skip(at),
            file=self._path(segment),
            position=f"{unit} {at}",
        )

    def _skip(self, at: int) -> Skip | None:
        """To the next file; another file in the place of this one is not read, as one that was rewritten is not."""
        if not self.place.is_begun or self.place.file + 1 < len(self._admissions):
            return None
        return Skip(Place(self.place.file + 1, left=Left(at)).position())


def _batch(cut: Cut, path: str) -> pa.RecordBatch:
    indices = pa.array(np.zeros(len(cut), np.int32))
    files = pa.DictionaryArray.from_arrays(indices, pa.array([path]))
    names = [*cut.columns, "_file", "_offset"]
    return pa.RecordBatch.from_arrays([*cut.columns.values(), files, cut.offsets], names)
