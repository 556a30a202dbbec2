"""An immutable batch of a keyed table's rows, and which of them are alive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["ROW_BITS", "Segment"]

ROW_BITS = 20
"""A row's location is (segment number << ROW_BITS) + row."""


class Segment:
    """Rows that were written together.

    Args:
        batch: the rows.
        expiry: the column by which rows expire, or None.
    """

    def __init__(self, batch: pa.RecordBatch, expiry: str | None) -> None:
        self.batch = batch
        self.alive = len(batch)
        self._mask: npt.NDArray[np.bool_] | None = None
        self._is_mask_shared = False
        self._expiry = expiry
        self._times: npt.NDArray[np.int64] | None = None
        self._order: npt.NDArray[np.intp] | None = None
        self._taken = 0

    @property
    def is_sparse(self) -> bool:
        """Most rows are dead, so copying the others pays."""
        return 2 * self.alive < len(self.batch)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        parts = (self._mask, self._times, self._order)
        return int(self.batch.nbytes) + sum(part.nbytes for part in parts if part is not None)

    def kill(self, rows: npt.NDArray[np.int64]) -> None:
        """Mark rows dead that are alive; none twice."""
        if self._mask is None:
            self._mask = np.ones(len(self.batch), dtype=np.bool_)
        elif self._is_mask_shared:
            self._mask = self._mask.copy()
        self._is_mask_shared = False
        self._mask[rows] = False
        self.alive -= len(rows)

    def rows_alive(self) -> pa.RecordBatch:
        """The rows that are alive."""
        return self.batch if self._mask is None else self.batch.filter(pa.array(self._mask))

    def freeze(self) -> tuple[pa.RecordBatch, npt.NDArray[np.bool_] | None]:
        """The batch and the mask of rows alive now; a later `kill` copies the mask first."""
        self._is_mask_shared = True
        return self.batch, self._mask

    def next_due(self) -> int | None:
        """The least expiry of rows that `due` has not given yet, or None. Dead rows may count."""
        if self._times is None:
            times = _as_int64(self.batch.column(self._expiry).drop_null())
            return int(times.min()) if len(times) else None
        return int(self._times[self._taken]) if self._taken < len(self._times) else None

    def due(self, upto: int) -> npt.NDArray[np.intp]:
        """Rows alive with an expiry at or below `upto` that were not given before."""
        times, order = self._ordered()
        end = int(np.searchsorted(times, upto, side="right"))
        rows = order[self._taken : end]
        self._taken = max(self._taken, end)
        return rows if self._mask is None else rows[self._mask[rows]]

    def _ordered(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
        """The expiries in ascending order, without nulls, and their rows; sorted once, when first asked for."""
        if self._times is None or self._order is None:
            column = self.batch.column(self._expiry)
            rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            times = _as_int64(column.drop_null())
            order = np.argsort(times, kind="stable")
            self._times, self._order = times[order], rows[order]
        return self._times, self._order


def _as_int64(column: pa.Array) -> npt.NDArray[np.int64]:
    if pa.types.is_date32(column.type):
        column = column.view(pa.int32())
    elif not pa.types.is_integer(column.type):
        column = column.view(pa.int64())
    times: npt.NDArray[np.int64] = pc.cast(column, pa.int64()).to_numpy()
    return times
