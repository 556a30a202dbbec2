"""KeyedTable: look-ups, upserts, deletes, expiry, compaction, deltas, frozen views."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from onefold.errors import InvariantBroken
from onefold.state.table import KeyedTable

KEY = b"0123456789abcdef"
KEYS = pa.schema([("merchant", pa.string()), ("window", pa.timestamp("us"))])
VALUES = pa.schema([("total", pa.decimal128(38, 2)), ("tags", pa.list_(pa.string()))])


def table(expiry: str | None = "window") -> KeyedTable:
    return KeyedTable("hourly", KEYS, VALUES, hash_key=KEY, expiry=expiry)


def rows(*items: tuple[str | None, int | None, int | None]) -> pa.Table:
    """(merchant, window, total); tags tell the total again."""
    return pa.table(
        [
            pa.array([item[0] for item in items], pa.string()),
            pa.array([item[1] for item in items], pa.timestamp("us")),
            pa.array([None if item[2] is None else Decimal(item[2]) for item in items], pa.decimal128(38, 2)),
            pa.array([None if item[2] is None else [str(item[2])] for item in items], pa.list_(pa.string())),
        ],
        schema=pa.schema([*KEYS, *VALUES]),
    )


def numbered(start: int, end: int, *, value: int = 0) -> pa.Table:
    return rows(*[(str(i), i, i + value) for i in range(start, end)])


def content(batches: Any) -> dict[tuple[Any, Any], Any]:
    found: dict[tuple[Any, Any], Any] = {}
    for batch in batches:
        for row in batch.to_pylist():
            key = (row["merchant"], row["window"])
            assert key not in found, "two rows of one key"
            found[key] = (row["total"], row["tags"])
    return found


def totals(values: pa.Table) -> list[int | None]:
    return [None if total is None else int(total) for total in values.column("total").to_pylist()]


def test_lookup_gives_values_and_nulls_where_absent() -> None:
    state = table()
    assert state.upsert(rows(("a", 1, 10), (None, None, 20))).tolist() == [False, False]
    found, values = state.lookup(rows((None, None, 0), ("zz", 1, 0), ("a", 1, 0), ("a", None, 0)))
    assert found.tolist() == [True, False, True, False]
    assert totals(values) == [20, None, 10, None]
    assert values.schema == VALUES
    assert values.column("tags").to_pylist() == [["20"], None, ["10"], None]


def test_lookup_in_an_empty_table_and_of_no_keys() -> None:
    state = table()
    found, values = state.lookup(rows(("a", 1, 0)))
    assert (found.tolist(), totals(values)) == ([False], [None])
    found, values = state.lookup(rows())
    assert (found.tolist(), values.num_rows) == ([], 0)


def test_of_rows_with_one_key_the_last_wins() -> None:
    state = table()
    assert state.upsert(rows(("a", 1, 10), ("b", 1, 5), ("a", 1, 11))).tolist() == [False, False, True]
    assert state.upsert(rows(("a", 1, 12), ("a", 1, 13))).tolist() == [True, True]
    assert len(state) == 2
    assert totals(state.lookup(rows(("a", 1, 0), ("b", 1, 0)))[1]) == [13, 5]
    assert len(content(state.scan())) == 2


def test_delete_removes_and_tells_what_was_there() -> None:
    state = table()
    state.upsert(rows(("a", 1, 10), ("b", 1, 20)))
    assert state.delete(rows(("a", 1, 0), ("c", 1, 0), ("a", 1, 0))).tolist() == [True, False, False]
    assert state.lookup(rows(("a", 1, 0), ("b", 1, 0)))[0].tolist() == [False, True]
    assert len(state) == 1


def test_rows_of_another_schema_are_refused() -> None:
    state = table()
    with pytest.raises(InvariantBroken, match="schema"):
        state.upsert(rows(("a", 1, 1)).drop_columns(["tags"]))
    with pytest.raises(InvariantBroken, match="unique"):
        KeyedTable("t", KEYS, KEYS, hash_key=KEY)


def test_required_columns_are_taken_and_read_back_with_nulls_where_absent() -> None:
    required = pa.schema([pa.field("k", pa.int64(), nullable=False)])
    state = KeyedTable("t", required, pa.schema([pa.field("v", pa.int64(), nullable=False)]), hash_key=KEY)
    schema = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in "kv"])
    state.upsert(pa.table({"k": [1], "v": [2]}, schema=schema))
    assert state.lookup(pa.table({"k": [1, 9]}))[1].to_pydict() == {"v": [2, None]}


def test_expired_rows_are_taken_once_and_only_those() -> None:
    state = table()
    state.upsert(rows(("a", -5, 1), ("b", 10, 2), ("c", None, 3), ("d", 20, 4)))
    state.upsert(rows(("e", 11, 5), ("b", 10, 6)))
    assert content(state.take_expired(-6).to_batches()) == {}
    taken = state.take_expired(11)
    assert sorted(totals(taken)) == [1, 5, 6]
    assert taken.schema.names == ["merchant", "window", "total", "tags"]
    assert state.take_expired(11).num_rows == 0
    assert sorted(totals(pa.Table.from_batches(state.scan()))) == [3, 4]
    state.upsert(rows(("late", 3, 7)))
    assert totals(state.take_expired(11)) == [7]
    assert totals(state.take_expired(2**62)) == [4]
    assert len(state) == 1


@pytest.mark.parametrize(
    "kind", [pa.int16(), pa.uint32(), pa.int64(), pa.date32(), pa.date64(), pa.timestamp("ms", "UTC")]
)
def test_any_integer_or_time_column_can_be_the_expiry(kind: pa.DataType) -> None:
    day = 86_400_000 if kind == pa.date64() else 1
    state = KeyedTable("t", pa.schema([("k", pa.int8())]), pa.schema([("at", kind)]), hash_key=KEY, expiry="at")
    storage = pa.int32() if kind == pa.date32() else pa.int64()
    at = pa.array([1 * day, 2 * day, 3 * day], storage)
    state.upsert(pa.table([pa.array([1, 2, 3], pa.int8()), at.cast(kind)], schema=state.schema))
    assert sorted(state.take_expired(2 * day).column("k").to_pylist()) == [1, 2]


def test_expiry_looks_at_expired_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    state = table()
    for start in range(0, 60_000, 3_000):
        state.upsert(numbered(start, start + 3_000))
    looked_at = 0
    from onefold.state.segment import Segment

    original = Segment.due

    def counted(self: Segment, upto: int) -> Any:
        nonlocal looked_at
        found = original(self, upto)
        looked_at += len(found)
        return found

    monkeypatch.setattr(Segment, "due", counted)
    for upto in range(0, 30_000, 500):
        state.take_expired(upto)
    assert looked_at == 29_501
    assert len(state) == 60_000 - 29_501


def test_compaction_keeps_memory_in_proportion_to_the_rows_alive() -> None:
    state = table()
    sizes = []
    for step in range(60):
        state.upsert(numbered(0, 2_000, value=step))
        state.take_delta()
        sizes.append(state.size_bytes)
    assert content(state.scan()) == content(numbered(0, 2_000, value=59).to_batches())
    assert max(sizes) < 4 * sizes[0]


def test_many_small_upserts_end_in_few_segments() -> None:
    state = table()
    for i in range(400):
        state.upsert(numbered(i * 3, i * 3 + 3))
    assert len(list(state.scan())) < 30
    assert content(state.scan()) == content(numbered(0, 1_200).to_batches())


def test_one_call_copies_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    state = table()
    copied = 0
    original = KeyedTable._merge

    def counted(self: KeyedTable, numbers: list[int]) -> None:
        nonlocal copied
        copied += sum(self._segments[number].alive for number in numbers)
        original(self, numbers)

    monkeypatch.setattr(KeyedTable, "_merge", counted)
    worst = total = 0
    for step in range(150):
        copied = 0
        state.upsert(numbered((step * 700) % 20_000, (step * 700) % 20_000 + 1_000, value=step))
        state.take_delta()
        worst, total = max(worst, copied), total + copied
    assert worst <= 65_536 + 65_536 // 2
    assert 0 < total < 8 * 150 * 1_000


def test_deltas_rebuild_the_table_and_may_be_applied_twice() -> None:
    state, copy = table(), table()
    for step in range(6):
        state.upsert(numbered(step * 50, step * 50 + 100, value=step))
        state.delete(numbered(step * 50, step * 50 + 10))
        state.upsert(numbered(step * 50 + 5, step * 50 + 7))
        state.take_expired(step * 30)
        delta = state.take_delta()
        assert all(batch.schema == state.delta_schema for batch in delta)
        for _ in range(2):
            copy.apply_delta(delta)
            assert content(copy.scan()) == content(state.scan())
        assert copy.take_delta() == []
    assert state.take_delta() == []
    assert content(copy.take_expired(10_000).to_batches()) == content(state.take_expired(10_000).to_batches())


def test_a_delta_may_be_joined_into_one_batch_on_its_way() -> None:
    state, copy = table(), table()
    state.upsert(numbered(0, 10))
    state.delete(numbered(2, 5))
    state.upsert(numbered(3, 4, value=9))
    joined = pa.Table.from_batches(state.take_delta()).combine_chunks().to_batches()
    assert len(joined) == 1
    copy.apply_delta(joined)
    assert content(copy.scan()) == content(state.scan())


def test_a_frozen_table_keeps_its_moment() -> None:
    state = table()
    state.upsert(numbered(0, 5_000))
    state.delete(numbered(10, 20))
    expected = content(state.scan())
    frozen = state.freeze()
    for step in range(20):
        state.upsert(numbered(step * 200, step * 200 + 400, value=1_000))
        state.delete(numbered(step * 150, step * 150 + 70))
    state.take_expired(3_000)
    assert content(frozen.blocks()) == expected
    copy = table()
    again = state.freeze()
    copy.load(again.blocks(), rows=5_000)
    assert content(copy.scan()) == content(state.scan())
    closed = state.freeze()
    closed.close()
    assert list(closed.blocks()) == []


NESTED = [
    pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int16(), pa.string()), pa.binary(),
    pa.list_(pa.string()), pa.large_list(pa.string()), pa.struct([("a", pa.list_(pa.string()))]),
    pa.map_(pa.string(), pa.string()), pa.decimal256(60, 3), pa.duration("us"), pa.month_day_nano_interval(),
    pa.list_(pa.int64(), 2), pa.null(), pa.binary_view(), pa.list_(pa.string_view()),
    pa.struct([("a", pa.list_(pa.string_view()))]), pa.map_(pa.string(), pa.string_view()),
    pa.float16(), pa.time64("ns"), pa.list_view(pa.int8()),
]  # fmt: skip


def sample(kind: pa.DataType, i: int) -> Any:
    if i % 5 == 0 or pa.types.is_null(kind):
        return None
    if pa.types.is_map(kind):
        return [(f"k{i}", "v" * (i % 30))]
    if pa.types.is_struct(kind):
        return {"a": ["x" * i]}
    if pa.types.is_fixed_size_list(kind):
        return [i, -i]
    if pa.types.is_list_view(kind):
        return [i % 100]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [f"item {i}", None]
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return b"b" * (i % 40)
    if pa.types.is_decimal(kind):
        return Decimal(i)
    if pa.types.is_interval(kind):
        return pa.MonthDayNano([i, 1, 2])
    if pa.types.is_duration(kind) or pa.types.is_time(kind) or pa.types.is_floating(kind):
        return pa.scalar(i, pa.int64()).cast(kind).as_py() if not pa.types.is_floating(kind) else float(i % 9)
    return f"text {i} that is longer than twelve bytes"


@pytest.mark.parametrize("kind", NESTED, ids=str)
def test_columns_of_every_type_are_kept_through_merges_deltas_and_snapshots(kind: pa.DataType) -> None:
    def make() -> KeyedTable:
        return KeyedTable("t", pa.schema([("k", pa.int32())]), pa.schema([("v", kind)]), hash_key=KEY)

    state, copy, loaded = make(), make(), make()
    expected: dict[int, Any] = {}
    for step in range(12):
        numbers = list(range(step * 20, step * 20 + 30))
        values = pa.array([sample(kind, n + step) for n in numbers], kind)
        state.upsert(pa.table({"k": pa.array(numbers, pa.int32()), "v": values}))
        expected.update(zip(numbers, values.to_pylist(), strict=True))
    state.delete(pa.table({"k": pa.array([3, 25], pa.int32())}))
    del expected[3], expected[25]
    copy.apply_delta(state.take_delta())
    loaded.load(state.freeze().blocks())
    for one in (state, copy, loaded):
        keys = pa.table({"k": pa.array([*expected, 3], pa.int32())})
        found, values = one.lookup(keys)
        assert found.tolist() == [True] * len(expected) + [False]
        assert values.column("v").to_pylist() == [*expected.values(), None]
