"""Key sets and keyed tables against plain dicts, with deltas and snapshots applied to a shadow copy."""

from __future__ import annotations

import datetime as dt
import math
import tempfile
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from onefold.state.keyset import KeySet
from onefold.state.snapshots import SnapshotStore
from onefold.state.table import KeyedTable
from onefold.types import EpochNumber, SealId

KEY = b"fedcba9876543210"
SEAL = SealId("f" * 32)

names = st.sampled_from([None, "", "a", "b", "é", "\U0001f600", "\x00", "a\x00"])
numbers = st.sampled_from([None, 0.0, -0.0, 1.5, math.nan, -math.inf])
amounts = st.sampled_from([None, Decimal(0), Decimal("-" + "9" * 31), Decimal("1e9")])
times = st.none() | st.integers(-40, 40)
table_keys = st.tuples(names, numbers, amounts)
table_rows = st.lists(st.tuples(table_keys, times, st.integers(0, 9)), max_size=15)

KEYS = pa.schema([("name", pa.string()), ("number", pa.float64()), ("amount", pa.decimal128(38, 3))])
VALUES = pa.schema([("at", pa.timestamp("us")), ("v", pa.int64())])
SCHEMA = pa.schema([*KEYS, *VALUES])


def canonical(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Two keys are the same key when this is: -0.0 is 0.0, NaN is NaN, null is null."""
    name, number, amount = key
    if number is not None:
        number = "nan" if math.isnan(number) else number + 0.0
    return name, number, amount


def as_batch(rows: Iterable[tuple[tuple[Any, ...], int | None, int]]) -> pa.RecordBatch:
    listed = list(rows)
    columns = [pa.array([key[i] for key, _, _ in listed], kind) for i, kind in enumerate(KEYS.types)]
    columns.append(pa.array([at for _, at, _ in listed], pa.timestamp("us")))
    columns.append(pa.array([v for _, _, v in listed], pa.int64()))
    return pa.record_batch(columns, schema=SCHEMA)


def content(batches: Iterable[pa.RecordBatch]) -> dict[tuple[Any, ...], tuple[int | None, int]]:
    found: dict[tuple[Any, ...], tuple[int | None, int]] = {}
    for batch in batches:
        at = batch.column("at").view(pa.int64()).to_pylist()
        for row, when in zip(batch.to_pylist(), at, strict=True):
            key = canonical((row["name"], row["number"], row["amount"]))
            assert key not in found
            found[key] = (when, row["v"])
    return found


class TableMachine(RuleBasedStateMachine):
    """A table, its model, and a shadow that follows by deltas; the shadow is now and then reloaded from a snapshot."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.make()
        self.shadow = self.make()
        self.model: dict[tuple[Any, ...], tuple[int | None, int]] = {}
        self.frozen: list[tuple[Any, dict[tuple[Any, ...], tuple[int | None, int]]]] = []
        self.folder = tempfile.TemporaryDirectory()
        self.store = SnapshotStore(Path(self.folder.name))
        self.epoch = 0

    @staticmethod
    def make() -> KeyedTable:
        return KeyedTable("t", KEYS, VALUES, hash_key=KEY, expiry="at")

    @rule(rows=table_rows, start=st.integers(0, 3))
    def upsert(self, rows: list[tuple[tuple[Any, ...], int | None, int]], start: int) -> None:
        was = self.table.upsert(as_batch(rows).slice(start)).tolist()
        for (key, at, v), expected in zip(rows[start:], was, strict=True):
            assert (canonical(key) in self.model) == expected
            self.model[canonical(key)] = (at, v)

    @rule(keys=st.lists(table_keys, max_size=8))
    def delete(self, keys: list[tuple[Any, ...]]) -> None:
        found = self.table.delete(as_batch((key, None, 0) for key in keys)).tolist()
        for key, was in zip(keys, found, strict=True):
            assert was == (self.model.pop(canonical(key), None) is not None)

    @rule(keys=st.lists(table_keys, max_size=8))
    def lookup(self, keys: list[tuple[Any, ...]]) -> None:
        found, values = self.table.lookup(as_batch((key, None, 0) for key in keys))
        assert found.tolist() == [canonical(key) in self.model for key in keys]
        at = [None if when is None else when.value for when in values.column("at")]
        assert values.column("v").to_pylist() == [self.model.get(canonical(key), (None, None))[1] for key in keys]
        assert at == [self.model.get(canonical(key), (None, None))[0] for key in keys]

    @rule(upto=st.integers(-40, 40))
    def take_expired(self, upto: int) -> None:
        due = {key: row for key, row in self.model.items() if row[0] is not None and row[0] <= upto}
        assert content(self.table.take_expired(upto).to_batches()) == due
        for key in due:
            del self.model[key]

    @rule(times_applied=st.integers(1, 2))
    def seal(self, times_applied: int) -> None:
        delta = self.table.take_delta()
        for _ in range(times_applied):
            self.shadow.apply_delta(delta)
        assert content(self.shadow.scan()) == self.model

    @rule()
    def freeze(self) -> None:
        self.frozen.append((self.table.freeze(), dict(self.model)))

    @rule()
    def restart_shadow(self) -> None:
        self.table.take_delta()
        self.epoch += 1
        self.store.begin(EpochNumber(self.epoch), SEAL, {"t": self.table.freeze()})
        self.store.wait()
        loaded = self.store.load_latest(EpochNumber(self.epoch))
        assert loaded is not None
        assert loaded.tables["t"].rows == len(self.model)
        self.shadow = self.make()
        self.shadow.load(loaded.tables["t"].blocks(), rows=loaded.tables["t"].rows)
        assert content(self.shadow.scan()) == self.model

    @invariant()
    def agrees(self) -> None:
        assert len(self.table) == len(self.model)
        assert content(self.table.scan()) == self.model

    def teardown(self) -> None:
        for frozen, expected in self.frozen:
            assert content(frozen.blocks()) == expected
        self.folder.cleanup()


class KeySetMachine(RuleBasedStateMachine):
    """Dedup against a list of kept rows; the shadow may lag in freeing, yet gives the same answers."""

    within = 6

    def __init__(self) -> None:
        super().__init__()
        self.keys = KeySet("d", KEY, self.within)
        self.shadow = KeySet("d", KEY, self.within)
        self.kept: list[tuple[Any, int]] = []
        self.floor = -40

    @rule(rows=st.lists(st.tuples(names, numbers, st.integers(0, 60)), max_size=20), cut=st.integers(0, 20))
    def first_seen(self, rows: list[tuple[Any, Any, int]], cut: int) -> None:
        self.keep(self.keys, rows[:cut], rows[cut:])

    def keep(self, keys: KeySet, *batches: list[tuple[Any, Any, int]]) -> None:
        for rows in batches:
            columns = [
                pa.array([row[0] for row in rows], pa.string()),
                pa.array([row[1] for row in rows], pa.float64()),
            ]
            at = np.array([self.floor + row[2] for row in rows], np.int64)
            mask = keys.first_seen(keys.hash(columns), at)
            for (name, number, _), when, is_kept in zip(rows, at.tolist(), mask.tolist(), strict=True):
                key = canonical((name, number, None))
                expected = all(key != other or abs(when - seen) > self.within for other, seen in self.kept)
                assert is_kept == expected
                if expected:
                    self.kept.append((key, when))

    @rule(step=st.integers(0, 9), limit=st.sampled_from([0, 1, 3, 100]))
    def expire(self, step: int, limit: int) -> None:
        self.floor += step
        self.keys.expire(self.floor, limit_entries=limit)

    @rule(repeat=st.booleans())
    def seal(self, repeat: bool) -> None:
        delta = self.keys.take_delta()
        self.shadow.apply_delta(delta)
        if repeat:
            self.shadow.apply_delta(delta)
        assert self.entries(self.shadow) == self.entries(self.keys)

    @rule()
    def continue_on_shadow(self) -> None:
        self.shadow.apply_delta(self.keys.take_delta())
        self.keys = self.shadow
        self.shadow = KeySet("d", KEY, self.within)
        self.shadow.load(self.keys.freeze().blocks())
        assert self.entries(self.shadow) == self.entries(self.keys)

    @staticmethod
    def entries(keys: KeySet) -> list[tuple[bytes, int]]:
        return sorted((row["hash"] or b"", row["time"]) for b in keys.freeze().blocks() for row in b.to_pylist())


class KeySetForeverMachine(KeySetMachine):
    """The same without a horizon."""

    within = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.keys = KeySet("d", KEY, None)
        self.shadow = KeySet("d", KEY, None)

    @rule()
    def continue_on_shadow(self) -> None:
        self.shadow.apply_delta(self.keys.take_delta())
        self.keys, self.shadow = self.shadow, self.keys


def steady(examples: int) -> settings:
    return settings(max_examples=examples, stateful_step_count=25, deadline=None, derandomize=True)


TestTable = TableMachine.TestCase
TestTable.settings = steady(60)
TestKeySet = KeySetMachine.TestCase
TestKeySet.settings = steady(80)
TestKeySetForever = KeySetForeverMachine.TestCase
TestKeySetForever.settings = steady(40)


def test_the_moments_of_the_model_are_before_and_after_1970() -> None:
    batch = as_batch([((None, None, None), -1, 0), ((None, None, None), 1, 0)])
    assert batch.column("at").to_pylist() == [
        dt.datetime.fromisoformat("1969-12-31 23:59:59.999999"),
        dt.datetime.fromisoformat("1970-01-01 00:00:00.000001"),
    ]
