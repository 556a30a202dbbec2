"""The row that wins, for upserts: the last of each key in input order, or the one with the largest version.

Without a version an epoch's last row of each key is enough. With one, an older row may come epochs after a newer one:
so the version that each key has is state, and what is behind it goes nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from onefold.books import DIGEST_KEY
from onefold.kernel.rowhash import hash_rows
from onefold.plan import Output, schema_json
from onefold.state.table import KeyedTable
from onefold.types import canonical_json

__all__ = ["Latest", "last_of_each_key"]


class Latest:
    """An upsert with latest_by, and the version that each of its keys has; deleted keys keep theirs.

    Nulls are less than NaN, NaN is less than every number; of equal versions the last in input order wins.
    """

    def __init__(self, output: Output, by: str, state_key: bytes) -> None:
        self._key, self._by = list(output.key), by
        kept = pa.schema([output.schema.field(name) for name in self._key])
        version = pa.schema([output.schema.field(by).with_name("version")])
        renamed = pa.schema([field.with_name(f"key {place}") for place, field in enumerate(kept)])
        # Another key or version is another state: what was kept under the former says nothing.
        shape = canonical_json([self._key, by, schema_json(kept), schema_json(version)])
        print_of_shape = hashlib.blake2b(shape.encode(), digest_size=4).hexdigest()
        self.name = f"latest:{output.name}:{print_of_shape}"
        self.table = KeyedTable(self.name, renamed, version, hash_key=state_key)

    def run(self, rows: pa.Table) -> pa.Table:
        """The rows that replace what their keys have, one a key."""
        if rows.num_rows == 0:
            return rows
        winners = last_of_each_key(rows, self._key, self._by)
        news = self._versions(winners)
        found, held = self.table.lookup(news)
        if found.any():
            mask = pa.array(found)
            before = pa.table([*news.select(self.table.key_schema.names).columns, *held.columns], news.schema)
            contest = pa.concat_tables([before.filter(mask), news])
            known = int(np.count_nonzero(found))
            places = winning_places(contest, self.table.key_schema.names, "version")
            wins = pa.array(places[places >= known] - known)
            winners, news = winners.take(wins), news.take(wins)
        self.table.upsert(news)
        return winners

    def _versions(self, rows: pa.Table) -> pa.Table:
        columns = [rows.column(name) for name in (*self._key, self._by)]
        stored = self.table.schema
        return pa.table([column.cast(f.type) for column, f in zip(columns, stored, strict=True)], schema=stored)


def last_of_each_key(rows: pa.Table, key: Sequence[str], latest_by: str | None) -> pa.Table:
    """One row a key, in input order. latest_by: the largest value wins (see Latest)."""
    winners = winning_places(rows, key, latest_by)
    return rows if len(winners) == rows.num_rows else rows.take(pa.array(winners))


def winning_places(rows: pa.Table, key: Sequence[str], latest_by: str | None) -> npt.NDArray[np.int64]:
    """The places of the rows that win, ascending."""
    order = np.arange(rows.num_rows)
    if latest_by is not None:
        ordering = pc.sort_indices(rows, sort_keys=[(latest_by, "ascending", "at_start")])  # stable
        order = np.asarray(ordering).astype(np.int64)
    hashes = hash_rows(rows.select(list(key)), DIGEST_KEY)[order]
    pairs = np.ascontiguousarray(hashes).view([("low", np.uint64), ("high", np.uint64)]).ravel()
    _, first_from_end = np.unique(pairs[::-1], return_index=True)
    winners: npt.NDArray[np.int64] = np.sort(order[len(pairs) - 1 - first_from_end])
    return winners
