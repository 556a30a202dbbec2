"""Rows of the stream as Arrow batches.

Values come as text. Those that a type of Arrow does not always hold (an infinite date, a NaN among decimals) stay
text, and the flow's reader makes them what the schema declares, exactly, or a dead letter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from onefold.connectors.postgres.changes.catalog import SeenTable
from onefold.connectors.spooling import OP_COLUMN
from onefold.errors import SourceError

__all__ = ["META", "Row", "RowsToArrow", "before_image", "first_read"]

META = pa.schema(
    [
        ("_table", pa.string()),
        ("_lsn", pa.int64()),
        ("_offset", pa.int64()),
        ("_xid", pa.int64()),
        ("_committed_at", pa.timestamp("us", "UTC")),
        ("_before", pa.string()),
    ]
)
"""_lsn: of the transaction's commit record, or of the place at which a row of the first reading fits in; _offset: the
row's number in there; _xid, _committed_at: of the transaction, NULL in the first reading; _before: the row before it
was changed or deleted, as JSON of texts, under REPLICA IDENTITY FULL."""

_TYPED = (pa.types.is_integer, pa.types.is_floating)


class Row(NamedTuple):
    """One change. values: of the wanted columns. key: as text, of the table's key."""

    op: str
    table: str
    values: Sequence[bytes | None]
    before: str | None
    lsn: int
    offset: int
    xid: int | None
    micros: int | None
    key: tuple[bytes | None, ...]
    size: int


class RowsToArrow:
    """Makes batches of the wanted columns. wanted: name -> type; meta: which columns of META."""

    def __init__(self, wanted: dict[str, pa.DataType], meta: Sequence[str], label: str) -> None:
        self.wanted = wanted
        self._meta = [name for name in META.names if name in {*meta, "_lsn", "_offset"}]
        self._label = label
        fields = [pa.field(name, _given(kind)) for name, kind in wanted.items()]
        fields += [pa.field(OP_COLUMN, pa.string()), *(META.field(name) for name in self._meta)]
        self._schema = pa.schema(fields)

    def batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        """All of them. Raises SourceError for a value that is none of its type."""
        columns = list(zip(*(row.values for row in rows), strict=True)) if self.wanted else []
        arrays = [
            self._array(name, list(values), kind, rows)
            for (name, kind), values in zip(self.wanted.items(), columns, strict=True)
        ]
        arrays.append(pa.array([row.op for row in rows], pa.string()))
        attributes = {"_committed_at": "micros"}
        for name in self._meta:
            found = [getattr(row, attributes.get(name, name[1:])) for row in rows]
            arrays.append(pa.array(found, META.field(name).type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _array(self, name: str, values: list[bytes | None], kind: pa.DataType, rows: Sequence[Row]) -> pa.Array:
        try:
            return _decoded(values, kind)
        except (pa.ArrowInvalid, ValueError) as error:
            raise SourceError(
                f"{self._label}: column {name} holds a value that cannot be read as {kind}.",
                found=str(error).splitlines()[0],
                next_step=f'Declare it as text: schema={{"{name}": "VARCHAR", …}}.',
                column=name,
                position=f"LSN {rows[0].lsn} to {rows[-1].lsn}",
            ) from error


def first_read(
    table: SeenTable, wanted: Sequence[str], rows: Iterable[tuple[tuple[Any, ...], Sequence[bytes | None]]], lsn: int
) -> Iterator[Row]:
    """Rows that are there, as upserts. rows: keys, and the values of all columns of the table."""
    names = [column.name for column in table.columns]
    places = [names.index(name) if name in names else len(names) for name in wanted]
    for number, (key, values) in enumerate(rows):
        picked = [[*values, None][place] for place in places]
        size = sum(len(value) for value in picked if value is not None)
        yield Row("upsert", table.name, picked, None, lsn, number, None, None, key, size)


def before_image(names: Sequence[str], values: Sequence[bytes | None]) -> str:
    """A whole old row as JSON of texts."""
    texts = [None if value is None else value.decode("utf8", "replace") for value in values]
    return json.dumps(dict(zip(names, texts, strict=True)), ensure_ascii=False)


def _given(kind: pa.DataType) -> pa.DataType:
    """The type that a column has before the flow's reader."""
    if any(is_typed(kind) for is_typed in _TYPED) or pa.types.is_boolean(kind):
        return kind
    return kind if pa.types.is_binary(kind) or pa.types.is_list(kind) else pa.string()


def _decoded(values: list[bytes | None], kind: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(kind):
        return pa.array([None if value is None else value == b"t" for value in values], kind)
    if pa.types.is_binary(kind):
        return pa.array([None if value is None else bytes.fromhex(value[2:].decode()) for value in values], kind)
    if pa.types.is_list(kind):
        return pa.array([None if value is None else _list(value.decode(), kind.value_type) for value in values], kind)
    texts = pa.array(values, pa.string())
    return texts.cast(kind) if any(is_typed(kind) for is_typed in _TYPED) else texts


def _list(text: str, kind: pa.DataType) -> list[Any]:
    """An array of one dimension. Raises ValueError for others."""
    if not text.startswith("{"):
        raise ValueError(f"an array that does not begin at 1: {text[:80]}")
    if text == "{}":
        return []
    return [_element(each, kind) for each in _elements(text)]


def _elements(text: str) -> list[str | None]:
    """The texts of an array's elements."""
    found: list[str | None] = []
    at, end = 1, len(text) - 1
    while at <= end:
        if text[at] == "{":
            raise ValueError(f"an array of several dimensions: {text[:80]}")
        if text[at] != '"':
            stop = text.find(",", at)
            stop = end if stop < 0 else stop
            word = text[at:stop]
            found.append(None if word.upper() == "NULL" else word)
            at = stop + 1
            continue
        letters = []
        at += 1
        while text[at] != '"':
            at += text[at] == "\\"
            letters.append(text[at])
            at += 1
        found.append("".join(letters))
        at += 2
    return found


def _element(text: str | None, kind: pa.DataType) -> Any:
    if text is None:
        return None
    if pa.types.is_boolean(kind):
        return text == "t"
    if pa.types.is_integer(kind):
        return int(text)
    return float(text) if pa.types.is_floating(kind) else text
