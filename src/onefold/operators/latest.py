"""The row that wins within an epoch, for upserts: the last of each key in input order, or by a column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onefold.books import DIGEST_KEY
from onefold.kernel.rowhash import hash_rows

__all__ = ["last_of_each_key"]


def last_of_each_key(rows: pa.Table, key: Sequence[str], latest_by: str | None) -> pa.Table:
    """One row a key, in the order of the rows that win. latest_by: the largest value wins, nulls least, ties last."""
    if latest_by is not None:
        order = pc.sort_indices(rows, sort_keys=[(latest_by, "ascending")], null_placement="at_start")
        rows = rows.take(order)
    hashes = hash_rows(rows.select(list(key)), DIGEST_KEY)
    pairs = np.ascontiguousarray(hashes).view([("low", np.uint64), ("high", np.uint64)]).ravel()
    _, first_from_end = np.unique(pairs[::-1], return_index=True)
    winners = np.sort(len(pairs) - 1 - first_from_end)
    return rows if len(winners) == rows.num_rows else rows.take(pa.array(winners))
