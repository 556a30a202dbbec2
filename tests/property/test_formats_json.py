"""JSON: the three paths agree on adversarial values, and what is accepted is exactly what was written."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onefold.formats import json as json_format
from onefold.formats.json import JsonLines
from onefold.formats.schema import to_schema

SCALARS = [
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
    "REAL",
    "DOUBLE",
    "DECIMAL(4,0)",
    "DECIMAL(9,9)",
    "DECIMAL(18,2)",
    "DECIMAL(38,10)",
    "VARCHAR",
    "BLOB",
    "UUID",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "TIMESTAMPTZ",
]
NESTED = ["BIGINT[]", "STRUCT(a DECIMAL(5,2), b VARCHAR)", "MAP(VARCHAR, INT)", "DATE[2]", "STRUCT(a INT[])[]"]

digits = st.text("0123456789", min_size=1, max_size=45)
NUMBERS = [
    "0",
    "-0",
    "-0.0",
    "1.0",
    "1e2",
    "1E+2",
    "1e-2",
    "0e9",
    "12.345",
    "12.3450",
    "1.7",
    "127",
    "128",
    "-128",
    "-129",
    "255",
    "256",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "9223372036854775807.0",
    "18446744073709551615",
    "18446744073709551616",
    "9007199254740993",
    "1e400",
    "-1e400",
    "1e-400",
    "1e999999999",
    "1e-99999999999999999999",
    "0e99999999999999999999",
    "3.4028235e38",
    "3.4028236e38",
    "16777217",
    "0.1",
    "1.5e1",
    "1.50e-1",
    "1e38",
    "99999999999999999999999999999999999999",
    "9999",
    "9999.5",
    "0.9999999999",
    "1700000000",
    "20240101",
    "1" + "0" * 400,
    "0." + "0" * 400 + "1",
    "1.00000017881393432617187499",
    "5e-324",
    "2e-324",
]
number_texts = st.one_of(
    st.sampled_from(NUMBERS),
    st.builds(
        lambda sign, whole, fraction, exponent: sign + (whole.lstrip("0") or "0") + fraction + exponent,
        st.sampled_from(["", "-"]),
        digits,
        st.one_of(st.just(""), digits.map(lambda d: "." + d)),
        st.one_of(
            st.just(""),
            st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 60)),
        ),
    ),
)
two = st.integers(0, 99).map("{:02d}".format)
TIMES = [
    "2024-02-29",
    "2023-02-29",
    "0000-01-01",
    "0000-02-29",
    "9999-12-31T23:59:59.999999",
    "10000-01-01",
    "epoch",
    "infinity",
    "2024-01-01 (BC)",
    "-0001-01-01",
    "2024-1-1",
    "2024-01-01T24:00:00",
    "2024-01-01T23:59:60",
    "2024/01/01",
    " 2024-01-01",
    "2024-01-01 ",
    "2024-01-01T00:00:00 UTC",
    "2024-01-01T00:00:00.0000000",
    "now",
    "today",
    "2024-01-01T00:00:00.0000001",
    "1677-09-21T00:12:43.145224193",
    "1677-09-21T00:12:43.145224192",
    "2262-04-11T23:47:16.854775807",
    "2262-04-11T23:47:16.854775806",
    "1969-12-31T23:59:59.9",
    "00:00:00",
    "24:00:00",
    "23:59:59.9999999",
    "1:2:3",
    "12:30",
    "12:30:45.123456000",
    "2024-01-01T12:30:45+02",
    "2024-01-01T12:30:45+02:00:30",
]
temporal_texts = st.one_of(
    st.sampled_from(TIMES),
    st.builds(
        "{}-{}-{}{}{}:{}:{}{}{}".format,
        st.integers(0, 9999).map("{:04d}".format),
        st.integers(1, 12).map("{:02d}".format),
        st.integers(1, 31).map("{:02d}".format),
        st.sampled_from(["T", " ", "t", "  "]),
        st.integers(0, 24).map("{:02d}".format),
        two,
        two,
        st.one_of(st.just(""), st.text("0123456789", max_size=10).map(lambda d: "." + d)),
        st.sampled_from(["", "", "Z", "z", "+00:00", "+02", "-0530", "+15:59", "+16:00", "-00:30", "+00"]),
    ),
    st.builds("{}:{}:{}{}".format, two, two, two, st.text("0123456789", max_size=9).map(lambda d: "." + d)),
)
TEXTS = [
    "",
    "true",
    "false",
    "TRUE",
    "null",
    "NaN",
    "Infinity",
    "-Infinity",
    "nan",
    "inf",
    "+1",
    "1.",
    ".5",
    " 1",
    "1 ",
    "1_000",
    "0x10",
    "007",
    "-",
    "１２",
    "{",
    "[1]",
    "{}",
    "[",
    "|",
    "\\",
    "Zg==",
    "Zg=",
    "Zh==",
    "Zg==\n",
    "é",
    "\x00",
    "6f1c9f9e-7b1a-4c1d-8f00-000000000000",
    "6F1C9F9E7B1A4C1D8F00000000000000",
    "6f1c9f9e7b1a-4c1d8f00000000000000",
]
plain_texts = st.one_of(
    st.sampled_from(TEXTS),
    st.text(max_size=8),
    st.text("0123456789.eE+-", max_size=12),
)
values = st.recursive(
    st.one_of(
        number_texts,
        st.one_of(number_texts, temporal_texts, plain_texts).map(json.dumps),
        plain_texts.map(lambda text: json.dumps(text, ensure_ascii=False)),
        st.sampled_from(
            [
                "null",
                "true",
                "false",
                "NaN",
                "-Infinity",
                "nan",
                "inf",
                '"\\ud83d\\ude00"',
                '"\\ud800"',
                "01",
                "1.",
                "'a'",
                "[1,]",
                '{"a":1,}',
                '"a\tb"',
                '"\\x"',
            ]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
        st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f'"{key}": {value}' for key, value in items.items()) + "}"
        ),
    ),
    max_leaves=4,
)
documents = st.one_of(
    values.map(lambda value: f'{{"v":{value}}}'),
    st.builds('{{"v" : {} , "w":{}}}'.format, values, values),
    st.builds('{{"v":{},"v":{}}}'.format, values, values),
    st.builds('{{"x":{},"v":{}}}'.format, values, values),
    values,
    st.sampled_from(
        [
            '{"v":' + "[" * 700 + "]" * 700 + "}",
            '{"w":' + "[" * 3000 + "]" * 3000 + "}",
            "",
            " ",
            "{}",
            "[]",
            "null",
            '{"v":1}{"v":2}',
            '{"v":1,}',
            '\ufeff{"v":1}',
            '{"v":1',
            '{"V":1}',
            "{\n}",
        ]
    ),
)
payloads = st.one_of(
    documents.map(lambda text: text.encode("utf-8", "surrogatepass")), st.none(), st.binary(max_size=6)
)


def both(payload: list[bytes | None], schema: pa.Schema, *, is_lenient: bool) -> tuple[dict, dict]:
    column = pa.array(payload, pa.binary())
    found = []
    for few in (1_000_000, -1):
        with mock.patch.object(json_format, "_FEW_ROWS", few):
            decoded = JsonLines().decode(column, schema, is_lenient=is_lenient)
        kept = list(range(len(payload))) if decoded.kept is None else decoded.kept.to_pylist()
        assert decoded.rows.schema.equals(schema, check_metadata=True)
        decoded.rows.validate(full=True)
        assert sorted(kept + decoded.misfits.index.to_pylist()) == list(range(len(payload)))
        found.append(
            {
                "kept": kept,
                "rows": [repr(row) for row in comparable(decoded.rows)],
                "misfits": list(
                    zip(
                        decoded.misfits.index.to_pylist(),
                        decoded.misfits.reason.to_pylist(),
                        decoded.misfits.detail.to_pylist(),
                        strict=True,
                    )
                ),
            }
        )
    return found[0], found[1]


def comparable(rows: pa.Table) -> list[object]:
    # As integers, because Python's dates and times cannot hold all that Arrow's can.
    plain = {"timestamp": pa.int64(), "date32": pa.int32()}
    columns = []
    for column in rows.columns:
        target = next((kind for name, kind in plain.items() if str(column.type).startswith(name)), None)
        columns.append((column.cast(target) if target else column).to_pylist())
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("sql", SCALARS)
@settings(max_examples=20, deadline=None)
@given(payload=st.lists(payloads, min_size=1, max_size=25), is_lenient=st.booleans())
def test_few_rows_and_many_rows_decode_alike(sql: str, payload: list[bytes | None], is_lenient: bool) -> None:
    few, many = both(payload, to_schema({"v": sql}), is_lenient=is_lenient)
    assert few == many


@pytest.mark.parametrize("is_lenient", [False, True])
@pytest.mark.parametrize("sql", SCALARS)
def test_every_listed_text_decodes_alike_as_a_number_and_as_a_string(sql: str, is_lenient: bool) -> None:
    scalars = NUMBERS + [json.dumps(text) for text in NUMBERS + TIMES + TEXTS]
    payload = [f'{{"v":{value}}}'.encode() for value in scalars]
    few, many = both(payload, to_schema({"v": sql}), is_lenient=is_lenient)
    assert few == many


@settings(max_examples=20, deadline=None)
@given(payload=st.lists(payloads, min_size=1, max_size=25), sql=st.sampled_from(NESTED), is_lenient=st.booleans())
def test_nested_types_decode_alike_on_all_paths(payload: list[bytes | None], sql: str, is_lenient: bool) -> None:
    few, many = both(payload, to_schema({"w": "VARCHAR", "v": sql}), is_lenient=is_lenient)
    assert few == many


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(
        number_texts.filter(lambda text: "99999999999999999999" not in text[-20:] or "e" not in text),
        min_size=1,
        max_size=30,
    ),
    as_string=st.booleans(),
)
def test_an_accepted_number_is_the_number_that_was_written(texts: list[str], as_string: bool) -> None:
    names = ["TINYINT", "BIGINT", "UBIGINT", "HUGEINT", "DECIMAL(18,2)", "DECIMAL(38,10)", "DOUBLE", "REAL", "VARCHAR"]
    payload = [('{"v":"%s"}' if as_string else '{"v":%s}') % text for text in texts]
    for name in names:
        column = pa.array([line.encode() for line in payload], pa.binary())
        with mock.patch.object(json_format, "_FEW_ROWS", -1):
            decoded = JsonLines().decode(column, to_schema({"v": name}), is_lenient=False)
        kept = range(len(texts)) if decoded.kept is None else decoded.kept.to_pylist()
        for row, value in zip(kept, decoded.rows.column("v").to_pylist(), strict=True):
            check_value(name, texts[row], value)
        for row in decoded.misfits.index.to_pylist():
            assert not fits(name, texts[row]), (name, texts[row])


def check_value(name: str, text: str, value: object) -> None:
    if name == "VARCHAR":
        assert value == text
    elif name == "DOUBLE":
        assert value == float(text)
        assert math.copysign(1, value) == math.copysign(1, float(text))
    elif name == "REAL":
        single = np.float32(value)
        exact = Fraction(Decimal(text)) if abs(Decimal(text).adjusted()) < 400 else Fraction(0)
        with np.errstate(over="ignore"):
            neighbours = [np.nextafter(single, np.float32(side)) for side in ("-inf", "inf")]
        for other in neighbours:
            if np.isfinite(other):
                assert abs(Fraction(float(single)) - exact) <= abs(Fraction(float(other)) - exact)
    else:
        assert Decimal(value) == Decimal(text)


def fits(name: str, text: str) -> bool:
    """An independent judgement, by fractions; only for texts whose exponent is small."""
    number = Decimal(text)
    if number and abs(number.adjusted()) > 500:
        return (name in ("DOUBLE", "REAL") and number.adjusted() < 0) or name == "VARCHAR"
    exact = Fraction(number)
    ranges = {"TINYINT": (-128, 127), "BIGINT": (-(2**63), 2**63 - 1), "UBIGINT": (0, 2**64 - 1)}
    if name in ranges:
        return exact.denominator == 1 and ranges[name][0] <= exact <= ranges[name][1]
    scales = {"HUGEINT": (38, 0), "DECIMAL(18,2)": (18, 2), "DECIMAL(38,10)": (38, 10)}
    if name in scales:
        precision, scale = scales[name]
        return (exact * 10**scale).denominator == 1 and abs(exact * 10**scale) < 10**precision
    if name == "DOUBLE":
        return math.isfinite(float(text))
    if name == "REAL":
        return abs(exact) < Fraction(2) ** 128 - Fraction(2) ** 103
    return True
