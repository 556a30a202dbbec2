"""JSON lines written by onefold read back as the same values."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pyarrow as pa
import pytest

from onefold.errors import SchemaError
from onefold.formats.json import JsonLines
from onefold.formats.schema import to_schema
from onefold.formats.write import json_lines

SCHEMA = to_schema({
    "b": "BOOLEAN", "i": "BIGINT", "u": "UBIGINT", "r": "REAL", "d": "DOUBLE", "n": "DECIMAL(38,10)", "s": "VARCHAR",
    "x": "BLOB", "t": "DATE", "k": "TIME", "ts": "TIMESTAMP", "tz": "TIMESTAMPTZ", "id": "UUID", "j": "JSON",
    "l": "DECIMAL(5,2)[]", "f": "INT[2]", "st": 'STRUCT(a DOUBLE, "q""x" VARCHAR[])', "m": "MAP(VARCHAR, TIMESTAMP)",
    "we'i\"rd é": "VARCHAR",
})  # fmt: skip
WHEN = datetime.fromisoformat("0001-02-03T04:05:06.000007")
FULL = {
    "b": True, "i": -(2**63), "u": 2**64 - 1, "r": 0.5, "d": 5e-324,
    "n": Decimal("1234567890123456789012345678.0123456789"), "s": 'a"\\\n\x00\u2028😀/', "x": b"\x00\xff",
    "t": date(1969, 1, 1), "k": time(1, 2, 3, 4), "ts": WHEN, "tz": WHEN.replace(tzinfo=UTC),
    "id": "6f1c9f9e-7b1a-4c1d-8f00-000000000000", "j": '{"a":1.10}', "l": [Decimal("1.10"), None], "f": [1, 2],
    "st": {"a": math.inf, 'q"x': ["z", None]}, "m": [("a", WHEN), ('b"', None)], "we'i\"rd é": "x",
}  # fmt: skip


def test_what_is_written_reads_back_the_same() -> None:
    rows = [FULL, {}, {"d": -math.inf, "r": math.inf, "l": [], "st": {"a": None, 'q"x': None}, "m": []}]
    table = pa.Table.from_pylist(rows, SCHEMA)
    written = json_lines(table)
    decoded = JsonLines().decode(pa.array(written.splitlines(), pa.binary()), SCHEMA, is_lenient=False)
    assert decoded.misfits.detail.to_pylist() == []
    assert decoded.rows.equals(table)


def test_nan_is_a_string_and_reads_back_as_nan() -> None:
    written = json_lines(pa.table({"d": [math.nan]}))
    assert written == b'{"d":"NaN"}\n'
    decoded = JsonLines().decode(pa.array([written], pa.binary()), to_schema({"d": "DOUBLE"}), is_lenient=False)
    assert math.isnan(decoded.rows.column("d")[0].as_py())


def test_numbers_keep_all_their_digits_and_rows_their_order() -> None:
    table = pa.table(
        {"i": range(10_000), "n": pa.array([Decimal(i) / 100 for i in range(10_000)], pa.decimal128(9, 2))}
    )
    lines = json_lines(table).splitlines()
    assert lines[1230] == b'{"i":1230,"n":12.30}'
    assert [json.loads(line)["i"] for line in lines] == list(range(10_000))


def test_no_rows_are_no_bytes() -> None:
    assert json_lines(SCHEMA.empty_table()) == b""


def test_a_type_without_a_json_form_is_refused() -> None:
    with pytest.raises(SchemaError, match="no SQL type"):
        json_lines(pa.table({"d": pa.array([1], pa.duration("s"))}))
