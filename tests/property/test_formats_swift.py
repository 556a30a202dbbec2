"""The swift path takes a batch exactly as the reference would, or leaves it."""

from __future__ import annotations

import json

import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from onefold.formats.json import JsonLines, _decode_swift, _plan
from onefold.formats.schema import to_schema

TYPES = ["BIGINT", "TINYINT", "UBIGINT", "DECIMAL(18,2)", "DECIMAL(38,0)", "DECIMAL(5,5)", "TIMESTAMP", "VARCHAR"]

numbers = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.from_regex(r"-?[0-9]{1,6}([.][0-9]{1,4})?", fullmatch=True),
    st.text("0123456789.-+eE ", max_size=12),
)
times = st.one_of(
    st.datetimes().map(lambda t: t.isoformat(sep=" ")),
    st.from_regex(
        r"[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]([.][0-9]{0,7})?(Z|[+]0[0-9])?",
        fullmatch=True,
    ),
    st.text("0123456789-:.T Z+", min_size=10, max_size=27),
)


def as_lines(texts: list[str], as_string: list[bool]) -> list[bytes]:
    lines = []
    for text, quoted in zip(texts, as_string, strict=True):
        lines.append(f'{{"x":{json.dumps(text) if quoted else text}}}'.encode())
    return lines


@given(
    sql=st.sampled_from(TYPES),
    texts=st.lists(st.one_of(numbers, times), min_size=1, max_size=4),
    as_string=st.lists(st.booleans(), min_size=4, max_size=4),
)
@example(sql="DECIMAL(18,2)", texts=["1.", "5"], as_string=[True] * 4)
@example(sql="DECIMAL(18,2)", texts=["1", ".5"], as_string=[True] * 4)
@example(sql="DECIMAL(18,2)", texts=["-.5"], as_string=[True] * 4)
@example(sql="DECIMAL(18,2)", texts=["12.345"], as_string=[False] * 4)
@example(sql="DECIMAL(18,2)", texts=["12.3000"], as_string=[False] * 4)
@example(sql="DECIMAL(18,2)", texts=["1234567890123456.78"], as_string=[False] * 4)
@example(sql="BIGINT", texts=["-0", "007"], as_string=[True] * 4)
@example(sql="TIMESTAMP", texts=["2024-02-30 00:00:00"], as_string=[True] * 4)
@example(sql="TIMESTAMP", texts=["2024-01-01 24:00:00"], as_string=[True] * 4)
@example(sql="TIMESTAMP", texts=["2024-01-01 00:00:60"], as_string=[True] * 4)
@example(sql="TIMESTAMP", texts=["0000-01-01 00:00:00"], as_string=[True] * 4)
@example(sql="TIMESTAMP", texts=["2024-01-01 00:00:00.1234567"], as_string=[True] * 4)
@example(sql="TIMESTAMP", texts=["2024-01-01 00:00:00."], as_string=[True] * 4)
def test_swift_is_the_reference_or_nothing(sql: str, texts: list[str], as_string: list[bool]) -> None:
    schema = to_schema({"x": sql})
    lines = as_lines(texts, as_string[: len(texts)])
    plan = _plan(schema.serialize().to_pybytes(), False)
    swift = _decode_swift(plan, pa.chunked_array([pa.array(lines, pa.large_binary()).cast(pa.large_string())]))
    if swift is None:
        return
    reference = JsonLines().decode(pa.array(lines, pa.binary()), schema, is_lenient=False)
    assert len(reference.misfits) == 0
    assert swift.rows.equals(reference.rows)


@given(
    st.lists(
        st.sampled_from(
            ['{"x":"a"}', '{"x":{"y":1}}', '{"x":[1]}', "5", "null", '"{"', "[1]", "{}", '{"x":null}', "{bad", ""]
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_no_flat_object_is_left_to_the_careful_path(lines: list[str]) -> None:
    schema = to_schema({"x": "VARCHAR"})
    payload = pa.array([line.encode() for line in lines], pa.large_binary())
    swift = _decode_swift(
        _plan(schema.serialize().to_pybytes(), False), pa.chunked_array([payload.cast(pa.large_string())])
    )
    reference = JsonLines().decode(payload, schema, is_lenient=False)
    if swift is not None:
        assert len(reference.misfits) == 0
        assert swift.rows.equals(reference.rows)


def test_a_plain_batch_is_taken() -> None:
    schema = to_schema({"id": "VARCHAR", "amount": "DECIMAL(18,2)", "at": "TIMESTAMP", "n": "BIGINT"})
    lines = [b'{"id":"e%d","amount":%d.50,"at":"2024-01-01 00:00:%02d","n":-%d}' % (i, i, i, i) for i in range(60)]
    plan = _plan(schema.serialize().to_pybytes(), False)
    swift = _decode_swift(plan, pa.chunked_array([pa.array(lines, pa.large_binary()).cast(pa.large_string())]))
    assert swift is not None
    assert swift.rows.equals(JsonLines().decode(pa.array(lines, pa.binary()), schema, is_lenient=False).rows)
