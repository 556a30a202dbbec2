"""Putting a batch together again: rows decoded on different paths, rows refused, each exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from onefold.errors import check
from onefold.formats.exact import Converter, Unfit
from onefold.formats.lines import CUT_MARK
from onefold.protocols import Decoded, Misfits

__all__ = ["Part", "Refusals", "around_nulls", "gather", "shorten", "texts", "to_part"]

_BLOCK = 50_000
_DETAIL_LENGTH = 200


@dataclass(frozen=True)
class Part:
    """Some decoded rows: index is the input row of each, ascending; rows has the declared schema."""

    index: npt.NDArray[np.int64]
    rows: pa.Table


class Refusals:
    """Rows that become misfits. Kept as Arrow beyond a block, so that millions stay small."""

    def __init__(self) -> None:
        self._blocks: list[pa.Table] = []
        self._index: list[int] = []
        self._reasons: list[str] = []
        self._details: list[str] = []

    def add(self, index: int, reason: str, detail: str) -> None:
        """Refuse one input row."""
        self._index.append(index)
        self._reasons.append(reason)
        self._details.append(shorten(detail))
        if len(self._index) >= _BLOCK:
            self._pack()

    def misfits(self) -> Misfits:
        """All of them, in the order of the input."""
        self._pack()
        table = pa.concat_tables(self._blocks) if self._blocks else _MISFITS.empty_table()
        if len(self._blocks) > 1 or len(table) > 1:
            table = table.sort_by("index")
        table = table.combine_chunks()
        return Misfits(*(_array(table.column(name)) for name in ("index", "reason", "detail")))

    def _pack(self) -> None:
        if self._index:
            columns = [self._index, self._reasons, self._details]
            self._blocks.append(pa.table(columns, schema=_MISFITS))
            self._index, self._reasons, self._details = [], [], []


_MISFITS = pa.schema([("index", pa.int64()), ("reason", pa.string()), ("detail", pa.string())])


def texts(payload: pa.Array | pa.ChunkedArray, refusals: Refusals) -> pa.ChunkedArray:
    """The payload as strings, without a copy; NULL, and refused, where there is no value or it is not UTF-8."""
    chunks = payload.chunks if isinstance(payload, pa.ChunkedArray) else [payload]
    target = pa.large_string() if pa.types.is_large_binary(payload.type) else pa.string()
    start, made = 0, []
    for chunk in chunks:
        try:
            made.append(chunk.cast(target))
        except pa.ArrowInvalid:
            made.append(_valid_only(chunk, target, start, refusals))
        if chunk.null_count:
            for row in np.flatnonzero(chunk.is_null().to_numpy(zero_copy_only=False)):
                refusals.add(start + int(row), "malformed", "there is no value")
        start += len(chunk)
    return pa.chunked_array(made, target)


def to_part(
    schema: pa.Schema,
    converters: Sequence[Converter],
    values: Iterable[tuple[int, Sequence[Any]]],
    refusals: Refusals,
) -> Part:
    """Convert rows of parsed values one by one; those that do not fit are refused with the column's name."""
    names = schema.names
    index: list[int] = []
    columns: list[list[Any]] = [[] for _ in names]
    for row, fields in values:
        converted = []
        try:
            for convert, value in zip(converters, fields, strict=True):
                converted.append(convert(value))
        except Unfit as error:
            refusals.add(row, "misfit", f"{names[len(converted)]}: {error}")
            continue
        index.append(row)
        for column, value in zip(columns, converted, strict=True):
            column.append(value)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return Part(np.asarray(index, np.int64), pa.table(arrays, schema=schema) if arrays else _no_columns(len(index)))


def gather(schema: pa.Schema, parts: Sequence[Part], refusals: Refusals, *, total: int) -> Decoded:
    """One batch from all parts, in the order of the input. Every one of `total` rows must be accounted for."""
    parts = [part for part in parts if len(part.index)]
    misfits = refusals.misfits()
    if not parts:
        kept, rows = np.empty(0, np.int64), schema.empty_table()
    elif len(parts) == 1:
        kept, rows = parts[0].index, parts[0].rows
    else:
        together = np.concatenate([part.index for part in parts])
        order = np.argsort(together, kind="stable")
        kept, rows = together[order], pa.concat_tables([part.rows for part in parts]).take(order)
    check(len(kept) + len(misfits) == total, "every input row is decoded or refused", found=len(kept), expected=total)
    return Decoded(rows, None if len(kept) == total else pa.array(kept), misfits)


def around_nulls(
    payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, decode: Callable[[pa.Array | pa.ChunkedArray], Decoded]
) -> Decoded:
    """A row without a value (a tombstone) is a row of NULLs; the others are decoded."""
    if not payload.null_count:
        return decode(payload)
    is_there = payload.is_valid()
    mask = np.asarray(is_there.to_numpy(zero_copy_only=False) if isinstance(is_there, pa.Array) else is_there, bool)
    numbers, gone = np.flatnonzero(mask), np.flatnonzero(~mask)
    found = decode(payload.filter(is_there))
    kept = numbers if found.kept is None else numbers[found.kept.to_numpy()]
    order = np.argsort(np.concatenate([kept, gone]), kind="stable")
    nulls = pa.Table.from_arrays([pa.nulls(len(gone), field.type) for field in schema], schema=schema)
    rows = pa.concat_tables([found.rows, nulls]).take(order)
    index = pa.array(numbers[found.misfits.index.to_numpy()], pa.int64())
    misfits = Misfits(index, found.misfits.reason, found.misfits.detail)
    every = pa.array(np.concatenate([kept, gone])[order]) if len(misfits) else None
    return Decoded(rows, every, misfits)


def shorten(text: str) -> str:
    """At most 200 characters of it, as valid Unicode."""
    text = text if len(text) <= _DETAIL_LENGTH else text[: _DETAIL_LENGTH - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _valid_only(chunk: pa.Array, target: pa.DataType, start: int, refusals: Refusals) -> pa.Array:
    """The chunk's valid rows; halving finds the others without looking at every row."""
    if len(chunk) == 1:
        is_cut = chunk[0].as_py().endswith(CUT_MARK)
        refusals.add(start, "malformed", "the record is too long" if is_cut else "not UTF-8")
        return pa.nulls(1, target)
    half = len(chunk) // 2
    made = []
    for part, offset in ((chunk.slice(0, half), start), (chunk.slice(half), start + half)):
        try:
            made.append(part.cast(target))
        except pa.ArrowInvalid:
            made.append(_valid_only(part, target, offset, refusals))
    return pa.concat_arrays(made)


def _array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _no_columns(length: int) -> pa.Table:
    return pa.table({"_": pc.cast(pa.nulls(length), pa.int8())}).select([])
