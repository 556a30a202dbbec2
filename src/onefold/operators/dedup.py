"""Keeps the first row of each key: inside a batch, across batches, across restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from onefold.operators.event_time import kept_times
from onefold.plan import DedupNode
from onefold.state.keyset import KeySet

__all__ = ["Dedup", "DedupCounts"]


@dataclass(frozen=True)
class DedupCounts:
    """read = out + duplicates."""

    read: int
    duplicates: int
    out: int


class Dedup:
    """A row is a duplicate when its key is known within `within` of its own event time. Null keys equal null keys.

    Rows older than the watermark minus `within` never come here: the read's lateness has taken them out, or the read
    declares more lateness than `within` and they are judged against what is still known (`explain` says so).
    """

    def __init__(self, node: DedupNode, state_key: bytes) -> None:
        self.node = node
        self.keys = KeySet(node.name, state_key, node.within_micros)

    def run(self, rows: pa.Table, columns: Sequence[str]) -> tuple[pa.Table, DedupCounts]:
        """The rows that are first of their key, with these columns."""
        out = rows.select(columns)
        if rows.num_rows == 0:
            return out, DedupCounts(0, 0, 0)
        hashes = self.keys.hash(rows.select(list(self.node.key)))
        if self.node.event_time is None:
            times = np.zeros(rows.num_rows, dtype=np.int64)
        else:
            times = kept_times(rows, self.node.event_time, self.node.name, self.keys.floor)
        is_first = self.keys.first_seen(hashes, times)
        kept = int(np.count_nonzero(is_first))
        counts = DedupCounts(rows.num_rows, rows.num_rows - kept, kept)
        return (out if kept == rows.num_rows else out.filter(pa.array(is_first))), counts

    def advance(self, watermark: int | None) -> None:
        """No row to come is older than the watermark (microseconds): drop keys that none can meet, step by step."""
        if watermark is not None:
            self.keys.expire(watermark)
