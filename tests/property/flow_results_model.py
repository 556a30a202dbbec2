"""What a flow's results should be, in plain Python over the whole input at once. Shares no code with onefold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

Row = Mapping[str, Any]
Partitions = Mapping[str, Sequence[Row]]

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - event times are without a zone


@dataclass(frozen=True)
class Judged:
    """The rows of one partition by what event time says of them, and the largest event time seen."""

    timely: list[Row]
    gone: list[tuple[str, Row]]
    largest: datetime | None


def judge(
    rows: Iterable[Row], lateness: timedelta, max_ahead: timedelta | None = None, largest: datetime | None = None
) -> Judged:
    """Row after row: late is more than `lateness` behind the largest before; too far ahead does not move it."""
    timely: list[Row] = []
    gone: list[tuple[str, Row]] = []
    for row in rows:
        time = row["t"]
        if time is None:
            gone.append(("no-event-time", row))
        elif largest is not None and max_ahead is not None and time > largest + max_ahead:
            gone.append(("too-far-ahead", row))
        elif largest is not None and time < largest - lateness:
            gone.append(("late", row))
        else:
            timely.append(row)
            largest = time if largest is None else max(largest, time)
    return Judged(timely, gone, largest)


def watermark(judged: Iterable[Judged], lateness: timedelta) -> datetime | None:
    """The least of the partitions'; one without an event time holds it."""
    marks = [one.largest for one in judged]
    if not marks or any(mark is None for mark in marks):
        return None
    return min(mark for mark in marks if mark is not None) - lateness


def first_of_each(rows: Iterable[Row], key: Sequence[str], within: timedelta | None) -> list[Row]:
    """A row goes when a kept row of its key is at most `within` away in event time."""
    kept: list[Row] = []
    times: dict[Any, list[Any]] = {}
    for row in rows:
        seen = times.setdefault(identity(row, key), [])
        if seen if within is None else any(abs(row["t"] - time) <= within for time in seen):
            continue
        seen.append(row["t"])
        kept.append(row)
    return kept


def aggregate(rows: Iterable[Row], key: Sequence[str], size: timedelta | None = None) -> list[dict[str, Any]]:
    """count(*), count(v), sum(v), min(v), max(v) by key, and by tumbling window if there is a size."""
    groups: dict[Any, dict[str, Any]] = {}
    for row in rows:
        head = {name: row[name] for name in key}
        if size is not None:
            start = EPOCH + (row["t"] - EPOCH) // size * size
            head |= {"window_start": start, "window_end": start + size}
        blank = {**head, "n": 0, "known": 0, "total": None, "least": None, "most": None}
        group = groups.setdefault(identity(head, list(head)), blank)
        group["n"] += 1
        value = row["v"]
        if value is not None:
            group["known"] += 1
            group["total"] = value if group["total"] is None else group["total"] + value
            group["least"] = value if group["least"] is None else min(group["least"], value)
            group["most"] = value if group["most"] is None else max(group["most"], value)
    return list(groups.values())


def final_table(rows: Iterable[Row], key: Sequence[str], latest_by: str | None = None) -> list[dict[str, Any]]:
    """Upserts and deletes one after the other; with latest_by an older version never replaces a newer one."""
    held: dict[Any, Row] = {}
    for row in rows:
        own = identity(row, key)
        if latest_by is not None and own in held and rank(row[latest_by]) < rank(held[own][latest_by]):
            continue
        held[own] = row
    alive = [row for row in held.values() if row.get("_op", "upsert") != "delete"]
    return [{name: value for name, value in row.items() if name != "_op"} for row in alive]


def rank(value: Any) -> tuple[int, Any]:
    """Null is less than NaN, NaN less than every number."""
    if value is None:
        return (0, 0)
    return (1, 0) if isinstance(value, float) and math.isnan(value) else (2, value)


def identity(row: Row, key: Sequence[str]) -> tuple[Any, ...]:
    """Null equals null, NaN equals NaN."""
    return tuple(comparable(row[name]) for name in key)


def comparable(value: Any) -> Any:
    """Something hashable that is equal exactly when the values are the same to SQL's IS NOT DISTINCT FROM."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    return tuple(map(comparable, value)) if isinstance(value, list) else value


def in_order(rows: Iterable[Row]) -> list[str]:
    """Rows as text, so that two results compare with ==, NaN and all."""
    return [repr([(name, comparable(row[name])) for name in sorted(row)]) for row in rows]


def as_bag(rows: Iterable[Row]) -> list[str]:
    """The same without their order."""
    return sorted(in_order(rows))
