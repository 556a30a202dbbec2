"""What a name in memory holds, and the process-wide table of names."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from onefold.types import Handle, PartitionId, Token

__all__ = ["Fault", "MemoryStore", "forget", "store_named"]

Fault = Literal["unavailable", "unknown-landed", "unknown-lost", "rows-refused"]
"""How a commit fails: nothing written, and it says so; written, but the answer is lost; not written, and the answer is
lost; refused for good."""

TokenKey = tuple[str, str, str]


@dataclass
class MemoryStore:
    """All that one name holds. Every access goes through `lock`; `fed` is notified of new input.

    batches, first: the input, and the number of the first row still there, by partition.
    table: the rows written; keyed: the same by key while upserts go on, newer than the table.
    staged: prepared rows by the JSON of their handle.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    fed: threading.Condition = field(default_factory=threading.Condition)
    batches: dict[PartitionId, list[pa.RecordBatch]] = field(default_factory=dict)
    first: dict[PartitionId, int] = field(default_factory=dict)
    table: pa.Table | None = None
    keyed: dict[tuple[object, ...], dict[str, object]] | None = None
    tokens: dict[TokenKey, Token] = field(default_factory=dict)
    staged: dict[str, tuple[TokenKey, Handle, pa.Table]] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    is_down: bool = False

    def written(self) -> pa.Table | None:
        """The rows as a reader sees them; None before the first open as a sink. Call under the lock."""
        if self.keyed is not None and self.table is not None:
            self.table = pa.Table.from_pylist(list(self.keyed.values()), self.table.schema)
            self.keyed = None
        return self.table


_stores: dict[str, MemoryStore] = {}
_stores_lock = threading.Lock()


def store_named(name: str) -> MemoryStore:
    """The store of that name, made when missing."""
    with _stores_lock:
        return _stores.setdefault(name, MemoryStore())


def forget(name: str) -> None:
    """Drop the store of that name."""
    with _stores_lock:
        _stores.pop(name, None)
