"""The source: reads what was fed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import pyarrow as pa

from onefold.connectors.memory.store import MemoryStore, store_named
from onefold.errors import InputLost, SourceUnavailable
from onefold.protocols import Limit, Read, SourcePromise
from onefold.types import PartitionId, Position, Skip

__all__ = ["MemorySource"]

_META = pa.schema([("_partition", pa.dictionary(pa.int32(), pa.string())), ("_offset", pa.int64())])


class MemorySource:
    """Reads what was fed. Position: the number of the next row in the partition."""

    memory: pa.Schema | None = None

    def __init__(self, name: str, payload: Literal["bytes", "rows"]) -> None:
        self._name = name
        self._payload = payload

    @property
    def promise(self) -> SourcePromise:
        """Replayable while the process lives."""
        return SourcePromise(
            is_replayable=True,
            is_ordered=True,
            payload=self._payload,
            meta=_META,
            gap="the first row kept is later than the position",
            conditions=("the input lives in this process's memory and ends with it",),
        )

    def open(self, remembered: pa.Table | None) -> None:
        """Raises SourceUnavailable while the store is down."""
        self._refuse_when_down()

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """Every partition that was fed; before the first feed there is an empty one named 0."""
        store = self._store
        with store.lock:
            names = list(store.batches) or [PartitionId("0")]
            return {name: (store.first.get(name, 0), _count(store, name)) for name in names}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Rows from `start` on. Raises InputLost after `forget_input`."""
        self._refuse_when_down()
        store, first = self._store, _as_number(start)
        with store.fed:
            store.fed.wait_for(lambda: _count(store, partition) > first or store.is_down, timeout=wait_seconds or 0.0)
        with store.lock:
            lost_before = store.first.get(partition, 0)
            if first < lost_before:
                raise InputLost(
                    f"{self._label} no longer holds rows {first} to {lost_before - 1}.",
                    found=f"first row {lost_before}",
                    expected=f"row {first}",
                    partition=partition,
                    skip=Skip(lost_before, lost_before - first),
                )
            last = _count(store, partition)
            stop = min(last, first + limit.rows, last if limit.until is None else _as_number(limit.until))
            batches = [_with_meta(batch, partition, at) for at, batch in _cut(store, partition, first, stop)]
        batches, end = _bounded(batches, first, limit.size_bytes)
        return Read(batches, end, is_idle=end >= last)

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Nothing to forget: tests look at the input again."""

    def close(self) -> None:
        """Nothing is held open."""

    @property
    def _store(self) -> MemoryStore:
        return store_named(self._name)

    @property
    def _label(self) -> str:
        return f"memory({self._name})"

    def _refuse_when_down(self) -> None:
        if self._store.is_down:
            raise SourceUnavailable(f"{self._label} is down.")


def _as_number(position: Position) -> int:
    return position if isinstance(position, int) else 0


def _count(store: MemoryStore, partition: PartitionId) -> int:
    return sum(batch.num_rows for batch in store.batches.get(partition, []))


def _cut(store: MemoryStore, partition: PartitionId, first: int, stop: int) -> Iterable[tuple[int, pa.RecordBatch]]:
    at = 0
    for batch in store.batches.get(partition, []):
        low, high = max(first, at), min(stop, at + batch.num_rows)
        if low < high:
            yield low, batch.slice(low - at, high - low)
        at += batch.num_rows


def _with_meta(batch: pa.RecordBatch, partition: str, first: int) -> pa.RecordBatch:
    count = batch.num_rows
    names = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([partition]))
    offsets = pa.array(range(first, first + count), pa.int64())
    return pa.RecordBatch.from_arrays([*batch.columns, names, offsets], [*batch.schema.names, "_partition", "_offset"])


def _bounded(batches: Sequence[pa.RecordBatch], first: int, size_bytes: int) -> tuple[list[pa.RecordBatch], int]:
    """As many rows as fit, and at least one."""
    taken: list[pa.RecordBatch] = []
    end, left = first, size_bytes
    for batch in batches:
        if batch.get_total_buffer_size() and batch.nbytes > left:
            fitting = int(batch.num_rows * max(left, 0) // batch.nbytes)
            batch = batch.slice(0, max(fitting, 0 if taken else 1))
            left = 0
        if batch.num_rows:
            taken.append(batch)
        end += batch.num_rows
        left -= batch.nbytes
        if left <= 0:
            break
    return taken, end
