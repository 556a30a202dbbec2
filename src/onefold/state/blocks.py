"""Key hashes as Arrow columns, and what every frozen table offers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from onefold.errors import check

__all__ = ["FrozenTable", "hashes_of", "hashes_to_array", "stored_schema"]

check(sys.byteorder == "little", "hashes and snapshots are written as little-endian numbers", found=sys.byteorder)


class FrozenTable(Protocol):
    """A table at one moment. `blocks` is read once, by any thread, while the table goes on changing."""

    @property
    def schema(self) -> pa.Schema:
        """Of its blocks."""
        ...

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """The rows, in blocks of bounded size."""
        ...

    def close(self) -> None:
        """Let go of it, read or not. May be called twice."""
        ...


def hashes_to_array(hashes: npt.NDArray[np.uint64]) -> pa.Array:
    """(n, 2) uint64 to fixed_size_binary(16), low half first, without a copy where they lie densely."""
    dense = np.ascontiguousarray(hashes)
    return pa.Array.from_buffers(pa.binary(16), len(dense), [None, pa.py_buffer(dense)])


def hashes_of(array: pa.Array) -> npt.NDArray[np.uint64]:
    """The inverse of `hashes_to_array`; no nulls."""
    if len(array) == 0:
        return np.empty((0, 2), dtype=np.uint64)
    check(array.null_count == 0, "every key hash is present")
    flat = np.frombuffer(array.buffers()[1], dtype=np.uint64, count=2 * len(array), offset=16 * array.offset)
    return flat.reshape(-1, 2)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """The columns as tables keep them: nullable, since absent values are nulls, without metadata, and without views.

    string_view and binary_view, also inside nested types, become string and binary: Arrow cannot gather views.
    """
    return pa.schema([pa.field(field.name, _without_views(field.type)) for field in schema])


def _without_views(kind: pa.DataType) -> pa.DataType:
    if kind == pa.string_view():
        return pa.string()
    if kind == pa.binary_view():
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_views(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_views(kind.key_type), _without_views(kind.item_type), keys_sorted=kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_without_views(kind.value_type)), kind.list_size)
    for is_kind, make in (
        (pa.types.is_list, pa.list_),
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_list_view, pa.list_view),
        (pa.types.is_large_list_view, pa.large_list_view),
    ):
        if is_kind(kind):
            return make(kind.value_field.with_type(_without_views(kind.value_type)))
    return kind
