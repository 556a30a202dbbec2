"""Payment events as JSON lines: the same for the same seed, quickly. Imports nothing of onefold.

Of a million lines about 10 % are replays of earlier ones, 20 % out of order, 0.5 % late by more than the flow's ten
minutes (as are some replays), 3 % refunds, and 0.25 % malformed in one of five ways.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["FILES", "draws", "write_events"]

FILES = 20
MERCHANTS = 40
SPAN_MILLIS = 6 * 3600 * 1000
FIRST_MILLIS = 1_709_251_200_000  # 2024-03-01
MINUTE = 60_000

_Ints = npt.NDArray[np.int64]


def draws(seed: int, salt: int, count: int) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) that depend on nothing but the arguments.

    Source: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        x = (np.arange(count, dtype=np.uint64) + np.uint64(1)) * golden
        x += np.uint64(seed % 2**64) * np.uint64(0xD1B54A32D192ED03) + np.uint64(salt) * np.uint64(0x8CB92BA72F3D8DD7)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return np.asarray((x >> np.uint64(11)).astype(np.float64) / float(2**53))


def write_events(folder: Path, count: int, seed: int) -> int:
    """Write `count` lines into FILES files of a new folder. Returns the bytes written."""
    folder.mkdir(parents=True)
    origin, millis, cents, merchants = _payments(count, seed)
    lines = _malformed(_lines(origin, millis, cents, merchants), seed)
    body = lines.cast(pa.large_binary())
    _, offsets_buffer, values = body.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64, count + 1)
    content = memoryview(values)
    cuts = np.linspace(0, count, FILES + 1).astype(np.int64)
    for number, (first, last) in enumerate(itertools.pairwise(cuts.tolist())):
        path = folder / f"payments-{number:02d}.jsonl"
        path.write_bytes(content[offsets[first] : offsets[last]])
    return int(offsets[-1])


def _payments(count: int, seed: int) -> tuple[_Ints, _Ints, _Ints, _Ints]:
    """By line: the payment it tells of (the line that told it first), its time, amount and merchant."""
    place = np.arange(count, dtype=np.int64)
    arrival = FIRST_MILLIS + place * SPAN_MILLIS // max(count, 1)
    kind, amount = draws(seed, 1, count), draws(seed, 2, count)
    delay = np.zeros(count)
    delay = np.where(kind < 0.20, amount * 8 * MINUTE, delay)
    delay = np.where(kind < 0.005, (11 + 40 * amount) * MINUTE, delay)
    millis = np.maximum(arrival - delay.astype(np.int64), FIRST_MILLIS)
    cents = 1 + (draws(seed, 3, count) * 20_000).astype(np.int64)
    cents = np.where(draws(seed, 4, count) < 0.03, -(cents // 10), cents)
    merchants = (draws(seed, 5, count) ** 2 * MERCHANTS).astype(np.int64)
    origin = _replayed(place, draws(seed, 6, count), draws(seed, 7, count), draws(seed, 8, count))
    return origin, millis[origin], cents[origin], merchants[origin]


def _replayed(place: _Ints, is_replay: Any, how_far: Any, how_late: Any) -> _Ints:
    """10 % of the lines repeat an earlier one: most from the last minutes, one in twenty from anywhere before."""
    count = len(place)
    near = np.maximum(1, count * 8 * MINUTE // SPAN_MILLIS)
    back = 1 + (how_far * np.where(how_late < 0.05, place, near)).astype(np.int64)
    told_before = np.where((is_replay < 0.10) & (back <= place), place - back, place)
    while True:  # a replay of a replay tells of the first
        earlier = told_before[told_before]
        if np.array_equal(earlier, told_before):
            return told_before
        told_before = earlier


def _lines(origin: _Ints, millis: _Ints, cents: _Ints, merchants: _Ints) -> pa.Array:
    def text(numbers: Any, width: int) -> pa.Array:
        return pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")

    size = np.abs(cents)
    sign = pc.if_else(pa.array(cents < 0), "-", "")
    times = pa.array(millis).cast(pa.timestamp("ms")).cast(pa.string())
    return pc.binary_join_element_wise(
        '{"event_id":"pay-', text(origin, 8), '","merchant":"m', text(merchants, 2), '","amount":', sign,
        text(size // 100, 1), ".", text(size % 100, 2), ',"paid_at":"', times, '"}\n', "",
    )  # fmt: skip


def _malformed(lines: pa.Array, seed: int) -> pa.Array:
    """One line in 400 is cut off, or no JSON, or has an amount or a time that does not fit."""
    chosen, way = draws(seed, 9, len(lines)) < 0.0025, (draws(seed, 10, len(lines)) * 5).astype(np.int64)
    for number, (pattern, instead) in enumerate(
        (
            (r'","amount".*\n', "\n"),
            (r"^.*\n", "-- connection lost --\n"),
            (r',"paid_at"', '5,"paid_at"'),
            (r'"amount":-?[0-9.]+', '"amount":"twelve"'),
            (r'"paid_at":"[^"]*"', '"paid_at":"yesterday"'),
        )
    ):
        is_this = pa.array(chosen & (way == number))
        broken = pc.replace_substring_regex(lines.filter(is_this), pattern, instead)
        lines = pc.replace_with_mask(lines, is_this, broken)
    return lines
