"""JSON: one object per value, into typed columns, exactly.

What is an object is decided by DuckDB's reader: RFC 8259, and beyond it a trailing comma is let pass, as are NaN and
Infinity outside number columns. Of equal keys the first counts. A missing key and null are NULL; keys that the schema
does not name are ignored. Values are judged as onefold.formats.exact says; objects and lists do not fit VARCHAR. Empty
and blank values, a byte order mark, and bytes that are not UTF-8 are malformed. No value at all is a row of NULLs.

Four paths with the same results (tested): few rows are decoded in Python; many by one DuckDB query over all cores,
whose texts Arrow casts when the whole batch is plainly regular (onefold.formats.swift). Otherwise another query
reads every field as its raw text (a DECIMAL among the targets makes DuckDB do so), casts texts of safe shapes and
marks the rows with others; marked rows are then decoded one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from onefold.errors import ExtraMissing
from onefold.formats.duck import in_order, literal, query, row_numbers, run
from onefold.formats.exact import Converter, Unfit, converter, is_deep, parse_json
from onefold.formats.fast import typed_text
from onefold.formats.lines import MAX_RECORD_BYTES, Records, split_records
from onefold.formats.rows import Part, Refusals, around_nulls, gather, texts, to_part
from onefold.formats.swift import cast_texts, holds_flat_objects, is_swift
from onefold.formats.types import is_json
from onefold.formats.write import json_values, refuse_inexact
from onefold.protocols import Decoded, Encoder

__all__ = ["JsonLines"]

_VECTOR = 2048  # rows in one of DuckDB's vectors
_MOST_CHUNKS = 32
_FEW_ROWS = 100  # below it, planning a query costs more than decoding in Python
_BLOCK_ROWS = 20_000  # marked rows decoded at a time, so that memory stays bounded
_GUARDED_BATCHES = 64  # after a malformed row, how many batches are validated first instead of decoded twice


class JsonLines:
    """One JSON object per binary value (newline-delimited JSON when it comes from a file).

    Raises ExtraMissing when the DuckDB that is installed loses digits of numbers.
    """

    has_header = False

    def __init__(self) -> None:
        demand_digits()
        self._guarded_batches = 0  # a hint for speed; threads may race on it without harm

    @property
    def name(self) -> str:
        """Json."""
        return "json"

    def split(self, buffer: pa.Buffer, *, is_final: bool, max_record_bytes: int = MAX_RECORD_BYTES) -> Records:
        """The whole lines of a buffer with their ends, see `split_records`."""
        return split_records(buffer, is_final=is_final, max_record_bytes=max_record_bytes, keep_ends=True)

    def decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
        """Decode each value. Rows that hold no object are "malformed", values that do not fit "misfit"; a row without
        a value (a tombstone) is a row of NULLs.

        Raises SchemaError for a column of a type that JSON cannot carry.
        """
        return around_nulls(payload, schema, lambda there: self._decode(there, schema, is_lenient))

    def _decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, is_lenient: bool) -> Decoded:
        plan = _plan(schema.serialize().to_pybytes(), is_lenient)
        refusals = Refusals()
        text = texts(payload, refusals)
        if len(text) <= _FEW_ROWS and plan.may_parse_in_python:
            parts = _decode_few(plan, text, refusals)
        else:
            parts = self._decode_many(plan, text, refusals)
        return gather(schema, parts, refusals, total=len(text))

    def encoder(self, schema: pa.Schema, topic: str) -> Encoder:
        """One JSON object a row, see onefold.formats.write. Raises SchemaError for a type that JSON does not have."""
        refuse_inexact(json_values, schema, "JSON", "a type that JSON has")
        return json_values

    def _decode_many(self, plan: _Plan, text: pa.ChunkedArray, refusals: Refusals) -> list[Part]:
        swift = _decode_swift(plan, text) if plan.swift and not self._guarded_batches else None
        if swift is not None:
            return [swift]
        if self._guarded_batches:
            self._guarded_batches -= 1
            found = _run(plan.guarded, text)
        else:
            try:
                found = _run(plan.trusting, text)
            except duckdb.InvalidInputException:  # a malformed row: DuckDB does not say which
                self._guarded_batches = _GUARDED_BATCHES
                found = _run(plan.guarded, text)
        fast, marked = _split(plan, found)
        return [fast, *_decode_marked(plan, text, marked, refusals)]


@dataclass(frozen=True)
class _Plan:
    """What decoding into one schema needs, made once.

    trusting, guarded: the queries; the first fails on a malformed row. raw: every field as JSON text. swift: every
    field as text; "" when a column is of a type that the swift path does not cast.
    """

    schema: pa.Schema
    converters: tuple[Converter, ...]
    trusting: str
    guarded: str
    raw: str
    swift: str
    in_python: tuple[int, ...]
    may_parse_in_python: bool


@dataclass(frozen=True)
class _Column:
    """How the query reads one field. value: of the field's type, or JSON text when is_in_python."""

    read_as: str
    value: str
    text: str
    doubt: str | None
    is_in_python: bool = False


