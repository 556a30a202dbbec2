"""The books: every event is accounted for, at every seal (INV-13).

Counts are per operator; a violated equation is a crash, before anything becomes visible. Digests are order-independent:
the sum modulo 2^128 of the rows' hashes, so that a sink's contents can be compared with what was sealed for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from onefold.errors import check
from onefold.kernel.rowhash import digest, hash_rows

__all__ = ["DIGEST_KEY", "Books", "add_totals", "digest_of"]

DIGEST_KEY = bytes(range(16))
"""Public and fixed: a digest must come out the same in another process, years later."""

_MODULUS = 1 << 128

_SIDES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "read": (("read",), ("out", "dead", "late")),
    "step": (("read", "created"), ("out", "filtered")),
    "dedup": (("read",), ("out", "duplicates")),
    "aggregate": (("held_before", "opened"), ("held_after", "closed")),
}
"""Kind of operator -> the counts that stand on the two sides of its equation."""


class Books:
    """The counts of one epoch, by operator and by sink."""

    def __init__(self) -> None:
        self.operators: dict[str, dict[str, Any]] = {}
        self.sinks: dict[str, dict[str, Any]] = {}

    def operator(self, name: str, kind: str, **counts: int) -> None:
        """Enter one operator. Raises InvariantBroken when its equation does not hold."""
        left, right = _SIDES[kind]
        filled = {column: counts.get(column, 0) for column in (*left, *right)} | counts
        check(
            sum(filled[column] for column in left) == sum(filled[column] for column in right),
            f"INV-13: {' + '.join(left)} = {' + '.join(right)}",
            operator=name,
            found=filled,
        )
        check(all(count >= 0 for count in filled.values()), "INV-13: counts are not negative", operator=name)
        self.operators[name] = {"kind": kind, **filled}

    def passes(self, reader: str, rows_in: int, emitted: int) -> None:
        """What an operator emits its readers read."""
        check(rows_in == emitted, "INV-13: what one operator emits the next reads", operator=reader, found=rows_in)

    def sink(self, name: str, rows: pa.Table, *, upserted: int = 0, deleted: int = 0, refused: int = 0) -> None:
        """Enter what a sink gets: rows appended, or keys upserted and deleted; and the digest of the rows.

        refused: rows that it was to get and did not take; they are dead letters.
        """
        appended = rows.num_rows - upserted - deleted
        self.sinks[name] = {
            **({"refused": refused} if refused else {}),
            "appended": appended,
            "upserted": upserted,
            "deleted": deleted,
            "digest": f"{digest_of(rows):032x}",
        }

    def to_json(self) -> dict[str, Any]:
        """For the seal."""
        return {"operators": self.operators, "sinks": self.sinks}


def digest_of(rows: pa.Table) -> int:
    """The order-independent digest of rows."""
    return int(digest(hash_rows(rows, DIGEST_KEY))) if rows.num_rows else 0


def add_totals(totals: Mapping[str, Any], books: Mapping[str, Any]) -> dict[str, Any]:
    """Totals after an epoch: counts add up, digests add modulo 2^128, held counts are taken over."""
    result: dict[str, Any] = {}
    for group in ("operators", "sinks"):
        before = totals.get(group, {})
        result[group] = dict(before) | {
            name: _add(before.get(name, {}), counts) for name, counts in books[group].items()
        }
    return result


def _add(before: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = dict(before)
    for column, value in counts.items():
        earlier = before.get(column)
        if column == "digest":
            merged[column] = f"{(int(earlier or '0', 16) + int(value, 16)) % _MODULUS:032x}"
        elif column == "held_before":
            merged[column] = earlier if earlier is not None else value
        elif column == "held_after" or isinstance(value, str):
            merged[column] = value
        else:
            merged[column] = (earlier or 0) + value
    return merged
