"""Rows by key: the state of aggregates, joins and everything else that remembers rows."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from onefold.errors import check
from onefold.kernel.index import KeyIndex
from onefold.kernel.rowhash import hash_rows
from onefold.state.blocks import stored_schema
from onefold.state.segment import ROW_BITS, Segment

__all__ = ["FrozenKeyedTable", "KeyedTable"]

_SEGMENT_ROWS = 65_536
_TIER_LIMITS = (1_024, 4_096, 16_384)
_TIER_WIDTH = 8
_LEAST_COPIED = 8_192
_ROW_MASK = (1 << ROW_BITS) - 1

Mask = npt.NDArray[np.bool_]


class KeyedTable:
    """A table with one row a key, worked on in whole batches.

    Rows lie in immutable Arrow batches (segments); an index leads from the hash of a key to its row. A replaced or
    deleted row stays dead in its segment until some later call copies what is alive there; every call does a bounded
    share of that.

    Args:
        name: of the operator; names it in errors.
        key_schema, value_schema: the columns, of any Arrow type; `stored_schema` says what becomes of them (`schema`).
            Nulls in keys are equal to each other.
        hash_key: the flow's 16 random bytes.
        expiry: a column of an integer, date or timestamp type by which `take_expired` finds rows; None: there is none.
    """

    def __init__(
        self, name: str, key_schema: pa.Schema, value_schema: pa.Schema, *, hash_key: bytes, expiry: str | None = None
    ) -> None:
        self.name = name
        self.key_schema = stored_schema(key_schema)
        self.value_schema = stored_schema(value_schema)
        self.schema = pa.schema([*self.key_schema, *self.value_schema])
        self.delta_schema = self.schema.append(pa.field("_deleted", pa.bool_()))
        check(len(set(self.schema.names)) == len(self.schema), "column names are unique", table=name)
        check(len(key_schema) > 0, "a table has at least one key column", table=name)
        check(expiry is None or expiry in self.schema.names, "the expiry column exists", table=name)
        self._hash_key = hash_key
        self._expiry = expiry
        self._index = KeyIndex()
        self._segments: dict[int, Segment] = {}
        self._next_segment = 0
        self._tiers: list[list[int]] = [[] for _ in _TIER_LIMITS]
        self._sparse: deque[int] = deque()
        self._due: list[tuple[int, int]] = []
        self._delta: list[pa.RecordBatch] = []

    def __len__(self) -> int:
        return len(self._index)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._index.size_bytes + sum(segment.size_bytes for segment in self._segments.values())

    def lookup(self, keys: pa.RecordBatch | pa.Table) -> tuple[Mask, pa.Table]:
        """The values of these keys.

        Args:
            keys: the key columns, in order (other columns are ignored).
        Returns: (found mask, values with one row a key in `value_schema`, nulls where absent).
        """
        locations, found = self._index.find(self._hash(keys))
        rows = self._gather(locations[found], self.value_schema.names)
        if found.all():
            return found, rows
        positions = np.where(found, np.cumsum(found) - 1, 0)
        picked = rows.take(pa.array(positions, mask=~found)) if len(rows) else _all_null(self.value_schema, len(found))
        return found, picked

    def upsert(self, rows: pa.RecordBatch | pa.Table) -> Mask:
        """Insert or replace whole rows (`schema`); of rows with one key the last wins.

        Returns: mask, True where the key was there before (an earlier row of the batch counts).
        """
        masks = [self._store(self._conform(batch, self.schema), recorded=True) for batch in _to_batches(rows)]
        self._tidy(2 * rows.num_rows)
        return np.concatenate(masks) if masks else np.empty(0, dtype=np.bool_)

    def delete(self, keys: pa.RecordBatch | pa.Table) -> Mask:
        """Delete the rows of these keys. Returns: mask, True where there was one."""
        found = self._remove(keys)
        self._record_deleted(keys.select(self.key_schema.names).filter(pa.array(found)))
        self._tidy(2 * keys.num_rows)
        return found

    def take_expired(self, upto: int) -> pa.Table:
        """Remove and return all rows whose expiry column is at or below `upto`, in the column's own unit.

        Rows with a null there never expire. Costs in proportion to the rows taken, not to those held.
        """
        check(self._expiry is not None, "the table has an expiry column", table=self.name)
        taken: list[pa.RecordBatch] = []
        while self._due and self._due[0][0] <= upto:
            number = heapq.heappop(self._due)[1]
            segment = self._segments.get(number)
            if segment is None:
                continue
            rows = segment.due(upto)
            following = segment.next_due()
            if following is not None:
                heapq.heappush(self._due, (following, number))
            if len(rows):
                taken.append(segment.batch.take(pa.array(rows)))
        expired = pa.Table.from_batches(taken, schema=self.schema)
        if expired.num_rows:
            self._remove(expired)
            self._record_deleted(expired.select(self.key_schema.names))
            self._tidy(2 * expired.num_rows)
        return expired

    def scan(self) -> Iterator[pa.RecordBatch]:
        """All rows, in no particular order; the table must not change meanwhile (see `freeze`)."""
        for segment in self._segments.values():
            if segment.alive:
                yield segment.rows_alive()

    def take_delta(self) -> list[pa.RecordBatch]:
        """What changed since the last call, in order, in `delta_schema`.

        A row with _deleted holds the key, and nulls for values. Applying it twice is the same as once.
        """
        delta, self._delta = self._delta, []
        return delta

    def apply_delta(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Make the changes of a delta. They are not part of the next `take_delta`."""
        for batch in batches:
            whole = self._conform(batch, self.delta_schema)
            rows = whole.select(self.schema.names)
            for start, end, is_deleted in _runs(whole.column("_deleted")):
                part = rows.slice(start, end - start)
                if is_deleted:
                    self._remove(part)
                else:
                    self._store(part, recorded=False)
            self._tidy(2 * batch.num_rows)

    def load(self, batches: Iterable[pa.RecordBatch], *, rows: int = 0) -> None:
        """Fill an empty table from a snapshot, block by block. rows: how many will come, if known; loads faster."""
        check(len(self._index) == 0, "a snapshot is loaded into an empty table", table=self.name)
        self._index.reserve(rows)
        for batch in batches:
            self._store(self._conform(batch, self.schema), recorded=False)
            self._tidy(2 * batch.num_rows)

    def freeze(self) -> FrozenKeyedTable:
        """The table as it is now, for a snapshot, in a time that grows with the number of segments only."""
        return FrozenKeyedTable(self.schema, [segment.freeze() for segment in self._segments.values()])

    # ------------------------------------------------------------------------------------------------------- inside

    def _conform(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        """The batch under our own schema; its names and types must be those, in order."""
        given = stored_schema(batch.schema)
        check(given.equals(schema), "rows have the schema of their table", table=self.name, found=batch.schema)
        if batch.schema.types != schema.types:
            batch = pa.RecordBatch.from_arrays(
                [column.cast(kind) for column, kind in zip(batch.columns, schema.types, strict=True)], schema=schema
            )
        return pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    def _hash(self, rows: pa.RecordBatch | pa.Table) -> npt.NDArray[np.uint64]:
        return hash_rows(rows.select(self.key_schema.names), self._hash_key)

    def _store(self, batch: pa.RecordBatch, *, recorded: bool) -> Mask:
        """Put rows into fresh segments and the index."""
        masks = [
            self._store_segment(batch.slice(start, _SEGMENT_ROWS)) for start in range(0, batch.num_rows, _SEGMENT_ROWS)
        ]
        if recorded and batch.num_rows:
            never = pa.repeat(pa.scalar(False), batch.num_rows)
            self._delta.append(pa.RecordBatch.from_arrays([*batch.columns, never], schema=self.delta_schema))
        return np.concatenate(masks) if masks else np.empty(0, dtype=np.bool_)

    def _store_segment(self, batch: pa.RecordBatch, hashes: npt.NDArray[np.uint64] | None = None) -> Mask:
        number = self._next_segment
        self._next_segment += 1
        segment = self._segments[number] = Segment(batch, self._expiry)
        locations = (number << ROW_BITS) + np.arange(len(batch), dtype=np.int64)
        former, found = self._index.put(self._hash(batch) if hashes is None else hashes, locations)
        self._kill(former[found])
        for tier, limit in zip(self._tiers, _TIER_LIMITS, strict=True):
            if len(batch) < limit:
                tier.append(number)
                break
        if self._expiry is not None and segment.alive:
            due = segment.next_due()
            if due is not None:
                heapq.heappush(self._due, (due, number))
        return found

    def _remove(self, rows: pa.RecordBatch | pa.Table) -> Mask:
        former, found = self._index.remove(self._hash(rows))
        self._kill(former[found])
        return found

    def _kill(self, locations: npt.NDArray[np.int64]) -> None:
        """Mark rows dead; note segments that are now mostly dead, drop those that are wholly dead."""
        for number, rows in _by_segment(locations):
            segment = self._segments[number]
            was_sparse = segment.is_sparse
            segment.kill(locations[rows] & _ROW_MASK)
            if segment.alive == 0:
                del self._segments[number]
            elif segment.is_sparse and not was_sparse:
                self._sparse.append(number)

    def _record_deleted(self, keys: pa.RecordBatch | pa.Table) -> None:
        for batch in _to_batches(keys):
            if batch.num_rows:
                blank = [pa.nulls(len(batch), field.type) for field in self.value_schema]
                marks = pa.repeat(pa.scalar(True), len(batch))
                self._delta.append(
                    pa.RecordBatch.from_arrays([*batch.columns, *blank, marks], schema=self.delta_schema)
                )

    def _gather(self, locations: npt.NDArray[np.int64], names: list[str]) -> pa.Table:
        """The rows at these locations, in their order."""
        parts: list[pa.RecordBatch] = []
        order: list[npt.NDArray[np.intp]] = []
        for number, rows in _by_segment(locations):
            picked = self._segments[number].batch.select(names)
            parts.append(picked.take(pa.array(locations[rows] & _ROW_MASK)))
            order.append(rows)
        table = pa.Table.from_batches(parts, schema=pa.schema([self.schema.field(name) for name in names]))
        if len(parts) < 2:
            return table
        places = np.empty(len(locations), dtype=np.int64)
        places[np.concatenate(order)] = np.arange(len(locations))
        return table.combine_chunks().take(pa.array(places))

    def _tidy(self, budget_rows: int) -> None:
        """Copy what is alive of sparse segments, about the budget; and merge one full tier of small segments.

        Each tier's segments are four times as large as the last one's, so a row is copied once a tier at most.
        """
        budget = min(max(budget_rows, _LEAST_COPIED), _SEGMENT_ROWS)
        sparse: dict[int, None] = {}
        rows = 0
        while self._sparse and rows < budget:
            number = self._sparse.popleft()
            if number in self._segments and number not in sparse:
                sparse[number] = None
                rows += self._segments[number].alive
        self._merge(list(sparse))
        for tier in self._tiers:
            if len(tier) >= _TIER_WIDTH:
                tier[:] = [number for number in tier if number in self._segments]
            if len(tier) >= _TIER_WIDTH:
                chosen, tier[:] = tier[:_TIER_WIDTH], tier[_TIER_WIDTH:]
                self._merge(chosen)
                return

    def _merge(self, numbers: list[int]) -> None:
        parts = [self._segments[number].rows_alive() for number in numbers]
        if parts:
            merged = pa.Table.from_batches(parts, schema=self.schema).combine_chunks()
            for batch in merged.to_batches():
                self._store_segment(batch)


class FrozenKeyedTable:
    """A KeyedTable at one moment, to be written by another thread."""

    def __init__(self, schema: pa.Schema, parts: list[tuple[pa.RecordBatch, Mask | None]]) -> None:
        self.schema = schema
        self._parts = parts

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """Its rows."""
        while self._parts:
            batch, alive = self._parts.pop()
            yield batch if alive is None else batch.filter(pa.array(alive))

    def close(self) -> None:
        """Let go of it. May be called twice."""
        self._parts = []


def _by_segment(locations: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """(segment number, positions in `locations`) for every segment among them."""
    if len(locations) == 0:
        return
    numbers = locations >> ROW_BITS
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    yield from zip(ordered[starts].tolist(), np.split(order, starts[1:]), strict=True)


def _runs(flags: pa.BooleanArray) -> Iterator[tuple[int, int, bool]]:
    """(start, end, flag) of every run of equal flags."""
    values = flags.to_numpy(zero_copy_only=False)
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    bounds = [0, *edges.tolist(), len(values)]
    for start, end in pairwise(bounds):
        if end > start:
            yield start, end, bool(values[start])


def _to_batches(rows: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    return [rows] if isinstance(rows, pa.RecordBatch) else rows.to_batches()


def _all_null(schema: pa.Schema, rows: int) -> pa.Table:
    return pa.Table.from_arrays([pa.nulls(rows, field.type) for field in schema], schema=schema)
