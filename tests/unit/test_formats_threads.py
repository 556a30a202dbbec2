"""Decoding from many threads, many schemas, and in bulk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pytest

from onefold.formats import duck
from onefold.formats.json import JsonLines
from onefold.formats.schema import to_schema


def test_threads_decode_side_by_side_and_never_see_each_others_rows() -> None:
    schema, one_format = to_schema({"v": "BIGINT"}), JsonLines()

    def decode(seed: int) -> bool:
        numbers = range(seed * 1_000_000, seed * 1_000_000 + 300 + seed * 97)
        lines = [b'{"v":%d}' % n if n % 50 else b'{"v":' for n in numbers]
        decoded = one_format.decode(pa.array(lines, pa.binary()), schema, is_lenient=False)
        return decoded.rows.column("v").to_pylist() == [n for n in numbers if n % 50]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(decode, range(60)))


def test_more_schemas_than_statements_are_kept_still_decode() -> None:
    for width in [*range(1, 40), 1, 2]:
        schema = to_schema({f"c{place}": "BIGINT" for place in range(width)})
        decoded = JsonLines().decode(pa.array([b'{"c0":7}'] * 200, pa.binary()), schema, is_lenient=False)
        assert decoded.rows.column("c0").to_pylist() == [7] * 200


def test_a_statement_sees_the_rows_of_this_run_and_never_those_of_the_last() -> None:
    for rows in ([1, 2], [], [3], [4, 5, 6]):
        table = pa.table({"a": pa.array(rows, pa.int64())})
        assert duck.run("SELECT a FROM _input", table).column("a").to_pylist() == rows


@pytest.mark.parametrize("count", [200, 60_000])
def test_a_malformed_row_among_others_costs_only_itself(count) -> None:
    lines = [b'{"v":%d}' % n for n in range(count)]
    lines[count // 2] = '{"v":["é€😀'.encode() * 40
    one_format = JsonLines()
    for _ in range(2):  # the second batch is decoded with validation first
        decoded = one_format.decode(pa.array(lines, pa.binary()), to_schema({"v": "BIGINT"}), is_lenient=False)
        assert decoded.misfits.index.to_pylist() == [count // 2]
        assert len(decoded.rows) == count - 1


def test_python_variables_are_never_taken_for_tables() -> None:
    visible = pa.table({"a": [1]})
    with pytest.raises(duckdb.CatalogException):
        duck.query("SELECT * FROM visible")
    assert len(visible) == 1


def test_row_numbers_are_given_out_once() -> None:
    ten = duck.row_numbers(10)
    assert len(ten) == 10
    assert duck.row_numbers(1).start >= ten.stop


def test_a_batch_of_nothing_but_malformed_lines_is_refused_in_little_room() -> None:
    payload = pa.array([b"[" * 5_000] * 20_000, pa.binary())
    decoded = JsonLines().decode(payload, to_schema({"v": "BIGINT", "w": "VARCHAR"}), is_lenient=False)
    assert len(decoded.misfits) == 20_000
    assert len(decoded.rows) == 0
    assert decoded.misfits.detail.nbytes < 250 * 20_000
