"""Typed columns, or columns of text, into the declared types: exactly, or the row is a misfit.

Between two typed columns a value fits when it comes back unchanged from the declared type: the double 0.1 fits
DECIMAL(18,2), because 0.10 is 0.1 again; 0.125 does not. Text is judged as onefold.formats.exact says. Bytes fit
VARCHAR when they are UTF-8. Truth values and numbers never fit each other.
A column that is missing altogether is NULL; columns that are not declared are dropped.
Lenient: numbers and timestamps are rounded as DuckDB's casts round them; text as onefold.formats.exact does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from onefold.errors import SchemaError
from onefold.formats.duck import identifier, in_order, row_numbers, run
from onefold.formats.exact import Unfit, from_text
from onefold.formats.fast import typed_text
from onefold.formats.rows import Part, Refusals, gather
from onefold.formats.types import is_json, is_uuid, sql_type
from onefold.protocols import Decoded

__all__ = ["fit"]


def fit(table: pa.Table | pa.RecordBatch, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
    """Rows of exactly the declared schema; those with a value that does not fit are "misfit" with the column's name.

    Raises SchemaError for a column whose type can never fit the declared one.
    """
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    refusals = Refusals()
    part = fit_part(table, np.arange(len(table)), schema, refusals, is_lenient=is_lenient)
    return gather(schema, [part], refusals, total=len(table))


def fit_part(
    table: pa.Table, index: npt.NDArray[np.int64], schema: pa.Schema, refusals: Refusals, *, is_lenient: bool
) -> Part:
    """The same for some rows of a batch; index has the input row of each."""
    steps = [_step(table, field, is_lenient) for field in schema]
    found = _run([step for step in steps if step.sql is not None], table)
    complaints: dict[int, str] = {}
    columns = [_finish(step, found, complaints, len(table)) for step in steps]
    rows = pa.Table.from_arrays(columns, schema=schema) if columns else table.select([])
    for row in sorted(complaints):
        refusals.add(int(index[row]), "misfit", complaints[row])
    if complaints:
        keep = np.ones(len(table), bool)
        keep[list(complaints)] = False
        index, rows = index[keep], rows.filter(pa.array(keep))
    return Part(index, rows)


@dataclass(frozen=True)
class _Step:
    """How one declared column is made.

    sql: its value, and when it is in doubt, over the column `name` of the query's input; None: no query is needed.
    convert: for values in doubt, or for all values without sql; raises Unfit. None: in doubt is unfit.
    """

    field: pa.Field
    source: pa.ChunkedArray
    sql: tuple[str, str] | None = None
    convert: Callable[[Any], Any] | None = None

    @property
    def name(self) -> str:
        return f"x{self.field.name}"


def _step(table: pa.Table, field: pa.Field, is_lenient: bool) -> _Step:
    if field.name not in table.column_names:
        return _Step(field, pa.chunked_array([pa.nulls(len(table), field.type)]))
    source = _plain(table.column(field.name))
    if source.type == field.type and not is_uuid(field) and not is_json(field):
        return _Step(field, source)
    found, wanted = _family(source.type), _family(field.type)
    if found == "text":
        return _text_step(field, source, is_lenient)
    if found == "bytes" and wanted == "text":
        return _Step(field, source, convert=_utf8)
    if found not in _fits_into[wanted] or is_json(field) or is_uuid(field):
        raise SchemaError(
            f"Column {field.name!r} has the type {source.type}, which never fits {sql_type(field)}.",
            column=field.name, found=source.type, expected=sql_type(field),
            next_step="Declare the type that the column has and cast it in an expression.",
        )  # fmt: skip
    if found == "null":
        return _Step(field, pa.chunked_array([pa.nulls(len(table), field.type)]))
    return _cast_step(field, source, is_lenient)


def _text_step(field: pa.Field, source: pa.ChunkedArray, is_lenient: bool) -> _Step:
    if _family(field.type) == "text" and not is_json(field) and not is_uuid(field):
        return _Step(field, source.cast(field.type))
    convert = from_text(field, is_lenient=is_lenient)
    text = _quoted(field)
    value = typed_text(field, text)
    return _Step(field, source, None if value is None else (value, f"{value} IS NULL AND {text} IS NOT NULL"), convert)


def _cast_step(field: pa.Field, source: pa.ChunkedArray, is_lenient: bool) -> _Step:
    text = _quoted(field)
    value = f"TRY_CAST({text} AS {sql_type(field)})"
    back = f"TRY_CAST({value} AS {sql_type(pa.field(field.name, source.type))})"
    doubt = f"{value} IS NULL AND {text} IS NOT NULL" if is_lenient else f"{back} IS DISTINCT FROM {text}"
    return _Step(field, source, (value, doubt))


_Family = Literal["truth", "number", "text", "bytes", "date", "time", "nested", "null", "other"]

_fits_into: dict[_Family, tuple[_Family, ...]] = {
    "truth": ("truth", "null"),
    "number": ("number", "null"),
    "text": ("truth", "number", "date", "time", "null"),
    "bytes": ("bytes", "null"),
    "date": ("date", "null"),
    "time": ("time", "null"),
    "nested": ("nested", "null"),
    "null": ("null",),
    "other": (),
}


def _family(kind: pa.DataType) -> _Family:
    types = pa.types
    families: list[tuple[_Family, bool]] = [
        ("null", types.is_null(kind)),
        ("truth", types.is_boolean(kind)),
        ("number", types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)),
        ("text", types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)),
        ("bytes", types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)),
        ("date", types.is_date(kind) or types.is_timestamp(kind)),
        ("time", types.is_time(kind)),
        ("nested", types.is_nested(kind)),
    ]
    return next((family for family, holds in families if holds), "other")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without the encodings that say nothing about the value."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(column.cast(kind.storage_type))
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if pa.types.is_time32(kind):
        return column.cast(pa.time64("us"))
    if pa.types.is_date64(kind):
        return column.cast(pa.timestamp("ms"))
    if pa.types.is_fixed_size_binary(kind):
        return column.cast(pa.binary())
    return column


def _run(steps: list[_Step], table: pa.Table) -> pa.Table | None:
    if not steps:
        return None
    numbers = row_numbers(len(table))
    batch = pa.table(
        [*(step.source for step in steps), pa.array(np.arange(numbers.start, numbers.stop))],
        [*(step.name for step in steps), "i"],
    )
    outputs = "".join(
        f", {step.sql[0]} AS c{place}, {step.sql[1]} AS d{place}" for place, step in enumerate(steps) if step.sql
    )
    found = in_order(run(f"SELECT i{outputs} FROM _input", batch), numbers)
    names = [f"{kind}{step.name}" for step in steps for kind in "cd"]
    return found.drop_columns(["i"]).rename_columns(names)


def _finish(step: _Step, found: pa.Table | None, complaints: dict[int, str], length: int) -> pa.ChunkedArray:
    """The column, with NULL where the row is refused; complaints get the first reason of each row."""
    if step.sql is None and step.convert is None:
        return step.source
    if step.sql is None or found is None:
        doubtful: npt.NDArray[Any] = np.flatnonzero(step.source.is_valid().to_numpy())
        column = pa.chunked_array([pa.nulls(length, step.field.type)])
    else:
        doubtful = np.flatnonzero(found.column(f"d{step.name}").to_numpy())
        column = found.column(f"c{step.name}").cast(step.field.type)
    if not len(doubtful):
        return column
    values = []
    convert = step.convert or _refuse(step)
    for row, value in zip(doubtful.tolist(), step.source.take(doubtful).to_pylist(), strict=True):
        try:
            values.append(convert(value))
        except Unfit as error:
            values.append(None)
            complaints.setdefault(row, f"{step.field.name}: {error}")
    order = np.arange(length)
    order[doubtful] = length + np.arange(len(doubtful))
    patched = pa.chunked_array([*column.chunks, pa.array(values, step.field.type)], step.field.type)
    return patched.take(order)


def _refuse(step: _Step) -> Callable[[Any], Any]:
    def refuse(value: Any) -> Any:
        raise Unfit(f"{str(value)[:80]} does not fit {sql_type(step.field)} exactly")

    return refuse


def _utf8(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise Unfit("bytes that are not UTF-8 do not fit VARCHAR") from None


def _quoted(field: pa.Field) -> str:
    return identifier(f"x{field.name}")
