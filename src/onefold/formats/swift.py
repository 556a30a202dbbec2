"""The swift path of JSON: for whole batches that are plainly regular. What it does not take, it leaves untouched.

The texts of all fields come from DuckDB; Arrow casts them. Arrow's casts from text fail on the first value that they
would have to round, cut or guess; what they take beyond the rules of onefold.formats.exact is ruled out beforehand by
looking at the bytes. So a batch comes out exactly as on the careful path, or not at all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from onefold.formats.types import is_json, is_uuid
from onefold.kernel.scan import all_among, count_of, is_in, places_of

__all__ = ["cast_texts", "holds_flat_objects", "is_swift"]

Octets = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]

_OPEN_BRACE, _OPEN_BRACKET, _DOT, _MINUS = b"{[.-"
_SECONDS_LENGTH = len("2026-01-01 00:00:00")
_MICROS_LENGTH = len("2026-01-01 00:00:00.000000")


def is_swift(schema: pa.Schema) -> bool:
    """Whether every column is of a type that this path casts."""
    return len(schema) > 0 and all(_is_swift(field) for field in schema)


def holds_flat_objects(text: pa.ChunkedArray) -> bool:
    """Whether every value begins an object and no value holds another object or a list, judged by bytes alone.

    False where a string value holds such a byte: that costs time, never truth.
    """
    if text.null_count:
        return False
    for chunk in text.chunks:
        octets, starts, ends = _parts(chunk)
        if not len(starts):
            continue
        if bool((ends == starts).any()) or not bool((octets[starts] == _OPEN_BRACE).all()):
            return False
        if count_of(octets, _OPEN_BRACE) != len(starts) or is_in(octets, _OPEN_BRACKET):
            return False
    return True


def cast_texts(columns: list[pa.ChunkedArray], schema: pa.Schema) -> pa.Table | None:
    """The texts as the declared types, or None when any value needs a closer look."""
    arrays = []
    for column, field in zip(columns, schema, strict=True):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            arrays.append(column if column.type == field.type else column.cast(field.type))
            continue
        is_regular = _is_regular_time if pa.types.is_timestamp(field.type) else _is_regular_number
        if not all(is_regular(chunk) for chunk in column.chunks):
            return None
        try:
            arrays.append(pc.cast(column, field.type, safe=True))
        except pa.ArrowInvalid:
            return None
    return pa.Table.from_arrays(arrays, schema=schema)


def _is_swift(field: pa.Field) -> bool:
    kind, types = field.type, pa.types
    if is_json(field) or is_uuid(field):
        return False
    if types.is_timestamp(kind):
        return bool(kind.unit == "us" and kind.tz is None)
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_decimal128(kind)
    )


def _is_regular_number(chunk: pa.Array) -> bool:
    """Digits, one sign at the front, points with digits on both sides: no exponent, no space, no plus."""
    octets, starts, ends = _present(chunk)
    if not len(starts):
        return True
    if bool((ends == starts).any()) or not all_among(octets, _NUMBER_BYTES):
        return False
    first, last = octets[starts], octets[ends - 1]
    signs = count_of(octets, _MINUS)
    points = places_of(octets, _DOT)
    return bool(
        signs == np.count_nonzero(first == _MINUS)
        and (first != _DOT).all()
        and (last != _DOT).all()
        and (octets[points - 1] != _MINUS).all()
    )


def _is_regular_time(chunk: pa.Array) -> bool:
    """Date, time with seconds, at most six digits of fraction; no zone."""
    octets, starts, ends = _present(chunk)
    lengths = ends - starts
    return not len(starts) or bool(
        (lengths >= _SECONDS_LENGTH).all()
        and (lengths <= _MICROS_LENGTH).all()
        and all_among(octets, _TIME_BYTES)
        and (octets[ends - 1] != _DOT).all()
    )


def _present(chunk: pa.Array) -> tuple[Octets, Offsets, Offsets]:
    return _parts(chunk.drop_null() if chunk.null_count else chunk)


def _parts(chunk: pa.Array) -> tuple[Octets, Offsets, Offsets]:
    """(the bytes, where each value begins, where it ends) of an array of strings without nulls."""
    width = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
    _, offsets, content = chunk.buffers()
    if offsets is None or not len(chunk):
        return np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64)
    bounds = np.frombuffer(offsets, width)[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    octets = np.frombuffer(content, np.uint8) if content is not None else np.empty(0, np.uint8)
    bounds_in = bounds - bounds[0]
    return octets[bounds[0] : bounds[-1]], bounds_in[:-1], bounds_in[1:]


def _table(allowed: bytes) -> Octets:
    table = np.zeros(256, np.uint8)
    table[np.frombuffer(allowed, np.uint8)] = 1
    return table


_NUMBER_BYTES = _table(b"0123456789.-")
_TIME_BYTES = _table(b"0123456789-:.T ")
