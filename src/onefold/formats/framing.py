"""The five bytes before a message that was written with a schema registry: 0, and the schema's id, big-endian.

Source: Confluent, "Formats, Serializers, and Deserializers for Schema Registry", section Wire format.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from onefold.formats.rows import Refusals

__all__ = ["HEADER_BYTES", "Group", "framed", "trimmed", "unframed"]

HEADER_BYTES = 5


@dataclass(frozen=True)
class Group:
    """Messages of one schema. index: the input row of each, ascending; bodies: without the header."""

    schema_id: int
    index: npt.NDArray[np.int64]
    bodies: pa.LargeBinaryArray


def unframed(payload: pa.Array | pa.ChunkedArray, refusals: Refusals) -> list[Group]:
    """The messages by schema; what has no such header is refused as "malformed". None may be NULL."""
    chunks = payload.chunks if isinstance(payload, pa.ChunkedArray) else [payload]
    whole = pa.concat_arrays(chunks) if len(chunks) != 1 else chunks[0]
    whole = whole.cast(pa.large_binary())
    if not len(whole):
        return []
    bounds = np.frombuffer(whole.buffers()[1], np.int64)[whole.offset : whole.offset + len(whole) + 1]
    content = np.frombuffer(whole.buffers()[2] or b"", np.uint8)
    first, sizes = bounds[:-1], np.diff(bounds)
    is_long = sizes >= HEADER_BYTES
    ids = np.full(len(whole), -1, np.int64)
    head = content[first[is_long, None] + np.arange(HEADER_BYTES)] if is_long.any() else np.empty((0, 5), np.uint8)
    numbers = head[:, 1:].astype(np.int64) @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
    ids[is_long] = np.where(head[:, 0] == 0, numbers, -1)
    for row in np.flatnonzero(ids < 0).tolist():
        found = f"it begins with byte {int(content[first[row]])}" if sizes[row] else "it is empty"
        short = f"it has {int(sizes[row])} bytes" if 0 < sizes[row] < HEADER_BYTES else found
        refusals.add(row, "malformed", f"no schema id of a registry: {short}")
    groups = []
    for number in np.unique(ids[ids >= 0]).tolist():
        index = np.flatnonzero(ids == number)
        members = whole if len(index) == len(whole) else whole.take(pa.array(index))
        groups.append(Group(number, index, trimmed(members, HEADER_BYTES)))
    return groups


def trimmed(values: pa.LargeBinaryArray, head: int, tail: int = 0) -> pa.LargeBinaryArray:
    """Values without so many bytes at their ends, which each of them has. None may be NULL.

    Arrow's own binary_slice fails for some batches ("Negative buffer resize", pyarrow 26.0.1).
    """
    bounds = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
    content = np.frombuffer(values.buffers()[2] or b"", np.uint8)[bounds[0] : bounds[-1]]
    bounds = bounds - bounds[0]
    stays = np.ones(len(content), bool)
    for place in range(head):
        stays[bounds[:-1] + place] = False
    for place in range(tail):
        stays[bounds[1:] - 1 - place] = False
    shorter = np.concatenate([[0], np.cumsum(np.diff(bounds) - head - tail)]).astype(np.int64)
    buffers = [None, pa.py_buffer(shorter), pa.py_buffer(content[stays])]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(values), buffers, 0)


def framed(schema_id: int, values: pa.LargeBinaryArray, *, extra: bytes = b"") -> pa.LargeBinaryArray:
    """Values with the header before each; NULL stays NULL. extra: what follows the id, as Protobuf's indexes do."""
    kind = pa.large_binary()
    head = pa.scalar(b"\0" + schema_id.to_bytes(4, "big") + extra, kind)
    return pc.binary_join_element_wise(head, values, pa.scalar(b"", kind))
