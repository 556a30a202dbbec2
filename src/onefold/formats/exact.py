"""One value at a time, exactly: what a JSON or CSV value becomes in a declared type, or why it does not fit.

This is the reference. The vectorised paths accept only what they can prove to be the same and leave the rest to this.

A scalar is judged by its text: the number 12.30 and the string "12.30" are the same to DECIMAL, BIGINT and VARCHAR.

| type | fits |
|---|---|
| BOOLEAN | true, false |
| integers | numbers without a fraction after all exponents: 100, 1e2, 1.0; in range |
| DECIMAL(p,s) | numbers with at most s digits of fraction that are not zero; in range |
| DOUBLE, REAL | numbers, as the nearest of the type unless that is infinite; strings "NaN", "Infinity", "-Infinity" |
| VARCHAR | strings; numbers and booleans as they are written |
| UUID | 32 hexadecimal digits, with the four hyphens or without |
| BLOB | base64 (RFC 4648, padded) |
| DATE | YYYY-MM-DD, or a timestamp at midnight UTC |
| TIME | HH:MM[:SS[.fraction]] |
| TIMESTAMP | YYYY-MM-DD[(T or space)HH:MM[:SS[.fraction]][Z or ±HH[[:]MM]]], with an offset as UTC |
| TIMESTAMPTZ | the same; without an offset it is UTC |
| lists, structs, maps | JSON arrays and objects of values that fit; a missing member is NULL; others are ignored |

Lenient: numbers are rounded half away from zero to the type's last digit, fractions of a second likewise.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import pyarrow as pa

from onefold.errors import SchemaError
from onefold.formats.types import is_json, is_uuid, sql_type

__all__ = ["Token", "Unfit", "Unread", "converter", "from_text", "is_deep", "parse_json"]

Converter = Callable[[Any], Any]


class Unfit(ValueError):
    """A value does not fit its declared type exactly."""


class Token(str):
    """A JSON number as it is written (also NaN and Infinity, which are not JSON)."""

    __slots__ = ()


@dataclass(frozen=True)
class Unread:
    """JSON nested deeper than MAX_DEPTH. It fits no type but JSON."""

    text: str


MAX_DEPTH = 100


def parse_json(text: str) -> Any:
    """A JSON value, numbers as Tokens; of equal keys the first counts. What cannot be read is Unread or a Token."""
    if is_deep(text) and _depth(text) > MAX_DEPTH:
        return Unread(text)
    try:
        return _decoder.decode(text)
    except ValueError:
        return Unread(text) if text[:1] in ("{", "[", '"', "") else Token(text)


def is_deep(text: str) -> bool:
    """Whether the text may be nested deeper than MAX_DEPTH."""
    return len(text) > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH


def converter(field: pa.Field, *, is_lenient: bool) -> Converter:
    """A function from parsed JSON (see `parse_json`) or text to what `pyarrow.array` takes for the field's type.

    It raises Unfit. NULL stays NULL. Raises SchemaError for a type that text formats cannot carry.
    """
    convert = _converter(field, is_lenient)
    shown = sql_type(field)

    def convert_or_null(value: Any) -> Any:
        if value is None:
            return None
        try:
            return convert(value)
        except Unfit as error:
            if error.args:
                raise
            raise Unfit(f"{_short(value)} does not fit {shown}" + ("" if is_lenient else " exactly")) from None

    return convert_or_null


def from_text(field: pa.Field, *, is_lenient: bool) -> Converter:
    """The same from text alone, as CSV has it: lists, structs, maps and JSON are written as JSON."""
    convert = converter(field, is_lenient=is_lenient)
    if not is_json(field) and not pa.types.is_nested(field.type):
        return convert

    def from_json_text(value: str | None) -> Any:
        found = None if value is None else parse_json(value)
        if isinstance(found, Unread) or (isinstance(found, Token) and not _NUMBER.fullmatch(found)):
            raise Unfit(f"{_short(value)} is not JSON")
        return value if is_json(field) else convert(found)

    return from_json_text


def _converter(field: pa.Field, is_lenient: bool) -> Converter:
    kind = field.type
    make = _scalar(kind, is_lenient)
    if is_json(field):
        make = _json_text
    elif is_uuid(field):
        make = _scalar_text(_uuid)
    elif make is None:
        make = _nested(kind, is_lenient)
    if make is None:
        raise SchemaError(
            f"A column of type {sql_type(field)} cannot be read from text.",
            column=field.name,
            next_step="Declare it as VARCHAR and cast it in an expression.",
        )
    return make


def _scalar(kind: pa.DataType, is_lenient: bool) -> Converter | None:
    types = pa.types
    made: Callable[[str], Any] | None = None
    if types.is_boolean(kind):
        made = _boolean
    elif types.is_integer(kind):
        made = _integer(kind, is_lenient)
    elif types.is_decimal(kind):
        made = _decimal(kind, is_lenient)
    elif types.is_float64(kind) or types.is_float32(kind):
        return _float(kind)
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        made = str
    elif types.is_binary(kind) or types.is_large_binary(kind):
        made = _base64
    elif types.is_date32(kind):
        made = _date(is_lenient)
    elif types.is_time(kind):
        made = _time(kind, is_lenient)
    elif types.is_timestamp(kind):
        made = _timestamp(kind, is_lenient)
    return None if made is None else _scalar_text(made)


def _scalar_text(convert: Callable[[str], Any]) -> Converter:
    def from_value(value: Any) -> Any:
        if isinstance(value, str):
            return convert(value)
        if isinstance(value, bool):
            return convert("true" if value else "false")
        raise Unfit

    return from_value


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise Unfit
    return text == "true"


_NUMBER = re.compile(r"-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_LARGEST_SHIFT = 100_000  # beyond it a number is out of every type's range, whatever its digits
_exactly = Context(prec=999_999_999_999_999_999, Emin=-999_999_999_999_999_999, Emax=999_999_999_999_999_999)


def _scaled(text: str, scale: int, is_lenient: bool) -> int:
    """The number times 10**scale, which must be whole."""
    if not _NUMBER.fullmatch(text):
        raise Unfit
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise Unfit from None
    if not number:
        return 0
    if number.adjusted() + scale > 80 or (number.adjusted() + scale < -2 and not is_lenient):
        raise Unfit
    if number.adjusted() + scale < -2:
        return 0
    shifted = _exactly.scaleb(number, scale)
    whole = shifted.to_integral_value(rounding=ROUND_HALF_UP)
    if whole != shifted and not is_lenient:
        raise Unfit
    return int(whole)


def _integer(kind: pa.DataType, is_lenient: bool) -> Callable[[str], int]:
    bits = kind.bit_width
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if pa.types.is_signed_integer(kind) else (0, (1 << bits) - 1)

    def convert(text: str) -> int:
        value = _scaled(text, 0, is_lenient)
        if not low <= value <= high:
            raise Unfit
        return value

    return convert


def _decimal(kind: pa.DataType, is_lenient: bool) -> Callable[[str], Decimal]:
    limit = 10**kind.precision

    def convert(text: str) -> Decimal:
        value = _scaled(text, kind.scale, is_lenient)
        if not -limit < value < limit:
            raise Unfit
        return _exactly.scaleb(Decimal(value), -kind.scale)

    return convert


_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def _float(kind: pa.DataType) -> Converter:
    def convert(value: Any) -> float:
        if not isinstance(value, str):
            raise Unfit
        if value in _NOT_FINITE and not isinstance(value, Token):
            return float(value)
        if not _NUMBER.fullmatch(value):
            raise Unfit
        nearest = float(value) if pa.types.is_float64(kind) else _nearest_single(value)
        if nearest in (float("inf"), float("-inf")):
            raise Unfit
        return nearest

    return convert


def _nearest_single(text: str) -> float:
    # Arrow parses the text to single precision directly: going through a double would round twice.
    return float(pa.scalar(text).cast(pa.float32()).as_py())


def _uuid(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise Unfit
    return str(UUID(text))


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Unfit from None


_DATE = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_CLOCK = r"([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:[.]([0-9]+))?)?"
_ZONE = r"([Zz]|[-+](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?)"
_time_pattern = re.compile(_CLOCK, re.ASCII)
_timestamp_pattern = re.compile(f"{_DATE}(?:[Tt ]{_CLOCK}{_ZONE}?)?", re.ASCII)
_per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _date(is_lenient: bool) -> Callable[[str], int]:
    def convert(text: str) -> int:
        days, rest = divmod(_instant(text, 1, is_lenient), 86_400)
        if rest and not is_lenient:
            raise Unfit
        return days

    return convert


def _time(kind: pa.DataType, is_lenient: bool) -> Callable[[str], int]:
    ticks = _per_second[kind.unit]

    def convert(text: str) -> int:
        found = _time_pattern.fullmatch(text)
        if not found:
            raise Unfit
        value = _clock(found.groups(), ticks, is_lenient)
        return min(value, 86_400 * ticks - 1)

    return convert


def _timestamp(kind: pa.DataType, is_lenient: bool) -> Callable[[str], int]:
    ticks = _per_second[kind.unit]

    def convert(text: str) -> int:
        value = _instant(text, ticks, is_lenient)
        if not -(1 << 63) + 1 < value < (1 << 63) - 1:  # DuckDB keeps both ends for its infinities
            raise Unfit
        return value

    return convert


def _instant(text: str, ticks: int, is_lenient: bool) -> int:
    found = _timestamp_pattern.fullmatch(text)
    if not found:
        raise Unfit
    year, month, day, *clock, zone = found.groups()
    days = _days(int(year), int(month), int(day))
    seconds = 0
    if zone and zone not in "Zz":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        seconds = (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (1 if zone[0] == "+" else -1)
    return (days * 86_400 - seconds) * ticks + _clock(clock, ticks, is_lenient)


def _clock(parts: Any, ticks: int, is_lenient: bool) -> int:
    hour, minute, second, fraction = parts
    whole = (int(hour or 0) * 3600 + int(minute or 0) * 60 + int(second or 0)) * ticks
    if not fraction:
        return whole
    kept = len(str(ticks)) - 1
    rest = fraction[kept:]
    if rest.strip("0") and not is_lenient:
        raise Unfit
    return whole + int(fraction[:kept].ljust(kept, "0") or "0") + int(rest[:1] >= "5")


_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, chrono-compatible date algorithms)."""
    if not 1 <= month <= 12 or not 1 <= day <= _MONTHS[month - 1] + (month == 2 and calendar.isleap(year)):
        raise Unfit
    shifted = year - (month <= 2)
    era, year_of_era = divmod(shifted, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


def _json_text(value: Any) -> str:
    return _compose(value)


def _compose(value: Any) -> str:
    if isinstance(value, Unread):
        return value.text
    if isinstance(value, Token):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_compose(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_compose(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _nested(kind: pa.DataType, is_lenient: bool) -> Converter | None:
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _list(kind, is_lenient)
    if types.is_struct(kind):
        return _struct(kind, is_lenient)
    if types.is_map(kind):
        return _map(kind, is_lenient)
    return None


def _list(kind: pa.DataType, is_lenient: bool) -> Converter:
    member = converter(kind.value_field, is_lenient=is_lenient)
    size = kind.list_size if pa.types.is_fixed_size_list(kind) else None

    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list) or size not in (None, len(value)):
            raise Unfit
        return [member(item) for item in value]

    return convert


def _struct(kind: pa.DataType, is_lenient: bool) -> Converter:
    fields = [kind.field(index) for index in range(kind.num_fields)]
    members = [(field.name, converter(field, is_lenient=is_lenient)) for field in fields]

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Unfit
        return {name: member(value.get(name)) for name, member in members}

    return convert


def _map(kind: pa.DataType, is_lenient: bool) -> Converter:
    key = converter(kind.key_field, is_lenient=is_lenient)
    item = converter(kind.item_field, is_lenient=is_lenient)

    def convert(value: Any) -> list[tuple[Any, Any]]:
        if not isinstance(value, dict):
            raise Unfit
        return [(key(name), item(member)) for name, member in value.items()]

    return convert


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


_decoder = json.JSONDecoder(parse_float=Token, parse_int=Token, parse_constant=Token, object_pairs_hook=_first_of_each)


_brackets = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)


def _depth(text: str) -> int:
    depth = deepest = 0
    for found in _brackets.finditer(text):
        depth += (found.group(1) is not None) - (found.group(2) is not None)
        deepest = max(deepest, depth)
    return deepest


def _short(value: Any) -> str:
    if isinstance(value, Unread):
        value = Token(value.text)
    shown = value if isinstance(value, str) else _compose(value)
    if not isinstance(value, Token) and isinstance(value, str):
        shown = json.dumps(value[:200], ensure_ascii=False)
    return shown if len(shown) <= 80 else shown[:77] + "…"
