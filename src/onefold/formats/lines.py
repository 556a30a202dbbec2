"""Bytes cut into records at line ends: plain lines, and CSV records with line ends inside quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from onefold.errors import check
from onefold.kernel.scan import places_of

__all__ = ["CUT_MARK", "MAX_RECORD_BYTES", "Quoting", "Records", "split_records"]

MAX_RECORD_BYTES = 16 << 20

CUT_MARK = b"\xff[onefold: cut, the record is too long]"
"""The end of a value that is no whole record. It is not UTF-8, so no text format takes it for one."""

_SHOWN_BYTES = 4096


@dataclass(frozen=True)
class Quoting:
    """How CSV hides line ends: one byte each. escape: None when a quote is doubled instead."""

    delimiter: bytes
    quote: bytes
    escape: bytes | None = None


@dataclass(frozen=True)
class Records:
    """values: large_binary, without line ends. starts: the offset of each in the buffer. consumed: bytes used up."""

    values: pa.LargeBinaryArray
    starts: npt.NDArray[np.int64]
    consumed: int


def split_records(
    buffer: pa.Buffer | memoryview | bytes,
    *,
    is_final: bool,
    quoting: Quoting | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
    keep_ends: bool = False,
) -> Records:
    """The whole records in the buffer, which begins where a record begins.

    keep_ends: records may come with their line ends: for formats to which white space means nothing, without a copy.

    A record ends with LF or CR LF. What follows the last line end is a record only when is_final; otherwise it is not
    consumed, and comes first in the next buffer. An empty line is an empty record; a header line is a record like any
    other: the source leaves out the first one of a file whose format says `has_header`.

    A record longer than max_record_bytes comes out in pieces of that length, however the input is cut into buffers.
    Each piece is a value of its first 4,096 bytes and CUT_MARK, so that text formats call it malformed; the remainder
    after the last whole piece comes out as it is. So a buffer of more than max_record_bytes always gives a record.
    """
    check(max_record_bytes > _SHOWN_BYTES, "max_record_bytes is larger than what is shown of a cut record")
    arrow = buffer if isinstance(buffer, pa.Buffer) else pa.py_buffer(buffer)
    octets = np.frombuffer(arrow, np.uint8)
    ends = _line_ends(octets, bytes_of=memoryview(arrow), quoting=quoting)
    starts = np.concatenate([np.zeros(1, np.int64), ends + 1])
    tail = len(octets) - int(starts[-1])
    if tail > max_record_bytes or (ends - starts[:-1] > max_record_bytes).any():
        return _split_with_long(memoryview(arrow), starts, is_final, max_record_bytes)
    if tail and is_final:
        ends = np.append(ends, len(octets))
    elif len(starts) > len(ends):
        starts = starts[:-1]
    consumed = int(ends[-1]) + 1 if len(ends) else 0
    values = _with_ends(arrow, octets, starts, ends) if keep_ends else _values(arrow, octets, starts, ends)
    return Records(values, starts, min(consumed, len(octets)))


_LF, _CR = 10, 13


def _line_ends(octets: npt.NDArray[np.uint8], bytes_of: memoryview, quoting: Quoting | None) -> npt.NDArray[np.int64]:
    ends = places_of(octets, _LF)
    if quoting is None:
        return ends
    quotes = places_of(octets, quoting.quote[0])
    if not len(quotes):
        return ends
    if quoting.escape is None and _is_regular(octets, quotes, quoting):
        is_outside: npt.NDArray[np.bool_] = np.searchsorted(quotes, ends) % 2 == 0
        return np.asarray(ends[is_outside], np.int64)
    return _walked_ends(bytes(bytes_of), quoting)


def _is_regular(octets: npt.NDArray[np.uint8], quotes: npt.NDArray[np.int64], quoting: Quoting) -> bool:
    """Whether quotes open only where a field begins and close only where one ends, so that counting them is enough."""
    delimiter, quote = quoting.delimiter[0], quoting.quote[0]
    opening, closing = quotes[::2], quotes[1::2]
    before = octets[np.maximum(opening - 1, 0)]
    opens_well = (opening == 0) | (before == delimiter) | (before == _LF) | (before == quote)
    after = octets[np.minimum(closing + 1, len(octets) - 1)]
    at_end = closing == len(octets) - 1
    closes_well = at_end | (after == delimiter) | (after == _LF) | (after == _CR) | (after == quote)
    # A quote after a quote must be the second of a doubled pair, not the opening of an adjacent field.
    doubled = before == quote
    doubled[opening == 0] = False
    follows = np.zeros(len(opening), bool)
    follows[1:] = opening[1:] == closing[: len(opening) - 1] + 1
    return bool(opens_well.all() and closes_well.all() and (doubled == follows).all())


def _walked_ends(content: bytes, quoting: Quoting) -> npt.NDArray[np.int64]:
    """Field by field: a quote counts only where a field begins; an unclosed one runs to the end of the buffer."""
    quote, delimiter = re.escape(quoting.quote), re.escape(quoting.delimiter)
    if quoting.escape is None:
        inner = b"(?:[^%b]|%b%b)*+" % (quote, quote, quote)
    else:
        escape = re.escape(quoting.escape)
        inner = b"(?:[^%b%b]|%b.|%b%b)*+" % (quote, escape, escape, quote, quote)
    field = re.compile(b"(?:%b%b(?:%b|$))?[^%b\\n]*" % (quote, inner, quote, delimiter), re.DOTALL)
    ends, place = [], 0
    while place < len(content):
        found = field.match(content, place)
        place = found.end() if found else place
        if place < len(content) and content[place] == _LF:
            ends.append(place)
        place += 1
    return np.asarray(ends, np.int64)


def _with_ends(
    arrow: pa.Buffer, octets: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> pa.LargeBinaryArray:
    if not len(ends):
        return pa.array([], pa.large_binary())
    offsets = np.append(starts, min(int(ends[-1]) + 1, len(octets)))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(ends), [None, pa.py_buffer(offsets), arrow])


def _values(
    arrow: pa.Buffer, octets: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> pa.LargeBinaryArray:
    if not len(ends):
        return pa.array([], pa.large_binary())
    has_cr = (ends > starts) & (octets[np.maximum(ends - 1, 0)] == _CR)
    offsets = np.append(starts, min(int(ends[-1]) + 1, len(octets)))
    whole = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(ends), [None, pa.py_buffer(offsets), arrow])
    last_has_lf = int(ends[-1]) < len(octets)
    if last_has_lf and not has_cr.any():
        return pc.binary_slice(whole, 0, -1)
    if last_has_lf and has_cr.all():
        return pc.binary_slice(whole, 0, -2)
    view = memoryview(arrow)
    return pa.array(
        [bytes(view[start : end - cr]) for start, end, cr in zip(starts, ends, has_cr.astype(int), strict=True)],
        pa.large_binary(),
    )


def _split_with_long(
    content: memoryview, starts: npt.NDArray[np.int64], is_final: bool, max_record_bytes: int
) -> Records:
    """The same where at least one record is too long; starts are those of the records and of the tail."""
    values: list[bytes] = []
    places: list[int] = []
    bounds = [*starts.tolist(), len(content)]
    consumed = 0
    for number, start in enumerate(bounds[:-1]):
        is_tail = number == len(bounds) - 2
        end = bounds[number + 1] - (0 if is_tail else 1)
        while end - start > max_record_bytes:
            values.append(bytes(content[start : start + _SHOWN_BYTES]) + CUT_MARK)
            places.append(start)
            start = consumed = start + max_record_bytes
        if is_tail and (not is_final or start == end):
            break
        record = bytes(content[start:end])
        values.append(record[:-1] if record.endswith(b"\r") else record)
        places.append(start)
        consumed = bounds[number + 1]
    return Records(pa.array(values, pa.large_binary()), np.asarray(places, np.int64), consumed)
