"""Typed columns into declared types: what does not come back unchanged is refused."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from onefold.errors import SchemaError
from onefold.formats.casts import fit
from onefold.formats.raw import Raw
from onefold.formats.schema import to_schema

NOON, MIDNIGHT = datetime.fromisoformat("2024-01-01T12:00"), datetime.fromisoformat("2024-01-01")


@pytest.mark.parametrize(("source", "sql", "good", "bad"), [
    (pa.float64(), "DECIMAL(18,2)", [(0.1, Decimal("0.10")), (-0.0, Decimal("0.00"))], [0.125, float("nan"), 1e30]),
    (pa.float64(), "BIGINT", [(3.0, 3)], [1.5, float("inf"), 1e19]),
    (pa.float64(), "REAL", [(0.5, 0.5)], [0.1, 1e300]),
    (pa.int64(), "DOUBLE", [(2**53, float(2**53))], [2**53 + 1, 2**63 - 1]),
    (pa.int64(), "TINYINT", [(-128, -128)], [128]),
    (pa.int64(), "DECIMAL(4,2)", [(99, Decimal("99.00"))], [100]),
    (pa.uint64(), "BIGINT", [(5, 5)], [2**63]),
    (pa.decimal128(18, 4), "DECIMAL(18,2)", [(Decimal("1.5000"), Decimal("1.50"))], [Decimal("1.5001")]),
    (pa.decimal128(18, 2), "DOUBLE", [(Decimal("0.10"), 0.1)], [Decimal("1234567890123456.78")]),
    (pa.timestamp("ns"), "TIMESTAMP", [(1000, datetime.fromisoformat("1970-01-01T00:00:00.000001"))], [1]),
    (pa.timestamp("us"), "DATE", [(MIDNIGHT, date(2024, 1, 1))], [NOON]),
    (pa.string(), "BIGINT", [("1e2", 100), ("7", 7)], ["x", "1.5"]),
    (pa.string(), "UUID", [("6F1C9F9E7B1A4C1D8F00000000000000", "6f1c9f9e-7b1a-4c1d-8f00-000000000000")], ["x"]),
    (pa.binary(), "VARCHAR", [(b"a", "a")], [b"\xff"]),
    (pa.int64(), "VARCHAR", [(7, "7")], []),
    (pa.list_(pa.float64()), "BIGINT[]", [([1.0, None], [1, None])], [[1.5]]),
])  # fmt: skip
def test_a_value_that_comes_back_unchanged_fits_and_others_do_not(source, sql, good, bad) -> None:
    values = [None, *bad, *(value for value, _ in good)]
    decoded = fit(pa.table({"v": pa.array(values, source)}), to_schema({"v": sql}), is_lenient=False)
    assert decoded.rows.column("v").to_pylist() == [None, *(expected for _, expected in good)]
    assert decoded.misfits.index.to_pylist() == list(range(1, 1 + len(bad)))
    assert decoded.rows.schema.equals(to_schema({"v": sql}), check_metadata=True)


def test_lenient_rounds_what_has_a_place_in_the_type() -> None:
    table = pa.table({"v": [1.5, 0.126, float("nan")]})
    decoded = fit(table, to_schema({"v": "DECIMAL(18,2)"}), is_lenient=True)
    assert decoded.rows.column("v").to_pylist() == [Decimal("1.50"), Decimal("0.13")]
    assert decoded.misfits.index.to_pylist() == [2]


def test_missing_columns_are_null_and_undeclared_ones_are_dropped() -> None:
    batch = pa.record_batch({"a": [1], "z": [2]})
    assert fit(batch, to_schema({"a": "BIGINT", "b": "DATE"}), is_lenient=False).rows.to_pylist() == [
        {"a": 1, "b": None}
    ]


def test_encodings_that_say_nothing_about_the_value_are_undone() -> None:
    table = pa.table({"s": pa.array(["a", "b", "a"]).dictionary_encode(), "t": pa.array([1, 2, 3], pa.time32("s"))})
    decoded = fit(table, to_schema({"s": "VARCHAR", "t": "TIME"}), is_lenient=False)
    assert decoded.rows.column("s").to_pylist() == ["a", "b", "a"]
    assert decoded.kept is None


@pytest.mark.parametrize(("values", "sql"), [([True], "BIGINT"), ([1], "BOOLEAN"), ([1], "DATE"), ([[1]], "BIGINT")])
def test_types_that_never_fit_are_refused_for_the_column(values, sql) -> None:
    with pytest.raises(SchemaError, match="never fits"):
        fit(pa.table({"v": values}), to_schema({"v": sql}), is_lenient=False)


def test_the_first_column_that_does_not_fit_is_named_once() -> None:
    table = pa.table({"a": [1.5, 2.0, 2.5], "b": ["x", "y", "1"]})
    decoded = fit(table, to_schema({"a": "BIGINT", "b": "BIGINT"}), is_lenient=False)
    assert decoded.misfits.detail.to_pylist() == [
        "a: 1.5 does not fit BIGINT exactly",
        'b: "y" does not fit BIGINT exactly',
        "a: 2.5 does not fit BIGINT exactly",
    ]
    assert len(decoded.rows) == 0


def test_raw_values_pass_as_they_are() -> None:
    payload = pa.array([b"a", b"\xff", None])
    assert Raw().decode(payload, to_schema({"v": "BLOB"}), is_lenient=False).rows.column("v").to_pylist() == [
        b"a",
        b"\xff",
        None,
    ]
    decoded = Raw().decode(payload, to_schema({"v": "VARCHAR"}), is_lenient=False)
    assert decoded.misfits.index.to_pylist() == [1]
