"""The first operator of every flow: raw batches in; typed, timely rows and dead letters out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onefold.formats.casts import fit
from onefold.operators.event_time import LateGate, Verdict, micros_of
from onefold.plan import ReadNode
from onefold.protocols import Decoded, Misfits
from onefold.types import PartitionId

__all__ = ["DEAD_SCHEMA", "DecodedPart", "ReadCounts", "Reader", "examples_of"]

DEAD_SCHEMA = pa.schema(
    [
        ("read", pa.string()),
        ("partition", pa.string()),
        ("position", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.binary()),
    ]
)
"""A dead letter: which read, where (JSON), why, and the bytes as they came."""


_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 100


def examples_of(letters: pa.Table) -> str:
    """The first dead letters, one a line, for an error."""
    lines = []
    for row in letters.slice(0, _EXAMPLES).to_pylist():
        raw = row["raw"].decode("utf-8", "backslashreplace").rstrip("\n")
        shown = raw if len(raw) <= _EXAMPLE_CHARACTERS else raw[: _EXAMPLE_CHARACTERS - 1] + "…"
        place = " ".join(part for part in (row["read"], row["partition"], row["position"]) if part)
        lines.append(f"\n    {row['reason']}, {row['detail']}\n      {place}: {shown}")
    return "".join(lines)


@dataclass(frozen=True)
class DecodedPart:
    """Rows of one partition, decoded. batch: as read; kept: its row of each decoded row, None: all."""

    partition: PartitionId
    batch: pa.Table
    rows: pa.Table
    kept: pa.Array | None
    dead: pa.Table


@dataclass(frozen=True)
class ReadCounts:
    """read = out + dead + late."""

    read: int
    dead: int
    late: int
    out: int

    def __add__(self, other: ReadCounts) -> ReadCounts:
        return ReadCounts(self.read + other.read, self.dead + other.dead, self.late + other.late, self.out + other.out)


class Reader:
    """Decodes (stateless, any thread) and then judges event time (in position order)."""

    def __init__(self, node: ReadNode) -> None:
        self.node = node
        self._gate = LateGate(node.lateness_micros or 0, node.max_ahead_micros) if node.event_time else None
        self._meta = [name for name in node.schema.names if name not in node.declared.names]

    def decode(self, batches: Mapping[PartitionId, Sequence[pa.RecordBatch]]) -> list[DecodedPart]:
        """Every row of a partition's batches ends in `rows` or in `dead` of its part.

        All are decoded at once, because a batch has a price however few its rows.
        """
        tables = [pa.Table.from_batches(some, schema=some[0].schema) for some in batches.values()]
        batch = pa.concat_tables(tables)
        is_lenient = self.node.casts == "lenient"
        if self.node.format is not None:
            decoded = self.node.format.decode(batch.column("_value"), self.node.declared, is_lenient=is_lenient)
        else:
            decoded = fit(batch.select(self.node.declared.names), self.node.declared, is_lenient=is_lenient)
        parts = _cut(Decoded(self._with_meta(batch, decoded), decoded.kept, decoded.misfits), tables)
        return [
            DecodedPart(partition, table, part.rows, part.kept, self._misfits(partition, table, part))
            for partition, table, part in zip(batches, tables, parts, strict=True)
        ]

    def judge(self, part: DecodedPart, largest: int | None) -> tuple[pa.Table, pa.Table, ReadCounts, int | None]:
        """Takes late and untimely rows out. Returns (rows, dead letters, counts, the partition's new maximum)."""
        read, dead = part.batch.num_rows, part.dead.num_rows
        if self._gate is None:
            return part.rows, part.dead, ReadCounts(read, dead, 0, part.rows.num_rows), None
        times, is_missing = micros_of(part.rows.column(self.node.event_time))
        verdict = self._gate.judge(times, is_missing, largest)
        if verdict.is_clean:
            return part.rows, part.dead, ReadCounts(read, dead, 0, part.rows.num_rows), verdict.largest
        stays = ~(verdict.is_late | verdict.is_ahead | verdict.is_missing)
        rows = part.rows.filter(pa.array(stays))
        untimely = self._untimely(part, verdict)
        late = int(verdict.is_late.sum())
        counts = ReadCounts(read, read - late - rows.num_rows, late, rows.num_rows)
        return rows, pa.concat_tables([part.dead, untimely]), counts, verdict.largest

    def _with_meta(self, batch: pa.Table, decoded: Decoded) -> pa.Table:
        rows = decoded.rows
        for name in self._meta:
            column = batch.column(name)
            if decoded.kept is not None:
                column = column.take(decoded.kept)
            kind = self.node.schema.field(name).type
            rows = rows.append_column(name, column if column.type == kind else column.cast(kind))
        return rows.select(self.node.schema.names)

    def _misfits(self, partition: PartitionId, batch: pa.Table, decoded: Decoded) -> pa.Table:
        misfits = decoded.misfits
        if len(misfits) == 0:
            return DEAD_SCHEMA.empty_table()
        return self._letters(partition, batch.take(misfits.index), misfits.reason, misfits.detail)

    def _untimely(self, part: DecodedPart, verdict: Verdict) -> pa.Table:
        gone = np.flatnonzero(verdict.is_late | verdict.is_ahead | verdict.is_missing)
        reasons = np.where(
            verdict.is_late[gone], "late", np.where(verdict.is_ahead[gone], "too-far-ahead", "no-event-time")
        )
        origin = pa.array(gone) if part.kept is None else part.kept.take(pa.array(gone))
        times = part.rows.column(self.node.event_time).take(pa.array(gone)).cast(pa.string())
        detail = pc.binary_join_element_wise(
            f"{self.node.event_time} is ", pc.fill_null(times, "null"), "", null_handling="skip"
        )
        return self._letters(part.partition, part.batch.take(origin), pa.array(reasons.tolist(), pa.string()), detail)

    def _letters(self, partition: PartitionId, batch: pa.Table, reason: pa.Array, detail: pa.Array) -> pa.Table:
        length = batch.num_rows
        names = [name for name in self.node.source.promise.meta.names if name in batch.column_names]
        positions = [json.dumps(row, default=str) for row in batch.select(names).to_pylist()]
        return pa.table(
            [
                pa.repeat(pa.scalar(self.node.name), length),
                pa.repeat(pa.scalar(str(partition)), length),
                pa.array(positions, pa.string()),
                reason,
                detail,
                _raw(batch),
            ],
            schema=DEAD_SCHEMA,
        )


def _cut(decoded: Decoded, tables: Sequence[pa.Table]) -> list[Decoded]:
    """What was decoded of each table, of all that was decoded of them together."""
    if len(tables) == 1:
        return [decoded]
    ends = np.cumsum([table.num_rows for table in tables])
    misfits = decoded.misfits
    bad = misfits.index.to_numpy()
    kept = None if decoded.kept is None else decoded.kept.to_numpy()
    parts = []
    for first, end in zip((0, *ends[:-1]), ends, strict=True):
        begin, stop = (first, end) if kept is None else np.searchsorted(kept, (first, end))
        ours = np.flatnonzero((bad >= first) & (bad < end))
        parts.append(
            Decoded(
                decoded.rows.slice(begin, stop - begin),
                None if kept is None else pa.array(kept[begin:stop] - first),
                Misfits(pa.array(bad[ours] - first), misfits.reason.take(ours), misfits.detail.take(ours)),
            )
        )
    return parts


def _raw(batch: pa.Table) -> pa.Array | pa.ChunkedArray:
    """The bytes as they came, or the typed row as JSON."""
    if "_value" in batch.column_names:
        values = batch.column("_value").to_pylist()  # dead letters only: few, or bounded by max_dead
        return pa.array([None if value is None else value.rstrip(b"\r\n") for value in values], pa.binary())
    rows: list[Mapping[str, object]] = batch.to_pylist()
    return pa.array([json.dumps(row, default=str).encode() for row in rows], pa.binary())
