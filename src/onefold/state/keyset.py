"""Which keys were seen, and when: the state of dedup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from onefold.errors import check
from onefold.kernel.index import Frozen, KeyIndex
from onefold.kernel.rowhash import hash_rows
from onefold.state.blocks import hashes_of, hashes_to_array

__all__ = ["FrozenKeySet", "KeySet"]

_EARLIEST = -(1 << 63)
_FOREVER = (1 << 64) - 1
_SWEEP_ENTRIES = 65_536


class KeySet:
    """A set of (128-bit key hash, time), with the one question that dedup asks of it.

    The set is exact: a key that is seen again after `within` is kept again, and both its times count from then on, so
    an answer depends on the rows alone and not on how they were cut into batches.

    Args:
        name: of the operator; names it in errors.
        hash_key: the flow's 16 random bytes.
        within_micros: how near in time two rows of one key must be to be the same event; None: always.
    """

    schema = pa.schema([("hash", pa.binary(16)), ("time", pa.int64())])
    """Of deltas and snapshots. A row is an entry; a row with a null hash says what `expire` was last told."""

    def __init__(self, name: str, hash_key: bytes, within_micros: int | None) -> None:
        check(within_micros is None or within_micros >= 0, "within is not negative", table=name)
        self.name = name
        self._hash_key = hash_key
        self._within = within_micros
        self._index = KeyIndex()
        self._floor = _EARLIEST
        self._swept_to = _EARLIEST
        self._sweeping_to: int | None = None
        self._delta: list[pa.RecordBatch] = []
        self._sealed_floor = _EARLIEST

    def __len__(self) -> int:
        """Entries held; expired ones that no `expire` has come to yet are among them."""
        return len(self._index)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._index.size_bytes

    @property
    def floor(self) -> int:
        """What `expire` was last told: rows older than this cannot be judged any more and must not come."""
        return self._floor

    def hash(self, columns: Any) -> npt.NDArray[np.uint64]:
        """Key columns (a list of arrays, a RecordBatch or a Table) to hashes; a null is a value like any other."""
        return hash_rows(columns, self._hash_key)

    def first_seen(self, hashes: npt.NDArray[np.uint64], times: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which rows to keep: those without an earlier kept row of their key with |time - its time| <= within.

        Args:
            hashes: (n, 2) uint64. times: (n,) int64 microseconds, none below what `expire` was told.
        Returns: bool mask; rows are judged one after the other in their order, inside the batch too.
        """
        check(
            len(times) == 0 or self._floor == _EARLIEST or int(times.min()) >= self._floor,
            "rows older than the floor are late and never reach dedup",
            table=self.name,
        )
        horizon = _FOREVER if self._within is None else self._within
        mask = self._index.first_seen(hashes, times, horizon, self._least)
        if mask.any():
            self._delta.append(_to_batch(np.compress(mask, hashes, axis=0), times[mask]))
        return mask

    def expire(self, floor: int, *, limit_entries: int = _SWEEP_ENTRIES) -> int:
        """Promise that no row to come is older than `floor` (microseconds); drop some of what no such row can match.

        Entries at or above floor - within stay. Those below count as gone at once; their memory is freed step by
        step, at most limit_entries looked at in one call. Returns the number freed.
        """
        if self._within is None:
            return 0
        self._floor = max(self._floor, floor)
        if self._swept_to >= self._least:
            return 0
        if self._sweeping_to is None:
            self._sweeping_to = self._least
        removed, is_ended = self._index.remove_below(self._least, limit_entries)
        if is_ended:
            self._swept_to, self._sweeping_to = self._sweeping_to, None
        return removed

    def take_delta(self) -> list[pa.RecordBatch]:
        """What changed since the last call, in `schema`. Applying it twice is the same as once."""
        delta, self._delta = self._delta, []
        if self._floor != self._sealed_floor:
            self._sealed_floor = self._floor
            delta.append(_floor_row(self._floor))
        return delta

    def apply_delta(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Make the changes of a delta. They are not part of the next `take_delta`."""
        for batch in batches:
            self._apply(batch)
        self._sealed_floor = self._floor

    def load(self, batches: Iterable[pa.RecordBatch], *, rows: int = 0) -> None:
        """Fill an empty set from a snapshot, block by block. rows: how many will come, if known; loads faster."""
        check(len(self._index) == 0, "a snapshot is loaded into an empty set", table=self.name)
        self._index.reserve(rows)
        self.apply_delta(batches)

    def freeze(self) -> FrozenKeySet:
        """The set as it is now, for a snapshot, in a time that does not grow with it."""
        return FrozenKeySet(self._index.freeze(), self._floor, self._least)

    @property
    def _least(self) -> int:
        """The earliest time that still counts."""
        if self._within is None or self._floor == _EARLIEST:
            return _EARLIEST
        return max(_EARLIEST, self._floor - self._within)

    def _apply(self, batch: pa.RecordBatch) -> None:
        check(batch.schema.equals(self.schema), "a delta has the schema of its table", table=self.name)
        hashes, times = batch.columns
        if hashes.null_count:
            floors = times.filter(hashes.is_null()).to_numpy()
            self._floor = max(self._floor, int(floors.max()))
            present = hashes.is_valid()
            hashes, times = hashes.filter(present), times.filter(present)
        self._index.first_seen(hashes_of(hashes), times.to_numpy(), 0, _EARLIEST)


class FrozenKeySet:
    """A KeySet at one moment, to be written by another thread. Read it once, or close it."""

    schema = KeySet.schema

    def __init__(self, frozen: Frozen, floor: int, least: int) -> None:
        self._frozen = frozen
        self._floor = floor
        self._least = least

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """Its entries, without expired ones, and its floor."""
        if self._floor != _EARLIEST:
            yield _floor_row(self._floor)
        for hashes, times in self._frozen.chunks():
            if self._least == _EARLIEST:
                yield _to_batch(hashes, times)
            else:
                alive = times >= self._least
                yield _to_batch(np.compress(alive, hashes, axis=0), times[alive])

    def close(self) -> None:
        """Let go of it unread. May be called twice."""
        self._frozen.close()


def _to_batch(hashes: npt.NDArray[np.uint64], times: npt.NDArray[np.int64]) -> pa.RecordBatch:
    column = pa.Array.from_buffers(pa.int64(), len(times), [None, pa.py_buffer(times)])
    return pa.record_batch([hashes_to_array(hashes), column], schema=KeySet.schema)


def _floor_row(floor: int) -> pa.RecordBatch:
    return pa.record_batch([pa.nulls(1, pa.binary(16)), pa.array([floor])], schema=KeySet.schema)
