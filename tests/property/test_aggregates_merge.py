"""An aggregate merged from partial results, however the rows are cut, is DuckDB's plain aggregate with its own type."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onefold.flow.aggregates import SplitAggregate, split

SCHEMA = pa.schema(
    {
        "k": pa.int32(),
        "i": pa.int32(),
        "big": pa.int64(),
        "u": pa.uint64(),
        "d": pa.decimal128(18, 2),
        "f": pa.float64(),
        "r": pa.float32(),
        "b": pa.bool_(),
        "s": pa.string(),
        "ts": pa.timestamp("us"),
        "day": pa.date32(),
        "l": pa.list_(pa.int32()),
    }
)

EXACT = [
    "count(*)", "count(i)", "count()", "count_if(b)", "countif(i > 0)", "sum(i)", "sum(big)", "sum(u)", "sum(d)",
    "sum(b::INT)", "sum(d * 3)", "min(s)", "max(s)", "min(ts)", "max(day)", "min(d)", "max(f)", "min(f)", "min(l)",
    "bool_and(b)", "bool_or(b)", "sum(i) FILTER (WHERE b)", "count(*) FILTER (WHERE s > 'b')", "max(i) FILTER (b)",
    "sum(big) // 7", "sum(big) % 7", "sum(i) + 1", "sum(i) * 2", "coalesce(sum(d), 0)", "sum(d) - min(d) + max(d)",
    "max(i) - min(i)", "sum(i) + sum(i)", "CASE WHEN count(*) > 2 THEN min(s) ELSE 'few' END",
    "sum(i)::BIGINT", "min(s::UUID)", "max(i::HUGEINT)", "abs(min(i))", "[min(i), max(i)]",
    "list_transform([max(i), 1], lambda x: x + 1)",
]  # fmt: skip
NEAR = ["avg(i)", "avg(d)", "avg(f)", "avg(big)", "mean(r)", "sum(f)", "sum(d) / count(*)", "avg(d) FILTER (WHERE b)",
        "round(avg(d), 2)", "sum(f) / nullif(sum(i), 0)", "avg(i) + avg(u)"]  # fmt: skip

UUIDS = [f"00000000-0000-0000-0000-00000000000{digit}" for digit in "0123456789abcdef"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "k": st.one_of(st.none(), st.integers(0, 2)),
            "i": st.one_of(st.none(), st.integers(-(10**9), 10**9)),
            "big": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
            "u": st.one_of(st.none(), st.integers(0, 2**64 - 1)),
            "d": st.one_of(st.none(), st.integers(-(10**17), 10**17).map(lambda n: Decimal(n).scaleb(-2))),
            "f": st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(math.nan)),
            "r": st.one_of(st.none(), st.integers(-1000, 1000).map(float)),
            "b": st.one_of(st.none(), st.booleans()),
            "s": st.one_of(st.none(), st.sampled_from(UUIDS)),
            "ts": st.one_of(st.none(), st.integers(-(10**15), 10**15)),
            "day": st.one_of(st.none(), st.integers(-30_000, 30_000)),
            "l": st.one_of(st.none(), st.lists(st.integers(0, 3), max_size=2)),
        }
    ),
    max_size=12,
)
CUTS = st.lists(st.integers(0, 12), max_size=4)


ALL = [*EXACT, *NEAR]


@pytest.fixture(scope="module")
def splits() -> list[SplitAggregate]:
    return [split(f"x{index}", sql, SCHEMA) for index, sql in enumerate(ALL)]


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def query(con: duckdb.DuckDBPyConnection, columns: Mapping[str, str], rest: str, table: pa.Table) -> pa.Table:
    con.register("given_rows", table)
    listed = ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())
    return con.sql(f"SELECT k, {listed} FROM given_rows {rest}").to_arrow_table()


def merged(con: duckdb.DuckDBPyConnection, splits: list[SplitAggregate], pieces: list[pa.Table]) -> pa.Table:
    """What the engine does, one piece an epoch: aggregate it, merge it with the state, in the end the results."""
    kept = pa.schema([SCHEMA.field("k"), *(field for one in splits for field in one.partial_fields)])
    state = kept.empty_table()
    partials = {name: sql for one in splits for name, sql in one.aggregate.partials.items()}
    merges = {name: sql for one in splits for name, sql in one.aggregate.merges.items()}
    for piece in pieces:
        new = query(con, partials, "GROUP BY k", piece)
        assert new.schema == kept
        state = query(con, merges, "GROUP BY k", pa.concat_tables([state, new]))
        assert state.schema == kept
    return query(con, {one.aggregate.name: one.aggregate.final for one in splits}, "ORDER BY k", state)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    arrays = [pa.array([row[name] for row in rows], SCHEMA.field(name).type) for name in SCHEMA.names]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


@settings(max_examples=60)
@given(rows=ROWS, cuts=CUTS)
def test_merging_partial_results_gives_the_plain_aggregate(
    con: duckdb.DuckDBPyConnection, splits: list[SplitAggregate], rows: list[dict[str, Any]], cuts: list[int]
) -> None:
    table = table_of(rows)
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    pieces = [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    plain = query(con, {f"x{index}": sql for index, sql in enumerate(ALL)}, "GROUP BY k ORDER BY k", table)
    found = merged(con, splits, pieces)
    assert found.schema == plain.schema
    assert [one.field.type for one in splits] == plain.schema.types[1:]
    for name, sql in zip(plain.schema.names, ["k", *ALL], strict=True):
        for left, right in zip(found[name].to_pylist(), plain[name].to_pylist(), strict=True):
            assert same(left, right, is_near=sql in NEAR), (sql, left, right)


def same(left: Any, right: Any, *, is_near: bool) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return math.isclose(left, right, rel_tol=1e-12, abs_tol=1e-6) if is_near else left == right
    return bool(left == right)
