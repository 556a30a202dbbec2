"""Schemas as users declare them, and the way back to SQL types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import pyarrow as pa
import pytest

from onefold.errors import SchemaError
from onefold.formats.schema import sql_types, to_schema

DECLARED = {
    "a": "BOOLEAN",
    "b": "UTINYINT",
    "c": "BIGINT",
    "d": "REAL",
    "e": "DECIMAL(18,2)",
    "f": "VARCHAR",
    "g": "BLOB",
    "h": "DATE",
    "i": "TIME",
    "j": "TIMESTAMP",
    "k": "TIMESTAMP_NS",
    "l": "TIMESTAMPTZ",
    "m": "JSON",
    "n": "UUID",
    "o": "INTEGER[]",
    "p": "DOUBLE[3]",
    "q": 'STRUCT("x" INTEGER, "y z" JSON[])',
    "r": "MAP(VARCHAR, DECIMAL(5,1))",
}


def test_sql_types_go_to_arrow_and_back() -> None:
    schema = to_schema(DECLARED)
    assert sql_types(schema) == DECLARED
    assert to_schema(schema).equals(schema, check_metadata=True)


def test_other_names_of_a_type_are_the_type() -> None:
    aliases = {"a": "int", "b": "text", "c": "float8", "d": "decimal", "e": "HUGEINT"}
    expected = ["INTEGER", "VARCHAR", "DOUBLE", "DECIMAL(18,3)", "DECIMAL(38,0)"]
    assert list(sql_types(to_schema(aliases)).values()) == expected


def test_a_dataclass_is_a_schema() -> None:
    @dataclass
    class Line:
        price: Annotated[Decimal, "DECIMAL(9,4)"]

    @dataclass
    class Order:
        id: UUID
        count: int
        rate: float
        note: str | None
        paid: bool
        at: datetime
        days: list[date]
        amount: Annotated[Decimal, "DECIMAL(18,2)"]

    assert sql_types(to_schema(Order)) == {
        "id": "UUID",
        "count": "BIGINT",
        "rate": "DOUBLE",
        "note": "VARCHAR",
        "paid": "BOOLEAN",
        "at": "TIMESTAMP",
        "days": "DATE[]",
        "amount": "DECIMAL(18,2)",
    }
    assert sql_types(to_schema(Line)) == {"price": "DECIMAL(9,4)"}


def test_a_decimal_without_its_scale_is_an_error_that_shows_how_to_write_it() -> None:
    @dataclass
    class Order:
        amount: Decimal

    with pytest.raises(SchemaError, match=r'(?s)precision and scale.*Annotated\[Decimal, "DECIMAL\(18,2\)"\]'):
        to_schema(Order)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"amount": "DECIMALL(18,2)"}, "(?s)'amount'.*DECIMALL.*Did you mean DECIMAL"),
        ({"a": "STRUCT(x INTT)"}, "Did you mean INT"),
        ({"a": "DECIMAL(50,2)"}, "between 1 and 38"),
        ({"a": "INT; DROP TABLE x"}, "is no SQL type"),
        ({"a": "INTERVAL"}, "cannot carry INTERVAL"),
        ({"a": "ENUM('x')"}, "cannot carry"),
        ({"a": "STRUCT(t TIMETZ)"}, "cannot carry TIME WITH TIME ZONE"),
        ({"_epoch": "INT"}, "reserved"),
        ({"": "INT"}, "reserved"),
        ({"a": "INT", "A": "INT"}, "one name"),
        ({}, "at least one column"),
        ({"a": 5}, "both strings"),
        ([("a", "INT")], "no schema"),
        (pa.schema([("d", pa.duration("s"))]), "no SQL type"),
    ],
)
def test_what_is_no_schema_is_refused_with_the_column_and_the_nearest_type(spec, message) -> None:
    with pytest.raises(SchemaError, match=message):
        to_schema(spec)