@lru_cache(maxsize=64)
def _plan(serialized: bytes, is_lenient: bool) -> _Plan:
    schema = pa.ipc.read_schema(pa.py_buffer(serialized))
    columns = [_column(field) for field in schema]
    values = "".join(f", {column.value} AS c{index}" for index, column in enumerate(columns))
    raw = "".join(f", CAST({column.text} AS VARCHAR) AS c{index}" for index, column in enumerate(columns))
    is_no_object = "coalesce({}) IS NULL".format(", ".join(f"CAST({c.text} AS VARCHAR)" for c in columns) or "NULL")
    marks = " OR ".join([is_no_object, *(column.doubt for column in columns if column.doubt)])
    as_text = _reading(schema.names, [column.read_as for column in columns])
    as_json = _reading(schema.names, ["JSON"] * len(columns))

    def decoding(parse: str) -> str:
        # Materialized, or the optimizer parses once for every use.
        return f"WITH p AS MATERIALIZED (SELECT i, {parse} AS e FROM _input) SELECT i{values}, {marks} AS m FROM p"

    return _Plan(
        schema,
        tuple(converter(field, is_lenient=is_lenient) for field in schema),
        trusting=decoding(as_text),
        guarded=decoding(f"CASE WHEN json_valid(v) THEN {as_text} END"),
        raw=(
            "WITH p AS MATERIALIZED (SELECT i, CASE WHEN json_valid(v) THEN json_type(v) END AS kind, "
            f"CASE WHEN json_valid(v) THEN {as_json} END AS e FROM _input) SELECT i, kind{raw} FROM p"
        ),
        swift=_swift_query(schema) if not is_lenient and is_swift(schema) else "",
        in_python=tuple(index for index, column in enumerate(columns) if column.is_in_python),
        may_parse_in_python=not any(_holds_json(field) for field in schema),
    )


def _swift_query(schema: pa.Schema) -> str:
    texts_of = "".join(f", struct_extract(e, {literal(name)}) AS c{place}" for place, name in enumerate(schema.names))
    parse = _reading(schema.names, ["VARCHAR"] * len(schema))
    return f"WITH p AS MATERIALIZED (SELECT i, {parse} AS e FROM _input) SELECT i{texts_of} FROM p"


def _decode_swift(plan: _Plan, text: pa.ChunkedArray) -> Part | None:
    """The whole batch on the swift path, or None: then nothing has been decided."""
    if not holds_flat_objects(text):
        return None
    try:
        found = _run(plan.swift, text)
    except duckdb.InvalidInputException:
        return None
    rows = cast_texts([found.column(f"c{place}") for place in range(len(plan.schema))], plan.schema)
    return None if rows is None else Part(np.arange(len(text)), rows)


@lru_cache(maxsize=1)
def demand_digits() -> None:
    """Raise ExtraMissing unless this DuckDB gives numbers as they are written: 2.0.1 takes them through a double."""
    probe = pa.table({"v": ['{"a": 1.10, "b": 1234567890123456.78}']})
    found = query(
        f"SELECT e.a AS a, e.b AS b FROM (SELECT {_reading(['a', 'b'], ['VARCHAR', 'VARCHAR'])} AS e FROM t)", t=probe
    )
    if found.to_pylist() != [{"a": "1.10", "b": "1234567890123456.78"}]:
        raise ExtraMissing(
            "JSON cannot be read exactly by the DuckDB that is installed: it loses digits of numbers.",
            found=f"duckdb {duckdb.__version__}",
            expected="duckdb 2.0.0",
            next_step='pip install "duckdb==2.0.0"',
        )


def _reading(names: Sequence[str], types: Sequence[str]) -> str:
    # "_" is no column's name; a DECIMAL keeps the digits of all numbers as they are written.
    target = dict(zip(names, types, strict=True)) | {"_": "DECIMAL(1,0)"}
    return f"from_json(v, {literal(json.dumps(target))})"


def _column(field: pa.Field) -> _Column:
    text = f"struct_extract(e, {literal(field.name)})"
    if is_json(field):
        return _Column("JSON", f"CAST({text} AS VARCHAR)", text, None)
    value = typed_text(field, text)
    if value is None:
        return _Column("JSON", f"CAST({text} AS VARCHAR)", text, None, is_in_python=True)
    if value == text:  # an object or a list arrives as its JSON text: the comparisons find texts that begin so
        doubt = f"({text} >= '{{' AND {text} < '|') OR ({text} >= '[' AND {text} < '\\')"
        return _Column("VARCHAR", value, text, f"coalesce({doubt}, false)")
    return _Column("VARCHAR", value, text, f"({value} IS NULL AND {text} IS NOT NULL)")


def _holds_json(field: pa.Field) -> bool:
    """Whether the text of JSON values counts (two writers need not agree), which only DuckDB's may then decide."""
    if is_json(field):
        return True
    return any(_holds_json(field.type.field(index)) for index in range(field.type.num_fields))


