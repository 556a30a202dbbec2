"""The row hash against a plain Python encoder of the documented encoding."""

from __future__ import annotations

import datetime as dt
import math
import struct
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onefold.kernel.rowhash import hash_rows, siphash128

KEY = bytes(range(100, 116))
EPOCH = dt.datetime.fromisoformat("1970-01-01")


def length_of(size: int) -> bytes:
    low, rest = size & 0x7F, size >> 7
    return bytes([low | 0x80]) + length_of(rest) if rest else bytes([low])


def encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    unscaled = int("".join(map(str, digits)))
    while unscaled and unscaled % 10 == 0:
        unscaled, exponent = unscaled // 10, exponent + 1
    if unscaled == 0:
        sign = exponent = 0
    magnitude = unscaled.to_bytes((unscaled.bit_length() + 7) // 8, "little")
    return b"\x05" + bytes([sign]) + struct.pack("<hB", -exponent, len(magnitude)) + magnitude


def encode(value: Any) -> bytes:
    """What the module's docstring says, cell by cell; arrays are lists, structs dicts, maps lists of pairs."""
    match value:
        case None:
            return b"\x00"
        case bool():
            return b"\x01" + bytes([value])
        case int():
            return b"\x03" + struct.pack("<Q", value) if value >= 2**63 else b"\x02" + struct.pack("<q", value)
        case float():
            return b"\x04" + (struct.pack("<Q", 0x7FF8 << 48) if math.isnan(value) else struct.pack("<d", value + 0.0))
        case Decimal():
            return encode_decimal(value)
        case dt.datetime():
            whole = (value - EPOCH) // dt.timedelta(seconds=1)
            return b"\x06" + struct.pack("<qI", whole, value.microsecond * 1_000)
        case dt.date():
            return b"\x08" + struct.pack("<q", (value - EPOCH.date()).days)
        case str():
            return b"\x0a" + length_of(len(value.encode())) + value.encode()
        case bytes():
            return b"\x0b" + length_of(len(value)) + value
        case list() if value and isinstance(value[0], tuple):
            return b"\x10" + length_of(len(value)) + b"".join(b"\x0f\x02" + encode(k) + encode(v) for k, v in value)
        case list():
            return b"\x0e" + length_of(len(value)) + b"".join(map(encode, value))
        case dict():
            return b"\x0f" + length_of(len(value)) + b"".join(encode(value[name]) for name in sorted(value))
    raise TypeError(value)


def decimals(digits: int, scale: int) -> st.SearchStrategy[Decimal]:
    return st.integers(1 - 10**digits, 10**digits - 1).map(
        lambda unscaled: Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
PRIMITIVES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.bool_(): st.booleans(),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.decimal128(38, 9): decimals(38, 9),
    pa.decimal256(76, 30): decimals(76, 30),
    pa.decimal64(18, 2): decimals(18, 2),
    pa.timestamp("us"): st.datetimes(),
    pa.date32(): st.dates(),
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.string_view(): TEXT,
    pa.binary(): st.binary(max_size=300),
    pa.binary_view(): st.binary(max_size=40),
    pa.dictionary(pa.int16(), pa.string()): TEXT,
}


@st.composite
def typed_columns(draw: st.DrawFn) -> tuple[pa.DataType, list[Any]]:
    """A type, perhaps nested, and cells of it."""
    kind, cells = draw(st.sampled_from(sorted(PRIMITIVES.items(), key=lambda item: str(item[0]))))
    for _ in range(draw(st.integers(0, 2))):
        nullable = st.none() | cells
        match draw(st.sampled_from(["list", "large_list", "list_view", "struct", "fixed"])):
            case "list":
                kind, cells = pa.list_(kind), st.lists(nullable, max_size=4)
            case "large_list":
                kind, cells = pa.large_list(kind), st.lists(nullable, max_size=4)
            case "list_view":
                kind, cells = pa.list_view(kind), st.lists(nullable, max_size=4)
            case "fixed":
                kind, cells = pa.list_(kind, 2), st.lists(nullable, min_size=2, max_size=2)
            case _:
                other = pa.field("b", pa.int32())
                kind = pa.struct([pa.field("a", kind), other])
                cells = st.fixed_dictionaries({"a": nullable, "b": st.none() | st.integers(-(2**31), 2**31 - 1)})
    return kind, draw(st.lists(st.none() | cells, max_size=12))


def hashes(columns: list[Any]) -> list[bytes]:
    return [low.to_bytes(8, "little") + high.to_bytes(8, "little") for low, high in hash_rows(columns, KEY).tolist()]


@given(typed_columns())
def test_every_cell_hashes_as_the_documented_encoding_says(column: tuple[pa.DataType, list[Any]]) -> None:
    kind, values = column
    assert hashes([pa.array(values, kind)]) == [siphash128(encode(value), KEY) for value in values]


@given(typed_columns(), st.data())
def test_slicing_and_chunking_change_no_hash(column: tuple[pa.DataType, list[Any]], data: st.DataObject) -> None:
    kind, values = column
    array = pa.array(values, kind)
    start = data.draw(st.integers(0, len(values)))
    end = data.draw(st.integers(start, len(values)))
    whole = hashes([array])
    assert hashes([array.slice(start, end - start)]) == whole[start:end]
    parts = pa.chunked_array([array.slice(0, start), array.slice(start, end - start), array.slice(end)], kind)
    assert hashes([parts]) == whole


@given(st.lists(st.tuples(st.none() | TEXT, st.none() | st.integers(-(2**31), 2**31 - 1), st.none() | st.floats())))
def test_rows_hash_as_their_cells_in_order(rows: list[tuple[Any, ...]]) -> None:
    kinds = [pa.string(), pa.int32(), pa.float64()]
    columns = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]
    assert hashes(columns) == [siphash128(b"".join(map(encode, row)), KEY) for row in rows]


@given(st.dictionaries(TEXT, st.none() | st.integers(-5, 5), max_size=5))
def test_maps_hash_as_their_entries_in_order(entries: dict[str, int | None]) -> None:
    pairs = list(entries.items())
    expected = encode(pairs) if pairs else b"\x10\x00"
    assert hashes([pa.array([pairs], pa.map_(pa.string(), pa.int8()))]) == [siphash128(expected, KEY)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_the_whole_range_of_every_timestamp_unit_is_exact(unit: str, count: int) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    seconds, rest = divmod(count, per_second)
    expected = struct.pack("<qI", seconds, rest * (10**9 // per_second))
    assert hashes([pa.array([count], pa.timestamp(unit))]) == [siphash128(b"\x06" + expected, KEY)]
    assert hashes([pa.array([count], pa.timestamp(unit, "UTC"))]) == [siphash128(b"\x07" + expected, KEY)]
