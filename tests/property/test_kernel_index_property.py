"""The key index against a dict, and against a list of (key, time)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from onefold.kernel.index import Frozen, KeyIndex

EARLIEST = -(2**63)
# Few partitions and few tags, so that probes meet, wrap around and cross removed slots.
KEYS = [
    ((partition << 54) | slot, tag) for partition in (0, 1023) for slot in (0, 1, 2**32 - 1) for tag in (0, 1, 257, 511)
]
keys = st.lists(st.integers(0, len(KEYS) - 1), max_size=30)
BULK = 3_000


def as_hashes(numbers: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.array([KEYS[n] for n in numbers], dtype=np.uint64).reshape(-1, 2)


def bulk(seed: int) -> npt.NDArray[np.uint64]:
    """Many keys of one partition: several chunks, several rebuilds."""
    hashes = np.random.default_rng(seed).integers(0, 2**64, (BULK, 2), dtype=np.uint64)
    hashes[:, 0] >>= np.uint64(10)
    return hashes


def pairs(frozen: Frozen) -> list[tuple[tuple[int, int], int]]:
    found: list[tuple[tuple[int, int], int]] = []
    for hashes, values in frozen.chunks():
        found += zip(map(tuple, hashes.tolist()), values.tolist(), strict=True)
    return sorted(found)


class MapMachine(RuleBasedStateMachine):
    """put, find, remove, freeze against a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.index = KeyIndex()
        self.model: dict[tuple[int, int], int] = {}
        self.views: list[tuple[Frozen, list[tuple[tuple[int, int], int]]]] = []
        self.clock = 0

    def put_all(self, hashes: npt.NDArray[np.uint64]) -> None:
        values = np.arange(self.clock, self.clock + len(hashes))
        self.clock += len(hashes)
        former, found = self.index.put(hashes, values)
        for key, value, old, was in zip(
            map(tuple, hashes.tolist()), values.tolist(), former.tolist(), found.tolist(), strict=True
        ):
            assert was == (key in self.model)
            assert old == self.model.get(key, 0)
            self.model[key] = value

    def remove_all(self, hashes: npt.NDArray[np.uint64]) -> None:
        removed, found = self.index.remove(hashes)
        for key, value, was in zip(map(tuple, hashes.tolist()), removed.tolist(), found.tolist(), strict=True):
            assert was == (key in self.model)
            assert value == self.model.pop(key, 0)

    @rule(numbers=keys)
    def put(self, numbers: list[int]) -> None:
        self.put_all(as_hashes(numbers))

    @rule(numbers=keys)
    def remove(self, numbers: list[int]) -> None:
        self.remove_all(as_hashes(numbers))

    @rule(seed=st.integers(0, 2))
    def put_bulk(self, seed: int) -> None:
        self.put_all(bulk(seed))

    @rule(seed=st.integers(0, 2), start=st.integers(0, BULK), count=st.integers(0, BULK))
    def remove_bulk(self, seed: int, start: int, count: int) -> None:
        self.remove_all(bulk(seed)[start : start + count].copy())

    @rule(age=st.integers(0, 4_000), limit=st.integers(1, 5_000))
    def sweep(self, age: int, limit: int) -> None:
        least = self.clock - age
        _, is_ended = self.index.remove_below(least, limit)
        if not is_ended:
            while not is_ended:  # to the end of the sweep under way, then one whole sweep
                is_ended = self.index.remove_below(least, limit)[1]
        is_ended = False
        while not is_ended:
            is_ended = self.index.remove_below(least, limit)[1]
        self.model = {key: value for key, value in self.model.items() if value >= least}

    @rule(age=st.integers(0, 4_000), limit=st.integers(1, 5_000))
    def sweep_a_step(self, age: int, limit: int) -> None:
        least = self.clock - age
        removed, _ = self.index.remove_below(least, limit)
        held = np.array(list(self.model), dtype=np.uint64).reshape(-1, 2)
        found = dict(zip(self.model, self.index.find(held)[1].tolist(), strict=True))
        gone = [key for key, is_found in found.items() if not is_found]
        assert len(gone) == removed <= limit
        assert all(self.model.pop(key) < least for key in gone)

    @precondition(lambda self: len(self.views) < 3)
    @rule()
    def freeze(self) -> None:
        self.views.append((self.index.freeze(), sorted(self.model.items())))

    @precondition(lambda self: self.views)
    @rule()
    def read(self) -> None:
        frozen, expected = self.views.pop(0)
        assert len(frozen) == len(expected)
        assert pairs(frozen) == expected

    @rule(numbers=keys)
    def find(self, numbers: list[int]) -> None:
        values, found = self.index.find(as_hashes(numbers))
        assert values.tolist() == [self.model.get(KEYS[n], 0) for n in numbers]
        assert found.tolist() == [KEYS[n] in self.model for n in numbers]

    @invariant()
    def has_as_many(self) -> None:
        assert len(self.index) == len(self.model)

    def teardown(self) -> None:
        for frozen, expected in self.views:
            assert pairs(frozen) == expected
        assert pairs(self.index.freeze()) == sorted(self.model.items())


class SeenMachine(RuleBasedStateMachine):
    """first_seen and expiry against a list of kept (key, time)."""

    def __init__(self) -> None:
        super().__init__()
        self.index = KeyIndex()
        self.kept: list[tuple[int, int]] = []
        self.least = EARLIEST

    @rule(rows=st.lists(st.tuples(st.integers(0, len(KEYS) - 1), st.integers(-50, 50)), max_size=40))
    def first_seen(self, rows: list[tuple[int, int]]) -> None:
        rows = [(key, at) for key, at in rows if at >= self.least]
        mask = self.index.first_seen(
            as_hashes([key for key, _ in rows]), np.array([at for _, at in rows], np.int64), 7, self.least
        )
        for (key, at), is_new in zip(rows, mask.tolist(), strict=True):
            expected = all(key != other or abs(at - when) > 7 for other, when in self.kept if when >= self.least)
            assert is_new == expected
            if expected:
                self.kept.append((key, at))

    @rule(step=st.integers(1, 10), limit=st.integers(1, 30))
    def expire(self, step: int, limit: int) -> None:
        self.least = max(self.least, -60) + step
        self.index.remove_below(self.least, limit)

    def teardown(self) -> None:
        held = [(key, at) for key, at in pairs(self.index.freeze()) if at >= self.least]
        assert held == sorted((KEYS[key], at) for key, at in self.kept if at >= self.least)


TestMap = MapMachine.TestCase
TestMap.settings = settings(max_examples=60, stateful_step_count=25, deadline=None, derandomize=True)
TestSeen = SeenMachine.TestCase
TestSeen.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, derandomize=True)
