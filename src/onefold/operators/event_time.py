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

from onefold.errors import UserCodeError

__all__ = ["LateGate", "Verdict", "kept_times", "micros_of"]

Micros = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_NEVER = np.iinfo(np.int64).min

FIRST_MICROS = -62_135_596_800_000_000
"""0001-01-01 00:00:00."""
LAST_MICROS = 253_402_300_799_999_999
"""9999-12-31 23:59:59.999999. What is outside (infinity, year 294246) is no event time: it would end all windows."""

_LONGEST = 1 << 62
"""So that no sum with a time of the calendar leaves int64."""


@dataclass(frozen=True)
class Verdict:
    """Per row: is_late, is_ahead (too far in the future), is_missing (no event time of the years 1 to 9999).

    largest: the new maximum.
    """

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
        self.lateness_micros = min(lateness_micros, _LONGEST)
        self.max_ahead_micros = None if max_ahead_micros is None else min(max_ahead_micros, _LONGEST)

    def judge(self, times: Micros, is_missing: Mask, largest: int | None) -> Verdict:
        """times: event times in position order (any value where missing)."""
        start = _NEVER if largest is None else largest
        is_missing = is_missing | (times < FIRST_MICROS) | (times > LAST_MICROS)
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


def kept_times(rows: pa.Table, column: str, node: str, floor: int | None) -> Micros:
    """The event times of rows that have passed their read. Raises UserCodeError for one missing, or below the floor.

    The read let none of these pass: only a map can have changed one, and then windows and dedup would be wrong.
    """
    times, is_missing = micros_of(rows.column(column))
    is_old = ~is_missing & (times < (_NEVER if floor is None else floor))
    if is_missing.any() or is_old.any():
        raise UserCodeError(
            "A map changed the event time of a row: it is missing now, or older than the watermark.",
            node=node,
            found=f"{int(is_missing.sum())} missing, {int(is_old.sum())} older",
            next_step=f"Let the function keep {column} as it was, or leave the column out of its schema.",
        )
    return times
