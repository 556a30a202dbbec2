"""SQL that turns a column of texts into a declared type where that is provably exact.

Each expression gives NULL unless the whole text has a shape for which DuckDB's own cast neither rounds, truncates nor
drops anything; then the caller takes the row to `exact.converter`. So a shape left out costs time, never truth.
"""

from __future__ import annotations

import pyarrow as pa

from onefold.formats.duck import literal
from onefold.formats.types import is_json, is_uuid, sql_type

__all__ = ["typed_text"]


def typed_text(field: pa.Field, text: str) -> str | None:
    """An SQL expression of the field's type over `text`, an SQL expression of type VARCHAR; None: there is none.

    NULL where the text is NULL, and where the text is not surely exact.
    """
    kind = field.type
    if is_json(field) or is_uuid(field):
        return None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return text
    shape = _shape(kind)
    if shape is None:
        return None
    cast = f"TRY_CAST({text} AS {sql_type(field)})"
    condition = f"regexp_full_match({text}, {literal(shape)})"
    if pa.types.is_floating(kind):  # a number beyond the range is cast to infinity
        condition += f" AND isfinite({cast})"
    elif kind == pa.timestamp("ns"):  # at the ends of the range stand infinity and what others take for NULL
        condition += f" AND {cast} BETWEEN TIMESTAMP_NS '1677-09-22' AND TIMESTAMP_NS '2262-04-11'"
    return f"CASE WHEN {condition} THEN {cast} END"


_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_digits_of = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def _shape(kind: pa.DataType) -> str | None:
    """A regular expression (RE2): what it matches, DuckDB casts exactly or not at all."""
    types = pa.types
    if types.is_boolean(kind):
        return "true|false"
    if types.is_integer(kind):
        return "-?[0-9]+"
    if types.is_decimal128(kind):
        return f"-?[0-9]+([.][0-9]{{1,{kind.scale}}}0*)?" if kind.scale else "-?[0-9]+([.]0+)?"
    if types.is_float32(kind) or types.is_float64(kind):
        return "-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?"
    if types.is_date32(kind):
        return _DATE
    if types.is_time64(kind) and kind.unit == "us":
        return f"{_CLOCK}([.][0-9]{{1,6}})?"
    if types.is_timestamp(kind):
        digits = _digits_of[kind.unit]
        fraction = f"([.][0-9]{{1,{digits}}})?" if digits else ""
        # DuckDB drops an offset on the way to TIMESTAMP, so only UTC itself may pass here.
        zone = "(Z|[-+](0[0-9]|1[0-5]):[0-5][0-9])?" if kind.tz else "(Z|[+]00:00)?"
        return f"{_DATE}[T ]{_CLOCK}{fraction}{zone}"
    return None
