"""Rows to the bytes of one file, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from onefold.errors import NotSupported
from onefold.formats.json import JsonLines
from onefold.formats.lines import split_records
from onefold.formats.write import json_lines, refuse_inexact

__all__ = ["DATA_SET_SUFFIXES", "Encoding", "encoding_named"]

_ROW_GROUP_ROWS = 1 << 20


@dataclass(frozen=True)
class Encoding:
    """suffix: of the files, with the dot. encode: a table to bytes. decode: a file back to a table of the schema."""

    suffix: str
    encode: Callable[[pa.Table], pa.Buffer]
    decode: Callable[[Path, pa.Schema], pa.Table]

    def refuse_inexact(self, schema: pa.Schema, label: str) -> None:
        """Raise SchemaError for a column that these files cannot keep."""
        refuse_inexact(self.encode, schema, label, f"a type that {self.suffix} files have")


def encoding_named(name: str | None, label: str) -> Encoding:
    """parquet (the default) or json. Raises NotSupported."""
    found = _ENCODINGS.get(name or "parquet")
    if found is None:
        raise NotSupported(f"{label} cannot be written as {name}.", expected='format="parquet" or "json"')
    return found


def _to_parquet(table: pa.Table) -> pa.Buffer:
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd", compression_level=1, row_group_size=_ROW_GROUP_ROWS)
    return out.getvalue()


def _from_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    table = pq.ParquetFile(path).read()
    missing = [column for column in schema if column.name not in table.schema.names]
    for column in missing:  # a column that was added to the flow later
        table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(schema.names).cast(schema)


def _to_json(table: pa.Table) -> pa.Buffer:
    return pa.py_buffer(json_lines(table))


def _from_json(path: Path, schema: pa.Schema) -> pa.Table:
    return JsonLines().decode(split_records(path.read_bytes(), is_final=True).values, schema, is_lenient=False).rows


_ENCODINGS = {
    "parquet": Encoding(".parquet", _to_parquet, _from_parquet),
    "json": Encoding(".jsonl", _to_json, _from_json),
    "jsonl": Encoding(".jsonl", _to_json, _from_json),
}

DATA_SET_SUFFIXES = frozenset(encoding.suffix for encoding in _ENCODINGS.values())
"""Of the files that a data set may hold."""
