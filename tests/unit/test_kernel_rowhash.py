"""The row hash is SipHash-2-4-128 of an encoding that a wider type does not change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from onefold.errors import NotSupported
from onefold.kernel.rowhash import digest, hash_rows, siphash128

KEY = bytes(range(16))

# Aumasson and Bernstein, SipHash: a fast short-input PRF, INDOCRYPT 2012; the authors' published outputs of the
# 128-bit variant for the key 00 01 .. 0f and the message 00 01 .. (length - 1).
PUBLISHED = {
    0: "a3817f04ba25a8e66df67214c7550293",
    1: "da87c1d86b99af44347659119b22fc45",
    2: "8177228da4a45dc7fca38bdef60affe4",
    7: "a1f1ebbed8dbc153c0b84aa61ff08239",
    8: "3b62a9ba6258f5610f83e264f31497b4",
    9: "264499060ad9baabc47f8b02bb6d71ed",
    15: "5493e99933b0a8117e08ec0f97cfc3d9",
    16: "6ee2a4ca67b054bbfd3315bf85230577",
    17: "473d06e8738db89854c066c47ae47740",
    31: "2939b01832" + "23fafc1723de4f52c43d35",
    32: "7c3956ca5eeafc3e363e9d556546eb68",
    63: "5150d1772f50834a503e069a973fbd7c",
}

Cells = list[tuple[int, int]]


def cells(*columns: Any) -> Cells:
    return [tuple(row) for row in hash_rows(list(columns), KEY).tolist()]


def of(message: bytes) -> tuple[int, int]:
    """The hash that a row with this encoding must have."""
    out = siphash128(message, KEY)
    return int.from_bytes(out[:8], "little"), int.from_bytes(out[8:], "little")


@pytest.mark.parametrize("length", PUBLISHED)
def test_siphash_gives_the_published_outputs(length: int) -> None:
    assert siphash128(bytes(range(length)), KEY).hex() == PUBLISHED[length]


@pytest.mark.parametrize(
    ("column", "encodings"),
    [
        (pa.array([7, -2, None], pa.int8()), [b"\x02\x07" + bytes(7), b"\x02\xfe" + b"\xff" * 7, b"\x00"]),
        (pa.array([2**63], pa.uint64()), [b"\x03" + bytes(7) + b"\x80"]),
        (pa.array([True, False]), [b"\x01\x01", b"\x01\x00"]),
        (pa.array([1.5]), [b"\x04" + bytes(6) + b"\xf8\x3f"]),
        (pa.array([Decimal("-12.50")]), [b"\x05\x01\x01\x00\x01\x7d"]),
        (pa.array([-1], pa.timestamp("ms")), [b"\x06" + b"\xff" * 8 + (999_000_000).to_bytes(4, "little")]),
        (pa.array([date(1969, 12, 31)]), [b"\x08" + b"\xff" * 8]),
        (pa.array([time(0, 0, 1)], pa.time32("s")), [b"\x09" + (10**9).to_bytes(8, "little")]),
        (pa.array(["é", ""]), [b"\x0a\x02\xc3\xa9", b"\x0a\x00"]),
        (pa.array([b"x" * 200]), [b"\x0b\xc8\x01" + b"x" * 200]),
        (pa.array([timedelta(seconds=1)], pa.duration("ns")), [b"\x0c\x01" + bytes(11)]),
        (pa.array([pa.MonthDayNano([1, 2, 3])]), [b"\x0d\x01\0\0\0\x02\0\0\0\x03" + bytes(7)]),
        (pa.array([[1, None]], pa.list_(pa.int16())), [b"\x0e\x02\x02\x01" + bytes(7) + b"\x00"]),
        (pa.array([{"a": True, "b": None}]), [b"\x0f\x02\x01\x01\x00"]),
        (pa.array([[("k", True)]], pa.map_(pa.string(), pa.bool_())), [b"\x10\x01\x0f\x02\x0a\x01k\x01\x01"]),
        (pa.nulls(1), [b"\x00"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_the_encoding_is_the_documented_one(column: pa.Array, encodings: list[bytes]) -> None:
    assert cells(column) == [of(encoding) for encoding in encodings]


def test_a_row_is_its_cells_one_after_the_other() -> None:
    assert cells(pa.array([True]), pa.array(["a"]), pa.array([None], pa.int8())) == [of(b"\x01\x01\x0a\x01a\x00")]


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
MOMENTS = [datetime.fromisoformat(text) for text in ("1969-12-31 23:59:59", "0001-01-01", "2262-01-01")] + [None]
INSTANTS = [datetime(1901, 5, 5, 5, 5, 5, tzinfo=UTC), None]
TEXTS = ["", "a", "exactly 12 b", "a longer one than fits a view", "\U0001f600\u0301", "\x00", None]
BYTES = [b"", b"\x00", b"more than twelve bytes of it", None]
LISTS = [[1, None], [], None, [3, 4]]


@pytest.mark.parametrize(
    ("values", "types"),
    [
        ([0, 1, 127, None], INTEGERS),
        ([-1, -128], INTEGERS[:4]),
        ([0.0, -0.0, 1.5, float("nan"), float("inf"), -(2.0**-24), 65504.0, None],
         [pa.float16(), pa.float32(), pa.float64()]),
        (MOMENTS[:1], [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")]),
        (MOMENTS, [pa.timestamp(unit) for unit in ("s", "ms", "us")]),
        (INSTANTS, [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in ("UTC", "Asia/Tokyo")]),
        ([date(1969, 12, 31), date(1, 1, 1), date(2024, 2, 29), None], [pa.date32(), pa.date64()]),
        ([time(23, 59, 59), None], [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]),
        ([timedelta(days=-1), None], [pa.duration(unit) for unit in ("s", "ms", "us", "ns")]),
        (TEXTS, [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()),
                 pa.dictionary(pa.uint32(), pa.large_string())]),
        (BYTES, [pa.binary(), pa.large_binary(), pa.binary_view()]),
        ([b"abc", None], [pa.binary(), pa.binary(3)]),
        (LISTS, [pa.list_(pa.int8()), pa.large_list(pa.int64()), pa.list_view(pa.uint16()),
                 pa.large_list_view(pa.int32())]),
        ([[1, 2], None], [pa.list_(pa.int8()), pa.list_(pa.int64(), 2)]),
        ([{"a": 1, "b": "x"}, None], [pa.struct([("a", pa.int8()), ("b", pa.string())]),
                                      pa.struct([("a", pa.int64()), ("b", pa.large_string())])]),
        ([[("k", 1)], [], None], [pa.map_(pa.string(), pa.int8()), pa.map_(pa.large_string(), pa.int64())]),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) and value and isinstance(value[0], pa.DataType) else "",
)  # fmt: skip
def test_a_wider_type_does_not_change_the_hash(values: list[Any], types: list[pa.DataType]) -> None:
    expected = cells(pa.array(values, types[0]))
    for other in types[1:]:
        assert cells(pa.array(values, other)) == expected, other


def test_decimals_hash_by_value_whatever_their_width_and_scale() -> None:
    values = [Decimal(0), Decimal(-1), Decimal("12.5"), Decimal(100), None]
    types = [
        pa.decimal32(9, 2),
        pa.decimal64(18, 4),
        pa.decimal128(38, 1),
        pa.decimal256(76, 40),
        pa.decimal128(20, 17),
    ]
    expected = cells(pa.array(values, types[0]))
    for other in types[1:]:
        assert cells(pa.array(values, other)) == expected, other
    assert len(set(expected)) == len(values)


def test_huge_decimals_hash_by_value() -> None:
    values = [Decimal("9" * 38), Decimal("-" + "9" * 38), Decimal("1" + "0" * 37)]
    assert cells(pa.array(values, pa.decimal128(38, 0))) == cells(pa.array(values, pa.decimal256(76, 20)))
    tens = pa.array([Decimal("1" + "0" * 75), Decimal("-1" + "0" * 75)], pa.decimal256(76, 0))
    assert cells(tens) == [of(b"\x05\x00\xb5\xff\x01\x01"), of(b"\x05\x01\xb5\xff\x01\x01")]


def test_run_end_encoding_is_looked_through() -> None:
    plain = pa.array([1, 1, 2, None, None, 3])
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 5, 6], pa.int32()), pa.array([1, 2, None, 3]))
    assert cells(runs) == cells(plain)
    assert cells(runs.slice(1, 4)) == cells(plain.slice(1, 4))


def test_a_null_inside_a_dictionary_is_a_null() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["a", None]))
    assert cells(column) == cells(pa.array(["a", None, None]))


def test_types_of_different_classes_never_share_a_hash() -> None:
    ones: list[pa.Array] = [
        pa.array([1]), pa.array([True]), pa.array([1.0]), pa.array([Decimal(1)]), pa.array(["1"]), pa.array([b"1"]),
        pa.array([1], pa.timestamp("s")), pa.array([1], pa.timestamp("s", "UTC")), pa.array([1], pa.date32()),
        pa.array([1], pa.time32("s")), pa.array([1], pa.duration("s")), pa.array([None]), pa.array([[1]]),
        pa.array([{"a": 1}]),
    ]  # fmt: skip
    assert len({cells(one)[0] for one in ones}) == len(ones)


def test_every_nan_is_one_value() -> None:
    bits = np.array([0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001], dtype=np.uint64)
    assert len(set(cells(pa.array(bits.view(np.float64))))) == 1


def test_cells_cannot_run_into_each_other() -> None:
    left = cells(pa.array(["ab", "a", ""]), pa.array(["c", "bc", "abc"]))
    assert len(set(left)) == 3
    assert cells(pa.array([[["a"], []]])) != cells(pa.array([[["a", None]]]))


def test_slices_hash_as_the_rows_they_show() -> None:
    struct = pa.array([{"s": "a", "l": [1, 2]}, None, {"s": None, "l": None}, {"s": "long enough for a view", "l": []}])
    for column in (
        pa.array([1, None, 3, 4]), pa.array([True, None, False, True]), pa.array(["a", None, "ccc", ""]), struct,
        pa.array([[1], None, [2, 3], []]), pa.array(["a", None, "b", "a"]).dictionary_encode(),
        pa.array([[1, 2], None, [3, 4], [5, 6]], pa.list_(pa.int32(), 2)),
        pa.array(["a", None, "c" * 20, ""], pa.string_view()),
        pa.array([[1], None, [2, 3], []], pa.list_view(pa.int8())),
    ):  # fmt: skip
        whole = cells(column)
        assert cells(column.slice(1, 2)) == whole[1:3]
        assert cells(column.slice(3)) == whole[3:]
        assert cells(pa.chunked_array([column.slice(0, 1), column.slice(1, 0), column.slice(1)])) == whole
    batch = pa.record_batch({"s": struct}).slice(2)
    assert hash_rows(batch, KEY).tolist() == hash_rows([struct.slice(2)], KEY).tolist()


def test_chunks_of_several_columns_need_not_agree() -> None:
    a, b = pa.array([1, 2, 3]), pa.array(["x", "y", "z"])
    cut = cells(pa.chunked_array([a.slice(0, 1), a.slice(1)]), pa.chunked_array([b.slice(0, 2), b.slice(2)]))
    assert cut == cells(a, b)
    assert hash_rows(pa.table({"a": a, "b": b}), KEY).tolist() == hash_rows([a, b], KEY).tolist()


def test_no_rows_give_no_hashes() -> None:
    assert hash_rows([pa.array([], pa.string())], KEY).shape == (0, 2)
    assert hash_rows(pa.table({"a": pa.chunked_array([], pa.int8())}), KEY).shape == (0, 2)


def test_another_key_gives_other_hashes() -> None:
    column = pa.array([1])
    assert hash_rows([column], KEY).tolist() != hash_rows([column], bytes(16)).tolist()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        hash_rows([pa.array([1])], b"short")
    with pytest.raises(ValueError, match="at least one column"):
        hash_rows([], KEY)
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(NotSupported):
        hash_rows([union], KEY)


def test_the_digest_is_the_sum_modulo_2_to_the_128() -> None:
    hashes = hash_rows([pa.array(range(1_000))], KEY)
    expected = sum(low + (high << 64) for low, high in hashes.tolist()) % 2**128
    assert digest(hashes) == expected
    assert digest(hashes[::-1].copy()) == expected
    assert (digest(hashes[:300].copy()) + digest(hashes[300:].copy())) % 2**128 == expected
    assert digest(hashes[:0].copy()) == 0