def _run(sql: str, text: pa.ChunkedArray) -> pa.Table:
    """The statement's rows in the order of the texts, one for each."""
    numbers = row_numbers(len(text))
    return in_order(run(sql, _in_chunks(text, numbers.start)), numbers)


def _in_chunks(text: pa.ChunkedArray, first: int) -> pa.Table:
    """The texts with their row numbers, cut so that all of DuckDB's threads find work."""
    vectors = len(text) // _VECTOR + 1
    size = -(-vectors // _MOST_CHUNKS) * _VECTOR
    batches = []
    for chunk in text.chunks:
        for offset in range(0, len(chunk), size):
            piece = chunk.slice(offset, size)
            batches.append(pa.record_batch([piece, pa.array(np.arange(first, first + len(piece)))], ["v", "i"]))
            first += len(piece)
    return pa.Table.from_batches(batches, pa.schema([("v", text.type), ("i", pa.int64())]))


def _split(plan: _Plan, found: pa.Table) -> tuple[Part, npt.NDArray[np.int64]]:
    """The rows that are surely exact, and the numbers of the others."""
    index = np.arange(len(found))
    marks = found.column("m").to_numpy().astype(bool)
    columns = [found.column(f"c{position}") for position in range(len(plan.schema))]
    for position in plan.in_python:
        columns[position] = _convert_column(plan, position, columns[position], marks)
    arrays = [column.cast(field.type) for column, field in zip(columns, plan.schema, strict=True)]
    rows = pa.Table.from_arrays(arrays, schema=plan.schema)
    if not marks.any():
        return Part(index, rows), index[:0]
    return Part(index[~marks], rows.filter(pa.array(~marks))), index[marks]


def _convert_column(
    plan: _Plan, position: int, column: pa.ChunkedArray, marks: npt.NDArray[np.bool_]
) -> pa.ChunkedArray:
    """A column that SQL has no exact cast for. Rows that do not fit are marked."""
    convert = plan.converters[position]
    values: list[Any] = []
    for row, text in enumerate(column.to_pylist()):
        try:
            values.append(None if text is None or marks[row] else convert(parse_json(text)))
        except Unfit:
            marks[row] = True
            values.append(None)
    return pa.chunked_array([pa.array(values, plan.schema.field(position).type)])


def _decode_marked(
    plan: _Plan, text: pa.ChunkedArray, marked: npt.NDArray[np.int64], refusals: Refusals
) -> Iterator[Part]:
    """One by one, a bounded block at a time; rows that are NULL have been refused already."""
    for start in range(0, len(marked), _BLOCK_ROWS):
        numbers = marked[start : start + _BLOCK_ROWS]
        block = text.take(numbers)
        there = block.is_valid().to_numpy()
        numbers, block = numbers[there], block.filter(pa.array(there))
        if len(numbers):
            found = _run(plan.raw, block)
            yield to_part(plan.schema, plan.converters, _raw_rows(found, numbers, block, refusals), refusals)


def _raw_rows(
    found: pa.Table, numbers: npt.NDArray[np.int64], block: pa.ChunkedArray, refusals: Refusals
) -> Iterator[tuple[int, Sequence[Any]]]:
    kinds, rows, lines = found.column("kind").to_pylist(), numbers.tolist(), block.to_pylist()
    columns = [found.column(position).to_pylist() for position in range(2, found.num_columns)]
    for position, kind in enumerate(kinds):
        row = rows[position]
        if kind == "OBJECT":
            yield row, [None if column[position] is None else parse_json(column[position]) for column in columns]
        elif kind is None:
            refusals.add(row, "malformed", _complaint(lines[position]))
        else:
            refusals.add(row, "malformed", f"an object was expected, not {kind.lower()}")


def _decode_few(plan: _Plan, text: pa.ChunkedArray, refusals: Refusals) -> list[Part]:
    """In Python, row by row; what Python's reader does not take as it stands is left to DuckDB's."""
    names = plan.schema.names
    deferred: list[int] = []

    def rows() -> Iterator[tuple[int, list[Any]]]:
        for row, value in enumerate(text.to_pylist()):
            if value is None:
                continue
            has_pairs = "\\ud" in value or "\\uD" in value  # half a surrogate pair passes Python's reader
            found = None if has_pairs or is_deep(value) else parse_json(value)
            if isinstance(found, dict):
                yield row, [found.get(name) for name in names]
            else:
                deferred.append(row)

    part = to_part(plan.schema, plan.converters, rows(), refusals)
    return [part, *_decode_marked(plan, text, np.asarray(deferred, np.int64), refusals)]


def _complaint(text: str) -> str:
    """What is wrong with a text that DuckDB's reader refuses."""
    if not text.strip():
        return "an object was expected, not an empty value"
    if text.startswith("\ufeff"):
        return "it begins with a byte order mark, which JSON does not have"
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return "not JSON: half of a surrogate pair"
