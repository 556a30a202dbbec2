"""The key index: batch verbs, growth, expiry, frozen views."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pytest

from onefold.kernel.index import Frozen, KeyIndex

ALL = 2**64 - 1
EARLIEST = -(2**63)


def random_hashes(count: int, seed: int) -> npt.NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 2), dtype=np.uint64)


def content(frozen: Frozen) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    for hashes, values in frozen.chunks():
        found.update(zip(map(tuple, hashes.tolist()), values.tolist(), strict=True))
    return found


def test_put_find_remove_hundred_thousand_keys() -> None:
    index, keys = KeyIndex(), random_hashes(100_000, 1)
    numbers = np.arange(len(keys))
    former, found = index.put(keys, numbers)
    assert not found.any()
    assert len(index) == len(keys)
    values, found = index.find(keys[::-1].copy())
    assert found.all()
    assert (values == numbers[::-1]).all()
    former, found = index.put(keys, -numbers)
    assert found.all()
    assert (former == numbers).all()
    removed, found = index.remove(keys[:60_000])
    assert found.all()
    assert (removed == -numbers[:60_000]).all()
    values, found = index.find(keys)
    assert (found == (numbers >= 60_000)).all()
    assert (values[60_000:] == -numbers[60_000:]).all()
    assert not index.find(random_hashes(1_000, 2))[1].any()


def test_any_two_hashes_that_differ_are_two_keys() -> None:
    keys = np.array([[0, 0], [0, 1], [1, 0], [2**64 - 1, 2**64 - 1], [0, 256], [0, 2**63]], dtype=np.uint64)
    index = KeyIndex()
    index.put(keys, np.arange(6))
    assert index.find(keys)[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_keys_that_all_fall_on_one_slot_are_still_found() -> None:
    keys = np.stack([np.full(5_000, 7, np.uint64), np.arange(5_000, dtype=np.uint64) << np.uint64(8)], axis=1).copy()
    index = KeyIndex()
    index.put(keys, np.arange(5_000))
    assert (index.find(keys)[0] == np.arange(5_000)).all()
    index.remove(keys[::2].copy())
    assert (index.find(keys)[1] == (np.arange(5_000) % 2 == 1)).all()


def test_the_last_of_two_puts_and_the_first_of_two_seen_win() -> None:
    keys = random_hashes(1, 3).repeat(3, axis=0)
    index = KeyIndex()
    former, found = index.put(keys, np.array([1, 2, 3]))
    assert (former.tolist(), found.tolist()) == ([0, 1, 2], [False, True, True])
    assert index.find(keys[:1])[0].tolist() == [3]
    fresh = KeyIndex()
    assert fresh.first_seen(keys, np.array([1, 2, 3]), ALL, EARLIEST).tolist() == [True, False, False]
    assert fresh.find(keys[:1])[0].tolist() == [1]


def test_the_horizon_is_inclusive_and_never_overflows() -> None:
    key = random_hashes(1, 4)
    for stored, value, horizon, is_new in [
        (0, 10, 10, False), (0, 11, 10, True), (10, 0, 10, False), (11, 0, 10, True), (5, 5, 0, False),
        (EARLIEST, 2**63 - 1, ALL, False), (EARLIEST, 2**63 - 1, ALL - 1, True), (2**63 - 1, EARLIEST, 2**63, True),
    ]:  # fmt: skip
        index = KeyIndex()
        index.first_seen(key, np.array([stored]), ALL, EARLIEST)
        assert index.first_seen(key, np.array([value]), horizon, EARLIEST).tolist() == [is_new], (stored, value)


def test_a_key_kept_twice_is_remembered_at_both_times() -> None:
    key = random_hashes(1, 5)
    index = KeyIndex()
    seen = [bool(index.first_seen(key, np.array([at]), 10, EARLIEST)[0]) for at in (0, 100, 5, 95, 50, 52)]
    assert seen == [True, True, False, False, True, False]


def test_entries_below_the_least_value_do_not_count() -> None:
    key = random_hashes(1, 6)
    index = KeyIndex()
    index.first_seen(key, np.array([5]), ALL, EARLIEST)
    assert index.first_seen(key, np.array([7]), ALL, 6).tolist() == [True]


def test_a_sweep_removes_all_below_in_bounded_steps() -> None:
    index, keys = KeyIndex(), random_hashes(20_000, 7)
    values = np.arange(20_000)
    index.put(keys, values)
    steps, removed, is_ended = 0, 0, False
    while not is_ended:
        before = len(index)
        part, is_ended = index.remove_below(15_000, 1_000)
        assert before - len(index) == part <= 1_000
        removed += part
        steps += 1
    assert removed == 15_000
    assert steps >= 20
    assert (index.find(keys)[1] == (values >= 15_000)).all()


def test_a_sweep_goes_on_after_entries_were_removed_ahead_of_it() -> None:
    index, keys = KeyIndex(), random_hashes(3_000, 15)
    keys[:, 0] >>= np.uint64(10)  # one partition
    index.put(keys, np.arange(3_000))
    assert index.remove_below(EARLIEST, 10) == (0, False)
    index.remove(keys[100:])
    assert index.remove_below(3_000, 10_000) == (100, True)
    assert len(index) == 0


def test_memory_is_given_back_when_entries_go() -> None:
    index, keys = KeyIndex(), random_hashes(2_000_000, 8)
    index.put(keys, np.zeros(len(keys), np.int64))
    full = index.size_bytes
    assert full / len(keys) < 34
    index.remove(keys)
    assert len(index) == 0
    assert index.size_bytes < full / 2.5


def test_a_steady_stream_of_new_and_old_keys_needs_no_more_memory() -> None:
    index = KeyIndex()
    sizes = []
    for step in range(60):
        index.put(random_hashes(20_000, 100 + step), np.full(20_000, step))
        if step >= 10:
            index.remove(random_hashes(20_000, 90 + step))
        sizes.append(index.size_bytes)
    assert len(index) == 200_000
    assert max(sizes[20:]) < 1.35 * sizes[12]


def test_reserving_changes_nothing_but_speed() -> None:
    index, keys = KeyIndex(), random_hashes(50_000, 9)
    index.put(keys[:100], np.arange(100))
    index.reserve(50_000)
    size = index.size_bytes
    index.put(keys, np.arange(50_000))
    assert (index.find(keys)[0] == np.arange(50_000)).all()
    assert index.size_bytes - size < 50_000 * 24 * 1.4


def test_a_frozen_view_keeps_its_moment_under_every_kind_of_change() -> None:
    index, keys = KeyIndex(), random_hashes(30_000, 10)
    index.put(keys, np.arange(30_000))
    frozen = index.freeze()
    index.put(keys[:10_000], np.full(10_000, -1))
    index.remove(keys[5_000:20_000])
    index.remove_below(26_000, 1_000_000)
    index.put(random_hashes(50_000, 11), np.zeros(50_000, np.int64))
    index.put(keys, np.full(30_000, -2))
    assert len(frozen) == 30_000
    assert content(frozen) == dict(zip(map(tuple, keys.tolist()), range(30_000), strict=True))
    assert index.find(keys)[0].tolist() == [-2] * 30_000


def test_several_frozen_views_keep_their_own_moments() -> None:
    index, keys = KeyIndex(), random_hashes(3_000, 12)
    views = []
    for step in range(8):
        index.put(keys, np.full(3_000, step))
        views.append(index.freeze())
    with pytest.raises(RuntimeError, match="frozen views"):
        index.freeze()
    index.put(keys, np.full(3_000, 99))
    for step, view in enumerate(views):
        assert set(content(view).values()) == {step}
    assert list(views[0].chunks()) == []
    index.freeze().close()


def test_a_view_that_is_dropped_costs_nothing_more() -> None:
    index, keys = KeyIndex(), random_hashes(50_000, 13)
    index.put(keys, np.zeros(50_000, np.int64))
    before = index.size_bytes
    view = index.freeze()
    index.put(keys, np.ones(50_000, np.int64))
    assert index.size_bytes > before + 50_000 * 24
    del view
    index.put(keys[:1], np.ones(1, np.int64))
    assert index.size_bytes == before
    assert len(index.freeze()) == 50_000


def test_a_view_read_by_another_thread_is_of_one_moment() -> None:
    index, keys = KeyIndex(), random_hashes(200_000, 14)
    index.put(keys, np.zeros(len(keys), np.int64))
    result: dict[tuple[int, int], int] = {}
    frozen = index.freeze()
    reader = threading.Thread(target=lambda: result.update(content(frozen)))
    reader.start()
    step = 0
    while reader.is_alive() or step < 20:
        step += 1
        index.put(keys[(step * 7_919) % 190_000 :][:10_000].copy(), np.full(10_000, step))
        index.remove(keys[(step * 104_729) % 190_000 :][:1_000].copy())
        index.put(random_hashes(5_000, 1_000 + step), np.full(5_000, step))
    reader.join()
    assert len(result) == len(keys)
    assert set(result.values()) == {0}


def test_arrays_of_the_wrong_shape_are_refused() -> None:
    index = KeyIndex()
    with pytest.raises(ValueError, match="two columns"):
        index.find(np.zeros((3, 3), np.uint64))
    with pytest.raises(ValueError, match="same length"):
        index.put(np.zeros((3, 2), np.uint64), np.zeros(2, np.int64))
    assert index.find(np.zeros((0, 2), np.uint64))[1].tolist() == []
