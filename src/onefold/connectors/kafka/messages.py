"""Rows as messages, and messages as rows again: values by a format, keys and headers from columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.spooling import OP_COLUMN, stored_schema
from onefold.errors import RowsRefused, SchemaError
from onefold.formats.json import JsonLines
from onefold.formats.write import json_values
from onefold.protocols import Encoder, WritingFormat
from onefold.types import Binding

__all__ = ["Batch", "Headers", "Layout", "Messages", "rows_of"]

Headers: TypeAlias = "Sequence[tuple[bytes, bytes | None]]"
Batch: TypeAlias = "tuple[pa.LargeBinaryArray, pa.LargeBinaryArray | None, list[Headers] | None]"
"""Values, keys and headers of messages."""


@dataclass(frozen=True)
class Layout:
    """What of a row stands where in a message. headers: the column that becomes headers. Raises SchemaError."""

    binding: Binding
    format: WritingFormat
    label: str
    headers: str | None = None

    @property
    def stored(self) -> pa.Schema:
        """The columns that a message keeps."""
        return stored_schema(self.binding)

    @property
    def value(self) -> pa.Schema:
        """The columns that a message's value holds: all but the headers; of raw bytes the one that is no key."""
        found = pa.schema([field for field in self.stored if field.name != self.headers])
        if self.format.name != "raw" or len(found) == 1:
            return found
        found = pa.schema([field for field in found if field.name not in self.binding.key])
        if len(found) != 1:
            raise SchemaError(
                f"{self.label} takes raw bytes, so the rows need one column beside the key.",
                found=", ".join(self.stored.names),
                expected="one BLOB or VARCHAR column, and the columns of key=",
                next_step="Choose it with select(…), or write another format.",
            )
        return found

    @property
    def has_plain_key(self) -> bool:
        """Whether the key is one column of text or bytes, written as it is."""
        key = self.binding.key
        kind = self.stored.field(key[0]).type if len(key) == 1 else None
        return kind is not None and (pa.types.is_string(kind) or pa.types.is_binary(kind))

    def check_headers(self) -> None:
        """Raise SchemaError unless the column of headers is there and holds names and values."""
        if self.headers is None:
            return
        names = self.stored.names
        kind = self.stored.field(self.headers).type if self.headers in names else None
        if kind is None or not _holds_headers(kind) or self.headers in self.binding.key:
            raise SchemaError(
                f"The column {self.headers} cannot become headers.",
                column=self.headers,
                found="no such column" if kind is None else str(kind),
                expected="MAP(VARCHAR, BLOB), or STRUCT(name VARCHAR, value BLOB)[] such as _headers; not a key",
            )


class Messages:
    """How one sink writes its rows. Made when the sink is opened: a registry is asked then.

    Raises SchemaError when messages cannot be made of the columns, SinkUnavailable, SinkRefused.
    """

    def __init__(self, layout: Layout, topic: str) -> None:
        layout.check_headers()
        self._layout = layout
        self._names = layout.value.names
        self._encode: Encoder = layout.format.encoder(layout.value, topic)

    def of(self, rows: pa.Table) -> Batch:
        """Messages; a delete is a tombstone. Raises RowsRefused for an upsert without a key."""
        binding = self._layout.binding
        values = self._encode(rows.select(self._names))
        if OP_COLUMN in rows.column_names and binding.mode == "upsert":
            is_delete = pc.equal(rows.column(OP_COLUMN), "delete").combine_chunks()
            values = pc.if_else(is_delete, pa.scalar(None, pa.large_binary()), values)
        headers = None if self._layout.headers is None else _headers(rows.column(self._layout.headers))
        if not binding.key:
            return values, None, headers
        keys = self._keys(rows)
        if binding.mode == "upsert" and keys.null_count:
            raise RowsRefused(
                f"{self._layout.label} is written by key, and {keys.null_count} rows have none.",
                sink=binding.sink,
                column=", ".join(binding.key),
            )
        return values, keys, headers

    def _keys(self, rows: pa.Table) -> pa.LargeBinaryArray:
        key = self._layout.binding.key
        if self._layout.has_plain_key:
            return pc.cast(rows.column(key[0]), pa.large_binary()).combine_chunks()
        return json_values(rows.select(list(key)))


def rows_of(layout: Layout, values: pa.ChunkedArray, keys: pa.ChunkedArray, headers: list[Headers]) -> pa.Table:
    """The rows of a topic; of an upsert the newest of each key, and none that was deleted."""
    if layout.binding.mode == "upsert":
        newest = {key: place for place, key in enumerate(keys.to_pylist())}
        is_there = values.is_valid().to_pylist()
        places = [place for place in sorted(newest.values()) if is_there[place]]
        values, keys = values.take(pa.array(places, pa.int64())), keys.take(pa.array(places, pa.int64()))
        headers = [headers[place] for place in places]
    schema, wanted = layout.stored, layout.value
    decoded = layout.format.decode(values, wanted, is_lenient=False)
    together = dict(zip(wanted.names, decoded.rows.columns, strict=True))
    kept = range(len(values)) if decoded.kept is None else decoded.kept.to_pylist()
    if layout.headers is not None:
        kind = schema.field(layout.headers).type
        together[layout.headers] = _header_column([headers[place] for place in kept], kind)
    rest = pa.schema([field for field in schema if field.name not in together])
    if rest:
        ours = keys.take(pa.array(kept, pa.int64()))
        is_plain = layout.has_plain_key
        found = pa.table([ours.cast(rest.field(0).type)], schema=rest) if is_plain else _from_json(ours, rest)
        together.update(zip(rest.names, found.columns, strict=True))
    return pa.table([together[name] for name in schema.names], schema=schema)


def _from_json(keys: pa.ChunkedArray, schema: pa.Schema) -> pa.Table:
    return JsonLines().decode(keys, schema, is_lenient=False).rows


def _holds_headers(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_map(kind):
        return bool(types.is_string(kind.key_type) and _is_octets(kind.item_type))
    if not types.is_list(kind) or not types.is_struct(kind.value_type) or kind.value_type.num_fields != 2:
        return False
    name, value = kind.value_type.field(0), kind.value_type.field(1)
    return bool([name.name, value.name] == ["name", "value"] and types.is_string(name.type) and _is_octets(value.type))


def _is_octets(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _headers(column: pa.ChunkedArray) -> list[Headers]:
    """One sequence a row; none where the row has NULL."""
    is_map = pa.types.is_map(column.type)
    made: list[Headers] = []
    for row in column.to_pylist():
        pairs = [pair if is_map else (pair and (pair["name"], pair["value"])) for pair in row or ()]
        if any(not pair or pair[0] is None for pair in pairs):
            raise RowsRefused("A header has no name.", column="headers")
        made.append([(name.encode(), value.encode() if isinstance(value, str) else value) for name, value in pairs])
    return made


def _header_column(headers: list[Headers], kind: pa.DataType) -> pa.Array:
    is_map = pa.types.is_map(kind)
    is_text = pa.types.is_string(kind.item_type if is_map else kind.value_type.field(1).type)
    rows = []
    for row in headers:
        pairs = [(_text(name), _text(value) if is_text else value) for name, value in row]
        rows.append(pairs if is_map else [{"name": name, "value": value} for name, value in pairs])
    return pa.array(rows, kind)


def _text(value: bytes | str | None) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
