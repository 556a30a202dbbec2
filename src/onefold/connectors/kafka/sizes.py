"""How large a message may be, and which rows might make a larger one.

Source: Apache Kafka's documentation, chapter Message Format; librdkafka's CONFIGURATION.md for message.max.bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.kafka.connection import Connection
from onefold.connectors.kafka.messages import Batch
from onefold.errors import RowsRefused
from onefold.settings import resolve

__all__ = ["NO_LIMITS", "Limits", "fitting", "largest_message", "limits_of", "suspects"]

CLIENT_BYTES = 1_000_000
"""message.max.bytes and batch.size of librdkafka, unless set."""

CLIENT_FRAME_BYTES = 36
"""What librdkafka adds to key and value before it compares with message.max.bytes."""

BATCH_FRAME_BYTES = 61 + 4
"""The header of a batch that holds one record, and what that record has beside its lengths, its key and its value."""

ONE_BY_ONE = {"batch.num.messages": "1"}

_FEW_ROWS = 8
_MOST_ROWS = 4096
"""Written as JSON together, to be measured."""

_CELL_BYTES = 40
"""What a cell takes in JSON beside its name and its bytes, at most."""

_ESCAPED = 6
"""A byte of text takes at most so many in JSON."""


@dataclass(frozen=True)
class Limits:
    """size_bytes: of key and value together. reason: the setting it comes from. batching: how the client must send."""

    size_bytes: int
    reason: str
    batching: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_one_by_one(self) -> bool:
        """Whether every message has a batch of its own already."""
        return ONE_BY_ONE.items() <= self.batching.items()

    def one_by_one(self) -> Limits:
        """For a topic whose limit we may not know: batches of one."""
        return replace(self, batching=ONE_BY_ONE)


NO_LIMITS = Limits(sys.maxsize, "not known")
"""Of a sink that was never opened."""


def limits_of(connection: Connection, topic_bytes: int | None, *, is_keyed: bool) -> Limits:
    """Known to the byte for messages without a key.

    topic_bytes: max.message.bytes of the topic, which is about batches as they are sent; None: not known. What is
    compressed by the client may be smaller than we can tell, so only the client's own limit counts then.
    """
    options = connection.options
    client = _number(options.get("message.max.bytes")) or CLIENT_BYTES
    own = Limits(client - CLIENT_FRAME_BYTES, f"message.max.bytes of the connection is {client:,}")
    if topic_bytes is None:
        return own
    batching = {"batch.size": str(max(1, topic_bytes // 2))} if topic_bytes < 2 * CLIENT_BYTES else {}
    is_plain = options.get("compression.type", "none") == "none"
    lengths = (3 if is_keyed else 2) * _varint_bytes(topic_bytes) + (0 if is_keyed else 1)
    within = topic_bytes - BATCH_FRAME_BYTES - lengths
    if is_plain and within < own.size_bytes:
        return Limits(within, f"max.message.bytes of the topic is {topic_bytes:,}", batching)
    return replace(own, batching=batching)


def suspects(batch: pa.RecordBatch, size_bytes: int) -> Iterator[pa.RecordBatch]:
    """Slices in which a row may make a message of more than size_bytes; none is left out, few are given."""
    first = last = 0
    for start, end in _suspected(batch, size_bytes):
        if start > last or end - first > _MOST_ROWS:
            if last > first:
                yield batch.slice(first, last - first)
            first = start
        last = end
    if last > first:
        yield batch.slice(first, last - first)


def _suspected(batch: pa.RecordBatch, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Rows from and to, in their order: halved until a slice is either harmless as a whole, or small."""
    is_flat = not any(pa.types.is_nested(column.type) for column in batch.schema)
    frame = sum(len(name.encode()) + _CELL_BYTES for name in batch.schema.names)
    waiting = [(0, batch.num_rows)] if batch.num_rows else []
    while waiting:
        start, end = waiting.pop()
        if is_flat and _ESCAPED * (frame + batch.slice(start, end - start).nbytes) <= size_bytes:
            continue
        if end - start <= _FEW_ROWS or not is_flat:
            yield start, end
            continue
        half = (start + end) // 2
        waiting += [(half, end), (start, half)]


def largest_message(values: pa.LargeBinaryArray, keys: pa.LargeBinaryArray | None) -> int:
    """Key and value of the largest together, in bytes; 0 when there is none."""
    sizes = pc.fill_null(pc.binary_length(values), 0)
    if keys is not None:
        sizes = pc.add(sizes, pc.fill_null(pc.binary_length(keys), 0))
    return int(pc.max(sizes).as_py() or 0)


def fitting(
    batch: pa.RecordBatch, limits: Limits, messages: Callable[[pa.Table], Batch], *, label: str, sink: str
) -> pa.RecordBatch:
    """The batch. messages: how its rows become messages. Raises RowsRefused."""
    for part in suspects(batch, limits.size_bytes):
        values, keys, _ = messages(pa.Table.from_batches([part]))
        largest = largest_message(values, keys)
        if largest > limits.size_bytes:
            raise RowsRefused(
                f"A row is too large for {label}. Nothing of its epoch was sealed.",
                found=f"a message of {largest:,} bytes",
                expected=f"at most {limits.size_bytes:,}: {limits.reason}",
                next_step="Raise it, or leave such rows or columns out with where(…) or select(…), then run again.",
                sink=sink,
            )
    return batch


def _number(text: str | None) -> int | None:
    found = resolve(text) if text is not None else ""
    return int(found) if found.isdecimal() else None


def _varint_bytes(number: int) -> int:
    """Of a length as a record holds it (zigzag)."""
    return max(1, (2 * number).bit_length() + 6) // 7
