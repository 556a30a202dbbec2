"""JSON: what fits, what does not, and why; the rules that onefold.formats.json and .exact state."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from unittest import mock

import pyarrow as pa
import pytest

from onefold.errors import ExtraMissing, SchemaError
from onefold.formats import json as json_format
from onefold.formats.json import JsonLines
from onefold.formats.schema import to_schema


@pytest.fixture(params=["in Python", "in DuckDB"], autouse=True)
def path(request):
    with mock.patch.object(json_format, "_FEW_ROWS", 1_000_000 if request.param == "in Python" else -1):
        yield


def decode(lines: list[bytes | None], is_lenient: bool = False, **columns: str):
    return JsonLines().decode(pa.array(lines, pa.binary()), to_schema(columns), is_lenient=is_lenient)


def one(sql: str, value: str, is_lenient: bool = False):
    """The decoded value, or the reason."""
    decoded = decode([b'{"v":%s}' % value.encode()], is_lenient, v=sql)
    if len(decoded.rows):
        return decoded.rows.column("v")[0].as_py()
    return decoded.misfits.reason[0].as_py()


@pytest.mark.parametrize(("sql", "value", "expected"), [
    ("DECIMAL(18,2)", "12.345", "misfit"),
    ("DECIMAL(18,2)", "12.30", Decimal("12.30")),
    ("DECIMAL(18,2)", "12.3000", Decimal("12.30")),
    ("DECIMAL(18,2)", '"12.30"', Decimal("12.30")),
    ("DECIMAL(18,2)", "1234567890123456.78", Decimal("1234567890123456.78")),
    ("DECIMAL(18,2)", "12345678901234567.78", "misfit"),
    ("DECIMAL(18,2)", "true", "misfit"),
    ("DECIMAL(18,2)", "1.5e1", Decimal("15.00")),
    ("BIGINT", "1.7", "misfit"),
    ("BIGINT", "1.0", 1),
    ("BIGINT", "1e2", 100),
    ("BIGINT", '"x"', "misfit"),
    ("BIGINT", "12345678901234567890", "misfit"),
    ("UBIGINT", "12345678901234567890", 12345678901234567890),
    ("TINYINT", "128", "misfit"),
    ("DOUBLE", "0.1", 0.1),
    ("DOUBLE", "1e400", "misfit"),
    ("DOUBLE", '"-Infinity"', float("-inf")),
    ("DOUBLE", "-Infinity", "misfit"),
    ("BOOLEAN", "true", True),
    ("BOOLEAN", "1", "misfit"),
    ("VARCHAR", "12.30", "12.30"),
    ("VARCHAR", "true", "true"),
    ("VARCHAR", '"a\\u00e9\\ud83d\\ude00"', "aé😀"),
    ("VARCHAR", "{}", "misfit"),
    ("VARCHAR", '"{}"', "{}"),
    ("VARCHAR", '"[x"', "[x"),
    ("BLOB", '"AP8="', b"\x00\xff"),
    ("BLOB", '"AP8"', "misfit"),
    ("UUID", '"6F1C9F9E7B1A4C1D8F00000000000000"', "6f1c9f9e-7b1a-4c1d-8f00-000000000000"),
    ("DATE", '"2024-02-29"', date(2024, 2, 29)),
    ("DATE", '"2023-02-29"', "misfit"),
    ("DATE", '"2024-02-29T00:00:00"', date(2024, 2, 29)),
    ("DATE", '"2024-02-29T10:00:00"', "misfit"),
    ("TIME", '"23:59:59.5"', time(23, 59, 59, 500_000)),
    ("TIME", '"24:00:00"', "misfit"),
    ("TIMESTAMP", '"2024-01-02T03:04:05.123456"', datetime.fromisoformat("2024-01-02T03:04:05.123456")),
    ("TIMESTAMP", '"2024-01-02 03:04:05.1234560"', datetime.fromisoformat("2024-01-02T03:04:05.123456")),
    ("TIMESTAMP", '"2024-01-02 03:04:05.1234567"', "misfit"),
    ("TIMESTAMP", '"2024-01-02T03:04:05+02:00"', datetime.fromisoformat("2024-01-02T01:04:05")),
    ("TIMESTAMP", '"2024-01-02T03:04:05Z"', datetime.fromisoformat("2024-01-02T03:04:05")),
    ("TIMESTAMP", '"1969-12-31"', datetime.fromisoformat("1969-12-31T00:00:00")),
    ("TIMESTAMP", "1704164645", "misfit"),
    ("TIMESTAMP", '"infinity"', "misfit"),
    ("TIMESTAMPTZ", '"2024-01-02T03:04:05-01:30"', datetime(2024, 1, 2, 4, 34, 5, tzinfo=UTC)),
    ("TIMESTAMPTZ", '"2024-01-02T03:04:05"', datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ("BIGINT[]", "[1, null, 2.0]", [1, None, 2]),
    ("BIGINT[]", "[1.5]", "misfit"),
    ("BIGINT[]", "{}", "misfit"),
    ("STRUCT(a DECIMAL(4,1), b VARCHAR)", '{"a":1.5,"z":0}', {"a": Decimal("1.5"), "b": None}),
    ("STRUCT(a DECIMAL(4,1), b VARCHAR)", '{"a":1.55}', "misfit"),
    ("MAP(VARCHAR, INTEGER)", '{"x":1}', [("x", 1)]),
    ("JSON", '{"a": [1.10, "x"]}', '{"a":[1.10,"x"]}'),
    ("BIGINT", "null", None),
    ("BIGINT", "01", "malformed"),
    ("VARCHAR", '"\\ud800"', "malformed"),
    ("VARCHAR", '"a\tb"', "malformed"),
])  # fmt: skip
def test_a_value_fits_exactly_or_is_refused(sql, value, expected) -> None:
    assert one(sql, value) == expected


@pytest.mark.parametrize(("sql", "value", "expected"), [
    ("DECIMAL(18,2)", "12.345", Decimal("12.35")),
    ("DECIMAL(18,2)", "-12.345", Decimal("-12.35")),
    ("BIGINT", "1.5", 2),
    ("TIMESTAMP", '"2024-01-02T03:04:05.1234567"', datetime.fromisoformat("2024-01-02T03:04:05.123457")),
    ("DATE", '"2024-02-29T10:00:00"', date(2024, 2, 29)),
    ("BIGINT", '"x"', "misfit"),
    ("TINYINT", "127.5", "misfit"),
])  # fmt: skip
def test_lenient_rounds_and_still_refuses_what_is_no_number(sql, value, expected) -> None:
    assert one(sql, value, is_lenient=True) == expected


@pytest.mark.parametrize("line", [
    b"", b"  ", b"[1]", b"null", b"1", b'"x"', b'{"v":1', b'{"v":1}{"v":2}', b"\xff", b"{'v':1}",
    b'\xef\xbb\xbf{"v":1}',
])  # fmt: skip
def test_what_is_no_object_is_malformed_and_counted(line) -> None:
    decoded = decode([b'{"v":1}', line, b'{"v":2}'], v="BIGINT")
    assert decoded.rows.column("v").to_pylist() == [1, 2]
    assert decoded.kept.to_pylist() == [0, 2]
    assert decoded.misfits.index.to_pylist() == [1]
    assert decoded.misfits.reason.to_pylist() == ["malformed"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'\xef\xbb\xbf{"n": 1}', "it begins with a byte order mark"),
        (b"", "an object was expected, not an empty value"),
        (b'{"n": "a\x01"}', "not JSON: Invalid control character at character 9"),
    ],
)
def test_why_a_line_is_malformed_is_said_in_plain_words(line: bytes, why: str) -> None:
    assert why in json_format._complaint(line.decode())


@pytest.mark.parametrize("count", [1, 300])
def test_no_value_at_all_is_a_row_of_nulls_in_its_place(count: int) -> None:
    decoded = decode([None, b'{"v":1}', b"x", None, b'{"v":2}'] * count, v="BIGINT", w="BIGINT[]")
    assert decoded.rows.column("v").to_pylist() == [None, 1, None, 2] * count
    assert decoded.rows.column("w").null_count == 4 * count
    places = range(0, 5 * count, 5)
    assert decoded.kept.to_pylist() == [place + each for place in places for each in (0, 1, 3, 4)]
    assert decoded.misfits.index.to_pylist() == [place + 2 for place in places]
    assert decode([None], v="BIGINT").kept is None


def test_missing_keys_are_null_and_of_equal_keys_the_first_counts() -> None:
    decoded = decode([b"{}", b'{"v":1,"v":2}', b'{"V":3}', b'{"other":{"v":4},"v":5,}'], v="BIGINT")
    assert decoded.rows.column("v").to_pylist() == [None, 1, None, 5]
    assert decoded.kept is None


def test_a_misfit_names_the_column_the_value_and_the_type() -> None:
    decoded = decode([b'{"a":1,"b":12.345}'], a="BIGINT", b="DECIMAL(18,2)")
    assert decoded.misfits.detail.to_pylist() == ["b: 12.345 does not fit DECIMAL(18,2) exactly"]


def test_rows_keep_the_order_of_the_input_and_the_declared_schema() -> None:
    lines = [b'{"v":%d}' % n if n % 7 else b'{"v":%d.0}' % n for n in range(30_000)]
    chunked = pa.chunked_array([pa.array(lines[:11], pa.binary()), pa.array(lines[11:], pa.binary())])
    schema = pa.schema([pa.field("v", pa.int64(), nullable=True)])
    decoded = JsonLines().decode(chunked, schema, is_lenient=False)
    assert decoded.rows.column("v").to_pylist() == list(range(30_000))
    assert decoded.rows.schema.equals(schema)


def test_an_empty_batch_gives_no_rows() -> None:
    decoded = decode([], v="BIGINT")
    assert len(decoded.rows) == len(decoded.misfits) == 0


def test_column_names_with_quotes_and_keywords_are_columns_like_others() -> None:
    name = "we'i\"rd é select"
    line = ('{"we\'i\\"rd é select":"x"}').encode()
    schema = to_schema({name: "VARCHAR", "select": "BIGINT"})
    decoded = JsonLines().decode(pa.array([line], pa.binary()), schema, is_lenient=False)
    assert decoded.rows.to_pylist() == [{name: "x", "select": None}]


def test_a_type_that_text_cannot_carry_is_refused_when_the_schema_is_used() -> None:
    with pytest.raises(SchemaError, match="duration"):
        JsonLines().decode(pa.array([b"{}"]), pa.schema([("v", pa.duration("s"))]), is_lenient=False)


def test_a_duckdb_that_loses_digits_of_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 2.0.1 does: 12.30 would be "12.3", and a DECIMAL(18,2) of 16 digits would lose its cents."""
    rounded = pa.table({"a": ["1.1"], "b": ["1234567890123456.8"]})
    monkeypatch.setattr(json_format, "query", lambda sql, **tables: rounded)
    json_format.demand_digits.cache_clear()
    with pytest.raises(ExtraMissing, match="loses digits") as refused:
        JsonLines()
    assert "duckdb==2.0.0" in refused.value.next_step
    monkeypatch.undo()
    json_format.demand_digits.cache_clear()
    JsonLines()
