"""Formats of a schema registry: what is written is read back, value for value, and every message ends somewhere."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onefold as of
from onefold.formats.framed import Framed
from onefold.formats.schema import to_schema
from tests.unit.registry_fake import fake_registry

FIRST = datetime.fromisoformat("1970-01-01")
INSTANTS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999).map(
    lambda n: FIRST + timedelta(microseconds=n)
)
NUMBERS = st.integers(-(10**18) + 1, 10**18 - 1)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "TINYINT": st.integers(-128, 127),
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "UBIGINT": st.integers(0, 2**64 - 1),
    "DOUBLE": st.floats(allow_nan=False),
    "REAL": st.floats(allow_nan=False, width=32),
    "BOOLEAN": st.booleans(),
    "VARCHAR": st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    "BLOB": st.binary(max_size=9),
    "DECIMAL(18,4)": NUMBERS.map(lambda n: Decimal(n).scaleb(-4)),
    "DATE": st.dates(date(1, 1, 1), date(9999, 12, 31)),
    "TIMESTAMP": INSTANTS,
    "TIME": st.times(),
    "UUID": st.uuids().map(str),
}
COLUMNS = {
    **{f"c{place}": kind for place, kind in enumerate(SCALARS)},
    "s": "STRUCT(a BIGINT, b STRUCT(c VARCHAR))",
    "l": "BIGINT[]",
    "m": "MAP(VARCHAR, DOUBLE)",
}
LONG = SCALARS["BIGINT"]
STRUCT = st.fixed_dictionaries({
    "a": st.none() | LONG, "b": st.none() | st.fixed_dictionaries({"c": st.none() | SCALARS["VARCHAR"]})
})  # fmt: skip
ROWS = st.lists(
    st.fixed_dictionaries({
        **{f"c{place}": st.none() | values for place, values in enumerate(SCALARS.values())},
        "s": st.none() | STRUCT,
        "l": st.lists(LONG, max_size=3),
        "m": st.dictionaries(SCALARS["VARCHAR"], SCALARS["DOUBLE"], max_size=3).map(lambda m: sorted(m.items())),
    }),
    max_size=8,
)  # fmt: skip
FORMATS = {"avro": of.avro, "json_schema": of.json_schema, "protobuf": of.protobuf}


@pytest.mark.parametrize("name", FORMATS)
@given(rows=ROWS, first=st.integers(0, 2))
@settings(max_examples=60)
def test_what_is_written_is_read_back(name: str, rows: list[dict[str, Any]], first: int) -> None:
    made: Framed = FORMATS[name](fake_registry()[0])  # type: ignore[operator]
    schema = to_schema(COLUMNS)
    table = pa.Table.from_pylist(rows, schema=schema).slice(min(first, len(rows)))
    values = made.encoder(schema, "t")(table)
    assert len(values) == len(table)
    found = made.decode(values, schema, is_lenient=False)
    assert found.misfits.detail.to_pylist() == []
    assert found.rows.to_pylist() == table.to_pylist()


@pytest.mark.parametrize("name", FORMATS)
@given(cuts=st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3)), min_size=1, max_size=6))
@settings(max_examples=60)
def test_any_bytes_are_a_row_or_a_dead_letter(name: str, cuts: list[tuple[int, bytes]]) -> None:
    made: Framed = FORMATS[name](fake_registry()[0])  # type: ignore[operator]
    schema = to_schema(COLUMNS)
    row = {"c1": 7, "c6": "text", "c8": Decimal("1.5"), "l": [1, 2], "m": [("k", 1.0)], "s": {"a": 1, "b": None}}
    (value,) = made.encoder(schema, "t")(pa.Table.from_pylist([row], schema=schema)).to_pylist()
    payload = [value, *(value[:place] + wrong + value[place + len(wrong) :] for place, wrong in cuts)]
    found = made.decode(pa.array(payload, pa.large_binary()), schema, is_lenient=False)
    assert len(found.rows) + len(found.misfits) == len(payload)
    assert 0 not in found.misfits.index.to_pylist()
