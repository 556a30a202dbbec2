"""Values as SQL reads them, many at a time: the rows of a batch become the text of a statement without Python's loops.

A session of ours reads a backslash as itself (NO_BACKSLASH_ESCAPES), so a text is its bytes with every quote doubled.
Source: MySQL's reference manual, chapters Literal Values and Comparison Functions (what is compared as what).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["cells", "joined", "packed"]

_RAW = pa.large_binary()
_AS_TIMES = (pa.types.is_date, pa.types.is_time, pa.types.is_timestamp)


def cells(column: pa.Array, *, is_compared: bool = False) -> pa.LargeBinaryArray:
    """One literal a value, NULL among them. The values must be such as MySQL keeps: no NaN, years from 1 to 9999.

    is_compared: so that nothing is compared as a floating number that is none; else only so that it is stored exactly.
    """
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return _present(column.cast(pa.int8()) if pa.types.is_boolean(kind) else column, b"", b"")
    if pa.types.is_floating(kind):
        # A float32 as the double that it is: the server reads a double and would round its shortest text twice.
        exact = column.cast(pa.float64())
        return _present(exact, b"CAST('", b"' AS DOUBLE)") if is_compared else _present(exact, b"'", b"'")
    if pa.types.is_decimal(kind):
        after = f"' AS DECIMAL({max(kind.precision, 1)},{kind.scale}))".encode()
        return _present(column, b"CAST('", after) if is_compared else _present(column, b"'", b"'")
    if any(is_one(kind) for is_one in _AS_TIMES):
        word = _time_word(kind) if is_compared else b""
        return _present(_in_microseconds(column), word + b"'", b"'")
    before = b"_binary'" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else b"'"
    plain = column.cast(_RAW)
    return _present(pc.replace_substring(plain, b"'", b"''"), before, b"'")


def joined(
    parts: Sequence[pa.LargeBinaryArray], *, before: bytes = b"", between: bytes = b",", after: bytes = b""
) -> pa.LargeBinaryArray:
    """One text a row: its parts, NULL where one has no value."""
    raw = [pa.scalar(text, _RAW) for text in (before, between, after, b"")]
    options = {"null_handling": "replace", "null_replacement": "NULL"}
    row = pc.binary_join_element_wise(*parts, raw[1], **options)
    return pc.binary_join_element_wise(raw[0], row, raw[2], raw[3])


def packed(
    rows: pa.LargeBinaryArray, *, cut: int, most_bytes: int, most_rows: int
) -> Iterator[tuple[pa.LargeBinaryArray, memoryview]]:
    """Consecutive rows, and their texts as they stand, without the last `cut` bytes: most_bytes, or one row."""
    if not len(rows):
        return
    _, offsets, content = rows.buffers()
    ends = np.frombuffer(offsets, np.int64)[rows.offset : rows.offset + len(rows) + 1]
    whole = memoryview(content)
    start = 0
    while start < len(rows):
        end = int(np.searchsorted(ends, ends[start] + most_bytes + cut, side="right")) - 1
        end = min(max(end, start + 1), start + most_rows, len(rows))
        yield rows.slice(start, end - start), whole[int(ends[start]) : int(ends[end]) - cut]
        start = end


def _present(column: pa.Array, before: bytes, after: bytes) -> pa.LargeBinaryArray:
    text = column if column.type.equals(_RAW) else column.cast(pa.large_string()).cast(_RAW)
    if not before and not after:
        return text
    return pc.binary_join_element_wise(pa.scalar(before, _RAW), text, pa.scalar(after, _RAW), pa.scalar(b"", _RAW))


def _in_microseconds(column: pa.Array) -> pa.Array:
    """A moment in UTC, without its zone."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz)).cast(pa.timestamp("us"))
    return column.cast(pa.time64("us")) if pa.types.is_time(kind) else column


def _time_word(kind: pa.DataType) -> bytes:
    if pa.types.is_timestamp(kind):
        return b"TIMESTAMP"
    return b"TIME" if pa.types.is_time(kind) else b"DATE"
