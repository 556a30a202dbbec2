"""CSV: one record per value, into typed columns, exactly.

Quotes count only where a field begins; text after a closing quote, an unclosed quote, and a line end outside quotes
are malformed, as is any number of fields other than the number of columns. Fields are text, judged as
onefold.formats.exact says; lists, structs, maps and JSON are written as JSON, bytes in base64. A field that is the
`null` text, quoted or not, is NULL. Empty records, no value at all, and bytes that are not UTF-8 are malformed.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from onefold.errors import SchemaError, SourceError
from onefold.formats.casts import fit_part
from onefold.formats.lines import MAX_RECORD_BYTES, Quoting, Records, split_records
from onefold.formats.rows import Refusals, gather, texts
from onefold.protocols import Decoded

__all__ = ["Csv"]

_BLOCK_ROWS = 50_000  # quoted records taken apart at a time in Python


@dataclass(frozen=True)
class Csv:
    """Comma-separated values and their dialects; `of.csv(…)`.

    Args:
        delimiter, quote: one character each. escape: the character that hides a quote or a delimiter; None: a quote
            inside quotes is doubled.
        header: every file begins with a line of column names.
        null: the text that stands for NULL.
        columns: the fields of a record in order; None: the schema's columns in the schema's order. Fields that the
            schema does not have are ignored.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    header: bool = True
    null: str = ""
    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise SchemaError("CSV needs its columns one by one.", found=repr(self.columns), expected='["id", …]')
        if self.columns is not None:
            object.__setattr__(self, "columns", tuple(self.columns))  # so that two that are equal hash alike
        for option in ("delimiter", "quote", "escape"):
            value = getattr(self, option)
            if value is None and option == "escape":
                continue
            if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in "\r\n":
                raise SchemaError(f"CSV needs one ASCII character as {option}.", found=repr(value))
        if len({self.delimiter, self.quote, self.escape}) < 3:
            raise SchemaError("CSV needs three different characters as delimiter, quote and escape.")

    @property
    def name(self) -> str:
        """csv."""
        return "csv"

    @property
    def has_header(self) -> bool:
        """Whether the first record of a file is no row."""
        return self.header

    def split(self, buffer: pa.Buffer, *, is_final: bool, max_record_bytes: int = MAX_RECORD_BYTES) -> Records:
        """The whole records of a buffer, see `split_records`."""
        escape = None if self.escape is None else self.escape.encode()
        quoting = Quoting(self.delimiter.encode(), self.quote.encode(), escape)
        return split_records(buffer, is_final=is_final, quoting=quoting, max_record_bytes=max_record_bytes)

    def check_header(self, record: bytes, schema: pa.Schema, *, where: str) -> None:
        """Raises SourceError unless a file's header names the columns in order: none is ever taken for another."""
        expected = list(self.columns or schema.names)
        found = self._fields([record.decode("utf-8-sig", "replace")])
        if found != [expected]:
            raise SourceError(
                "The header is not that of the declared columns.",
                found=self.delimiter.join(found[0]) if found else record[:200],
                expected=self.delimiter.join(expected),
                next_step=self._advice(record, expected),
                file=where,
            )

    def _advice(self, record: bytes, expected: Sequence[str]) -> str:
        """What would make the header right: another delimiter, or the columns as they stand."""
        for mark, shown in ((",", ","), (";", ";"), ("\t", "\\t"), ("|", "|")):
            if mark not in (self.delimiter, self.quote, self.escape):
                other = replace(self, delimiter=mark)._fields([record.decode("utf-8-sig", "replace")])
                if other and len(other[0]) > 1 and set(expected) <= set(other[0]):
                    return f'The file is delimited by {shown}: read it with format=of.csv(delimiter="{shown}").'
        return "Declare the columns in the file's order, or name its own with format=of.csv(columns=[…])."

    def decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
        """Decode each record. Wrong numbers of fields and broken quotes are "malformed", other values "misfit"."""
        names = list(self.columns or schema.names)
        missing = [name for name in schema.names if name not in names]
        if missing:
            raise SchemaError("The schema has columns that the CSV has not.", found=missing, expected=names)
        refusals = Refusals()
        text = texts(payload, refusals)
        index = np.flatnonzero(text.is_valid().to_numpy())
        lines = text.drop_null()
        split = self._split_plain(lines, names)
        if split is None:
            index, split = self._split_quoted(lines, index, names, refusals)
        part = fit_part(split, index, schema, refusals, is_lenient=is_lenient)
        return gather(schema, [part], refusals, total=len(text))

    def _split_plain(self, lines: pa.ChunkedArray, names: Sequence[str]) -> pa.Table | None:
        """Fields of records without quotes, by Arrow's reader; None: some record needs a closer look."""
        if not len(lines) or pc.min(pc.binary_length(lines)).as_py() == 0:
            return None
        together = lines.combine_chunks()
        offsets = pa.array([0, len(together)], pa.int64() if pa.types.is_large_string(lines.type) else pa.int32())
        make = pa.LargeListArray if pa.types.is_large_string(lines.type) else pa.ListArray
        joined = pc.binary_join(make.from_arrays(offsets, together), pa.scalar("\n", together.type))
        content = joined[0].as_buffer().to_pybytes()
        special = [self.quote, "\r", *([self.escape] if self.escape else [])]
        if any(mark.encode() in content for mark in special) or content.count(b"\n") != len(lines) - 1:
            return None
        if content.startswith(codecs.BOM_UTF8):  # Arrow's reader would take it away
            return None
        try:
            found = pacsv.read_csv(
                pa.BufferReader(content),
                read_options=pacsv.ReadOptions(column_names=list(names), block_size=8 << 20),
                parse_options=pacsv.ParseOptions(
                    delimiter=self.delimiter, quote_char=False, escape_char=False, ignore_empty_lines=False
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), null_values=[self.null], strings_can_be_null=True
                ),
            )
        except pa.ArrowInvalid:  # some record has another number of fields
            return None
        return found if len(found) == len(lines) else None

    def _split_quoted(
        self, lines: pa.ChunkedArray, index: npt.NDArray[np.int64], names: Sequence[str], refusals: Refusals
    ) -> tuple[npt.NDArray[np.int64], pa.Table]:
        """Fields of any records, by Python's reader; records that it refuses are refused."""
        kind = pa.schema([(name, pa.string()) for name in names])
        kept: list[npt.NDArray[np.int64]] = []
        tables = [kind.empty_table()]
        for start in range(0, len(lines), _BLOCK_ROWS):
            block = lines.slice(start, _BLOCK_ROWS).to_pylist()
            rows, numbers = self._rows(block, index[start : start + len(block)], len(names), refusals)
            kept.append(numbers)
            columns = list(zip(*rows, strict=True)) or [()] * len(names)
            tables.append(pa.table([[None if v == self.null else v for v in column] for column in columns], kind))
        return np.concatenate([index[:0], *kept]), pa.concat_tables(tables)

    def _rows(
        self, block: list[str], numbers: npt.NDArray[np.int64], width: int, refusals: Refusals
    ) -> tuple[list[list[str]], npt.NDArray[np.int64]]:
        together = self._fields(block)
        if together is not None and len(together) == len(block) and all(len(row) == width for row in together):
            return together, numbers
        rows, kept = [], []
        for line, number in zip(block, numbers.tolist(), strict=True):
            fields = self._fields([line])
            if fields is None or len(fields) != 1:
                refusals.add(number, "malformed", "a quote or a line end is out of place")
            elif len(fields[0]) != width or not line:
                refusals.add(number, "malformed", f"{len(fields[0])} fields where {width} were expected")
            else:
                rows.append(fields[0])
                kept.append(number)
        return rows, np.asarray(kept, np.int64)

    def _fields(self, lines: list[str]) -> list[list[str]] | None:
        """Python's reading of the records; None when one is broken. An unclosed quote draws in the next record."""
        reader = csv.reader(
            lines,
            delimiter=self.delimiter, quotechar=self.quote, escapechar=self.escape, doublequote=self.escape is None,
            strict=True,
        )  # fmt: skip
        try:
            return list(reader)
        except csv.Error:
            return None
