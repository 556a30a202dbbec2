"""Event time: late flags, set once, where rows are read, in position order; and the watermark that follows from it.

A row is late when its event time is more than `lateness` behind the largest before it in its own partition. So what is
late does not depend on how epochs are cut. A timestamp more than `max_ahead` above that maximum does not move it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["LateGate", "Verdict", "micros_of"]

Micros = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Verdict:
    """Per row: is_late, is_ahead (too far in the future), is_missing (no event time). largest: the new maximum."""

    is_late: Mask
    is_ahead: Mask
    is_missing: Mask
    largest: int | None

    @property
    def is_clean(self) -> bool:
        """Whether every row stays."""
        return not (self.is_late.any() or self.is_ahead.any() or self.is_missing.any())


class LateGate:
    """Judges the rows of one partition. largest: the greatest event time before them, microseconds, or None."""

    def __init__(self, lateness_micros: int, max_ahead_micros: int | None) -> None:
        self.lateness_micros = lateness_micros
        self.max_ahead_micros = max_ahead_micros

    def judge(self, times: Micros, is_missing: Mask, largest: int | None) -> Verdict:
        """times: event times in position order (any value where missing)."""
        start = _NEVER if largest is None else largest
        is_ahead = np.zeros(len(times), dtype=np.bool_)
        counted = np.where(is_missing, _NEVER, times)
        if self.max_ahead_micros is not None:
            is_ahead = self._find_ahead(counted, start)
            counted[is_ahead] = _NEVER
        reached = np.maximum.accumulate(np.concatenate((np.array([start], dtype=np.int64), counted)))
        before = reached[:-1]
        known = before != _NEVER
        is_late = known & ~is_missing & ~is_ahead & (times < before - np.where(known, self.lateness_micros, 0))
        last = int(reached[-1])
        return Verdict(is_late, is_ahead, is_missing, None if last == _NEVER else last)

    def _find_ahead(self, counted: Micros, start: int) -> Mask:
        """Marks one violation after the other, since each changes what follows; a clean batch takes one pass."""
        is_ahead = np.zeros(len(counted), dtype=np.bool_)
        ahead = int(self.max_ahead_micros or 0)
        position, largest = 0, start
        while position < len(counted):
            rest = counted[position:]
            before = np.maximum.accumulate(np.concatenate((np.array([largest], dtype=np.int64), rest)))[:-1]
            known = before != _NEVER
            jumps = np.flatnonzero(known & (rest > np.where(known, before, 0) + ahead))
            if len(jumps) == 0:
                break
            found = int(jumps[0])
            largest = int(before[found])
            # The rows right after a jump are judged one by one against the same maximum, as far as they jump too.
            run = rest[found:] > largest + ahead
            stop = int(np.argmin(run)) if not run.all() else len(run)
            is_ahead[position + found : position + found + stop] = True
            position += found + stop
        return is_ahead


def micros_of(column: pa.ChunkedArray | pa.Array) -> tuple[Micros, Mask]:
    """Event times as microseconds since 1970 UTC, and which are missing. Finer units are cut down."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_timestamp(column.type) and column.type.unit == "us":
        whole = column
    else:
        zone = column.type.tz if pa.types.is_timestamp(column.type) else None
        whole = pc.cast(column, pa.timestamp("us", tz=zone), safe=False)
    is_missing = np.asarray(whole.is_null()) if whole.null_count else np.zeros(len(whole), dtype=np.bool_)
    numbers = whole.cast(pa.int64()).fill_null(0) if whole.null_count else whole.cast(pa.int64())
    return np.asarray(numbers), is_missing
