"""Rows as messages, and messages as rows again: values by a format, keys from columns."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.spooling import OP_COLUMN, stored_schema
from onefold.errors import RowsRefused, SchemaError
from onefold.formats.json import JsonLines
from onefold.formats.write import json_values
from onefold.protocols import Encoder, Format, WritingFormat
from onefold.types import Binding

__all__ = ["Messages", "rows_of"]


class Messages:
    """How one sink writes its rows. Made when the sink is opened: a registry is asked then.

    Raises SchemaError when a value cannot be made of the columns, SinkUnavailable, SinkRefused.
    """

    def __init__(self, binding: Binding, format: WritingFormat, topic: str, label: str) -> None:  # noqa: A002
        self._binding = binding
        self._label = label
        self._schema = stored_schema(binding)
        self._values = _value_columns(self._schema, format, binding.key, label)
        self._encode: Encoder = format.encoder(self._values, topic)

    def of(self, rows: pa.Table) -> tuple[pa.LargeBinaryArray, pa.LargeBinaryArray | None]:
        """Values and keys; a delete is a tombstone. Raises RowsRefused for an upsert without a key."""
        binding = self._binding
        values = self._encode(rows.select(self._values.names))
        if OP_COLUMN in rows.column_names and binding.mode == "upsert":
            is_delete = pc.equal(rows.column(OP_COLUMN), "delete").combine_chunks()
            values = pc.if_else(is_delete, pa.scalar(None, pa.large_binary()), values)
        if not binding.key:
            return values, None
        keys = self._keys(rows)
        if binding.mode == "upsert" and keys.null_count:
            raise RowsRefused(
                f"{self._label} is written by key, and {keys.null_count} rows have none.",
                sink=binding.sink,
                column=", ".join(binding.key),
            )
        return values, keys

    def _keys(self, rows: pa.Table) -> pa.LargeBinaryArray:
        if _is_plain_key(self._schema, self._binding.key):
            return pc.cast(rows.column(self._binding.key[0]), pa.large_binary()).combine_chunks()
        return json_values(rows.select(list(self._binding.key)))


def rows_of(
    binding: Binding,
    format: Format,  # noqa: A002
    label: str,
    values: pa.ChunkedArray,
    keys: pa.ChunkedArray,
) -> pa.Table:
    """The rows of a topic; of an upsert the newest of each key, and none that was deleted."""
    schema = stored_schema(binding)
    if binding.mode == "upsert":
        newest = {key: place for place, key in enumerate(keys.to_pylist())}
        places = pa.array(sorted(newest.values()), pa.int64())
        values, keys = values.take(places), keys.take(places)
        is_there = values.is_valid()
        values, keys = values.filter(is_there), keys.filter(is_there)
    wanted = _value_columns(schema, format, binding.key, label)
    decoded = format.decode(values, wanted, is_lenient=False)
    if wanted.names == schema.names:
        return decoded.rows
    kept = keys if decoded.kept is None else keys.take(decoded.kept)
    rest = pa.schema([field for field in schema if field.name not in wanted.names])
    if _is_plain_key(schema, binding.key):
        found = pa.table([kept.cast(rest.field(0).type)], schema=rest)
    else:
        found = JsonLines().decode(kept, rest, is_lenient=False).rows
    together = dict(zip(wanted.names, decoded.rows.columns, strict=True))
    together.update(zip(rest.names, found.columns, strict=True))
    return pa.table([together[name] for name in schema.names], schema=schema)


def _value_columns(schema: pa.Schema, format: Format, key: tuple[str, ...], label: str) -> pa.Schema:  # noqa: A002
    """The columns that a message's value holds: all; of raw bytes the one that is no key. Raises SchemaError."""
    if format.name != "raw" or len(schema) == 1:
        return schema
    found = [field for field in schema if field.name not in key]
    if len(found) != 1:
        raise SchemaError(
            f"{label} takes raw bytes, so the rows need one column beside the key.",
            found=", ".join(schema.names),
            expected="one BLOB or VARCHAR column, and the columns of key=",
            next_step="Choose it with select(…), or write another format.",
        )
    return pa.schema(found)


def _is_plain_key(schema: pa.Schema, key: tuple[str, ...]) -> bool:
    """Whether the key is one column of text or bytes, written as it is."""
    kind = schema.field(key[0]).type if len(key) == 1 else None
    return kind is not None and (pa.types.is_string(kind) or pa.types.is_binary(kind))
