"""KeySet: which rows dedup keeps, what expires, and what its deltas and snapshots say."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from onefold.errors import InvariantBroken
from onefold.state.keyset import KeySet

KEY = b"0123456789abcdef"
DAY = 86_400_000_000


def keyset(within: int | None = 10) -> KeySet:
    return KeySet("dedup", KEY, within)


def keep(keys: KeySet, names: list[str | None], times: list[int]) -> list[bool]:
    return keys.first_seen(keys.hash([pa.array(names, pa.string())]), np.array(times, np.int64)).tolist()


def entries(keys: KeySet) -> list[tuple[bytes | None, int]]:
    frozen = keys.freeze()
    return sorted((row["hash"] or b"", row["time"]) for batch in frozen.blocks() for row in batch.to_pylist())


def test_the_first_row_of_a_key_is_kept_inside_a_batch_and_across_batches() -> None:
    keys = keyset()
    assert keep(keys, ["a", "b", "a", None, None], [0, 0, 5, 0, 1]) == [True, True, False, True, False]
    assert keep(keys, ["b", "c", None], [1, 1, 2]) == [False, True, False]
    assert keep(keys, [], []) == []


def test_a_key_is_new_again_outside_its_horizon_on_both_sides() -> None:
    keys = keyset(10)
    assert keep(keys, ["a", "a", "a", "a"], [100, 110, 111, 89]) == [True, False, True, True]


def test_times_before_1970_work() -> None:
    keys = keyset(DAY)
    assert keep(keys, ["a", "a", "a"], [-5 * DAY, -4 * DAY, -3 * DAY]) == [True, False, True]


def test_without_a_horizon_a_key_is_new_once_ever() -> None:
    keys = keyset(None)
    assert keep(keys, ["a", "a"], [-(2**62), 2**62]) == [True, False]
    assert keys.expire(2**62) == 0
    assert keep(keys, ["a"], [2**62]) == [False]


def test_expiry_frees_what_no_row_to_come_can_match() -> None:
    keys = keyset(10)
    keep(keys, [str(i) for i in range(1_000)], list(range(1_000)))
    freed = 0
    for _ in range(100):
        freed += keys.expire(500, limit_entries=50)
    assert freed == 490
    assert len(keys) == 510
    assert keys.expire(500) == 0
    assert keep(keys, ["490", "491"], [500, 501]) == [False, False]


def test_expiry_frees_all_even_when_the_floor_moves_during_a_sweep() -> None:
    keys = keyset(0)
    keep(keys, [str(i) for i in range(1_000)], list(range(1_000)))
    for floor in range(0, 1_001, 10):
        keys.expire(floor, limit_entries=37)
    for _ in range(60):
        keys.expire(1_000, limit_entries=37)
    assert len(keys) == 0


def test_an_expired_entry_counts_as_gone_before_its_memory_is_freed() -> None:
    swept, lazy = keyset(10), keyset(10)
    for keys in (swept, lazy):
        keep(keys, ["a", "b"], [0, 95])
    swept.expire(100)
    lazy.expire(100, limit_entries=0)
    assert (len(swept), len(lazy)) == (1, 2)
    assert entries(swept) == entries(lazy)
    assert keep(swept, ["a", "b"], [100, 101]) == keep(lazy, ["a", "b"], [100, 101]) == [True, False]


def test_a_row_older_than_the_floor_is_a_broken_promise() -> None:
    keys = keyset(10)
    keys.expire(100)
    with pytest.raises(InvariantBroken, match="late"):
        keep(keys, ["a"], [99])


def test_a_delta_makes_a_copy_equal_and_applying_it_twice_changes_nothing() -> None:
    keys, copy = keyset(10), keyset(10)
    for step in range(5):
        keep(keys, ["a", "b", f"only {step}"], [step * 8] * 3)
        keys.expire(step * 8)
        delta = keys.take_delta()
        assert all(batch.schema == KeySet.schema for batch in delta)
        copy.apply_delta(delta)
        copy.apply_delta(delta)
        assert entries(copy) == entries(keys)
        assert copy.take_delta() == []
    assert keys.take_delta() == []


def test_a_snapshot_and_the_deltas_after_it_give_the_same_answers() -> None:
    keys = keyset(1_000)
    keep(keys, [str(i) for i in range(5_000)], list(range(5_000)))
    keys.expire(4_000)
    keys.take_delta()
    frozen = keys.freeze()
    keep(keys, ["x", "y"], [5_000, 5_000])
    delta = keys.take_delta()
    copy = keyset(1_000)
    copy.load(frozen.blocks(), rows=5_000)
    assert len(copy) == 2_000
    copy.apply_delta(delta)
    assert entries(copy) == entries(keys)
    assert keep(copy, ["x", "4500", "new"], [5_001] * 3) == keep(keys, ["x", "4500", "new"], [5_001] * 3)


def test_deltas_may_be_sliced_and_joined_on_their_way() -> None:
    keys, copy = keyset(), keyset()
    keep(keys, [str(i) for i in range(100)], [50] * 100)
    keys.expire(5)
    joined = pa.Table.from_batches(keys.take_delta()).combine_chunks().to_batches()[0]
    copy.apply_delta([joined.slice(0, 33), joined.slice(33)])
    assert entries(copy) == entries(keys)


def test_a_set_that_holds_something_refuses_a_snapshot() -> None:
    keys = keyset()
    keep(keys, ["a"], [0])
    with pytest.raises(InvariantBroken, match="empty"):
        keys.load([])
