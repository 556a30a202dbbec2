"""Batches of several partitions are decoded at once, and each row ends where it would have ended alone."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onefold as of
from onefold.operators.reading import DecodedPart, Reader
from onefold.types import PartitionId

LINES = [b'{"n": 1}', b'{"n": "x"}', b"{", b"", b'{"n": null}', b'{"n": 12345678901234567890}', b"[1]", None]


def reader() -> Reader:
    flow = of.Flow("together")
    rows = flow.read(
        of.memory("together", schema=pa.schema([("_value", pa.binary())])), schema={"n": "BIGINT"}, format="json"
    )
    rows.append(of.memory("out"))
    return Reader(flow.plan.reads()[0])


def batch(values: list[bytes | None], first: int) -> pa.RecordBatch:
    offsets = pa.array(range(first, first + len(values)), pa.int64())
    return pa.RecordBatch.from_arrays([pa.array(values, pa.binary()), offsets], ["_value", "_offset"])


def seen(part: DecodedPart) -> tuple[object, ...]:
    kept = list(range(part.rows.num_rows)) if part.kept is None else part.kept.to_pylist()
    return part.partition, part.rows.to_pylist(), kept, part.dead.to_pylist(), part.batch.to_pylist()


@given(st.lists(st.lists(st.sampled_from(LINES), min_size=1, max_size=30), min_size=1, max_size=5))
def test_together_is_as_apart(values: list[list[bytes | None]]) -> None:
    one = reader()
    batches = {PartitionId(f"p{number}"): [batch(some, 100 * number)] for number, some in enumerate(values)}
    together = one.decode(batches)
    apart = [part for name, some in batches.items() for part in one.decode({name: some})]
    assert [seen(part) for part in together] == [seen(part) for part in apart]


@pytest.mark.parametrize("count", [1, 2_000])
def test_rows_that_all_fit_are_cut_where_their_partitions_end(count: int) -> None:
    parts = reader().decode({PartitionId(name): [batch([LINES[0]] * count, 0)] for name in "abc"})
    assert [(part.partition, part.rows.num_rows, part.kept) for part in parts] == [(n, count, None) for n in "abc"]
