"""What no MySQL keeps, and what a table as it was found does not: told before an epoch is sealed.

Every row is looked at, also one whose place a later row of its key takes: whether a row is refused must not depend on
how epochs are cut.
Source: MySQL's reference manual, chapters Numeric Data Types, Date and Time Data Types, and Packet Too Large.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.mysql.literals import cells, joined
from onefold.connectors.mysql.tables import Shape
from onefold.connectors.spooling import OP_COLUMN, stored_schema
from onefold.errors import RowsRefused
from onefold.types import Binding

__all__ = ["storable"]

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""1 January of year 1 and 31 December of 9999, in days of 1970."""

_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}

_CELL_BYTES = 64
"""What a value takes in a statement beside its bytes and twice its column's name, at most."""

_STATEMENT_BYTES = 512


def storable(
    batch: pa.RecordBatch, binding: Binding, label: str, shape: Shape | None, packet_bytes: int | None
) -> pa.RecordBatch:
    """The batch. shape, packet_bytes: None: the sink was never opened. Raises RowsRefused."""
    rows = batch
    if binding.mode == "upsert" and OP_COLUMN in batch.schema.names:
        rows = batch.filter(pc.not_equal(batch.column(OP_COLUMN), "delete"))
    check = _Rows(rows.select(stored_schema(binding).names), label, binding.sink)
    for field in check.rows.schema:
        check.demand_value(field)
        if shape is not None:
            check.demand_length(field, shape)
    if packet_bytes is not None:
        check.demand_packet(packet_bytes)
    return batch


class _Rows:
    def __init__(self, rows: pa.RecordBatch, label: str, sink: str) -> None:
        self.rows = rows
        self._label = label
        self._sink = sink

    def demand_value(self, field: pa.Field) -> None:
        """Finite numbers; the years that a date has; times of a day, which 24:00 is not."""
        column = self.rows.column(field.name)
        if pa.types.is_floating(field.type):
            finite = pc.is_finite(column.cast(pa.float64()))
            if pc.all(finite).as_py() is False:
                wrong = column.filter(pc.invert(finite))[0]
                next_step = "Turn it into NULL, or leave such rows out, in select(…) or where(…), then run again."
                raise self._refusal("a number", field.name, wrong, "neither NaN nor infinity", next_step)
        elif pa.types.is_date(field.type) or pa.types.is_timestamp(field.type):
            day = _DAY[field.type.unit] if pa.types.is_timestamp(field.type) else 1
            whole = column.cast(pa.int64() if pa.types.is_timestamp(field.type) else pa.int32())
            ends = pc.min_max(whole).as_py()
            if ends["min"] is not None and not _FIRST_DAY * day <= ends["min"] <= ends["max"] < (_LAST_DAY + 1) * day:
                raise self._refusal("a date", field.name, f"{ends['min']} to {ends['max']}", "years 1 to 9999")
        elif pa.types.is_time(field.type):
            ends = pc.min_max(column.cast(pa.int32() if pa.types.is_time32(field.type) else pa.int64())).as_py()
            if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] < _DAY[field.type.unit]:
                raise self._refusal(
                    "a time", field.name, f"{ends['max']} {field.type.unit}", "00:00 to 23:59:59.999999"
                )

    def demand_length(self, field: pa.Field, shape: Shape) -> None:
        """No NULL where the table has none: for some columns the server would make up a value. No long texts."""
        column = self.rows.column(field.name)
        if field.name in shape.not_null and column.null_count:
            raise self._refusal("NULL", field.name, f"{column.null_count} rows", "NOT NULL")
        limits: Mapping[str, int] = shape.most_bytes
        measure, word = pc.binary_length, "bytes"
        if field.name in shape.most_characters:
            limits = shape.most_characters
            is_text = not (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))
            measure, word = (pc.utf8_length, "characters") if is_text else (pc.binary_length, "bytes")
        most = limits.get(field.name)
        if most is not None:
            longest = pc.max(measure(_measurable(column))).as_py() or 0
            if longest > most:
                raise self._refusal("a text", field.name, f"{longest:,} {word}", f"at most {most:,}")

    def demand_packet(self, packet_bytes: int) -> None:
        """A row must fit into one statement. Those that surely do are not measured."""
        names = sum(2 * len(name.encode()) + _CELL_BYTES for name in self.rows.schema.names) + _STATEMENT_BYTES
        if self.rows.nbytes * 2 + names < packet_bytes:
            return
        sizes = np.zeros(self.rows.num_rows, np.int64)
        for column in self.rows.columns:
            if _has_length(column.type):
                sizes += pc.fill_null(pc.binary_length(_measurable(column)), 0).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(sizes * 2 + names >= packet_bytes):
            literals = [cells(column.slice(int(place), 1)) for column in self.rows.columns]
            size = names + len(joined(literals)[0].as_py())
            if size >= packet_bytes:
                expected = f"less than max_allowed_packet, which is {packet_bytes:,}"
                raise self._refusal("a row", None, f"{size:,} bytes of SQL", expected)

    def _refusal(
        self, what: str, column: str | None, found: object, expected: str, next_step: str | None = None
    ) -> RowsRefused:
        where = {} if column is None else {"column": column}
        return RowsRefused(
            f"{self._label} cannot keep {what}. Nothing of its epoch was sealed.",
            found=found,
            expected=expected,
            next_step=next_step or "Leave such rows out or change them with where(…) or select(…), or alter the table.",
            sink=self._sink,
            **where,
        )


def _has_length(kind: pa.DataType) -> bool:
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(is_text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _measurable(column: pa.Array) -> pa.Array:
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column
