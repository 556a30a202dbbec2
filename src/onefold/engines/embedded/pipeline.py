"""A plan, compiled: one epoch's input becomes one epoch's result. Holds the operators' state; does no durable I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from onefold.books import Books
from onefold.errors import NotSupported, OnefoldError, TooManyDead
from onefold.operators.aggregate import Aggregation
from onefold.operators.dedup import Dedup
from onefold.operators.latest import Latest, last_of_each_key
from onefold.operators.needed import needed_columns
from onefold.operators.reading import DEAD_SCHEMA, DecodedPart, ReadCounts, Reader, examples_of
from onefold.operators.sql import Sql
from onefold.operators.stateless import explode, run_fused, run_map
from onefold.plan import (
    OP_COLUMN,
    AggregateNode,
    DedupNode,
    ExplodeNode,
    MapNode,
    Node,
    Output,
    Plan,
    ReadNode,
    SelectNode,
    UnionNode,
    WhereNode,
)
from onefold.state.rowlog import RowLog
from onefold.types import EpochNumber, PartitionId, Position

__all__ = ["DEAD_LETTERS", "EpochInput", "EpochResult", "MAX_DEAD_FROM", "Pipeline", "StateTable", "enter_output"]

DEAD_LETTERS = "_dead_letters"
"""The name of the built-in sink for dead letters."""

MAX_DEAD_FROM = 100
"""max_dead is judged from so many rows of a run on: one bad row among the first two is not a pattern."""

LOOK_FROM = 100
"""Rows of an epoch from which a column without any value is remarkable."""

LOG = logging.getLogger("onefold")

Flavour = Literal["rows", "updates", "closed"]
Watermarks = dict[str, dict[PartitionId, int | None]]
"""By read and partition: the largest event time so far, microseconds; None: known, but without one (it holds)."""


@dataclass(frozen=True)
class EpochInput:
    """What was read for one epoch.

    partitions: all there were, by read. is_closing: no more rows: windows close. lost: by read, records that a person
    gave up, as far as anybody knows their number.
    """

    number: EpochNumber
    parts: Mapping[str, Sequence[DecodedPart]]
    ends: Mapping[str, Mapping[PartitionId, Position]]
    remember: Mapping[str, Sequence[pa.RecordBatch]] = field(default_factory=dict)
    partitions: Mapping[str, Sequence[PartitionId]] = field(default_factory=dict)
    is_closing: bool = False
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochResult:
    """What an epoch does: rows by sink, changes of state by table, watermarks, books. dead_rows include late_rows."""

    number: EpochNumber
    ends: Mapping[str, Mapping[PartitionId, Position]]
    outputs: Mapping[str, pa.Table]
    deltas: Mapping[str, Sequence[pa.RecordBatch]]
    watermarks: Watermarks
    books: Books
    read_rows: int
    dead_rows: int = 0
    late_rows: int = 0


StateTable = Any
"""KeySet, KeyedTable or RowLog: take_delta, apply_delta, load, freeze, schema."""


class Pipeline:
    """Runs epochs in order, on one thread; `decode` may run on another."""

    def __init__(self, plan: Plan, state_key: bytes, *, threads: int = 2) -> None:
        self.plan = plan
        self._sql = Sql(threads)
        self.readers = {node.name: Reader(node) for node in plan.reads()}
        self._dedups = {n.name: Dedup(n, state_key) for n in plan.nodes if isinstance(n, DedupNode)}
        self._groups = {
            n.name: Aggregation(n, state_key, self._sql) for n in plan.nodes if isinstance(n, AggregateNode)
        }
        self._latest = {
            o.name: Latest(o, o.latest_by, state_key)
            for o in plan.outputs
            if o.latest_by is not None and o.latest_by not in o.key
        }
        self.memories = {n.name: RowLog(n.source.memory) for n in plan.reads() if n.source.memory is not None}
        self.watermarks: Watermarks = {name: {} for name in self.readers}
        self._nodes = {node.name: node for node in plan.nodes}
        self._readers_of = _count_readers(plan)
        self._needed = needed_columns(plan)
        self._judged = self._dead = 0
        self._looked_at: set[str] = set()
        _refuse_state_after_aggregates(plan, self._nodes)

    @property
    def tables(self) -> dict[str, StateTable]:
        """All state by name: what is sealed as deltas and written as snapshots."""
        return {
            **{name: dedup.keys for name, dedup in self._dedups.items()},
            **{name: group.table for name, group in self._groups.items()},
            **{latest.name: latest.table for latest in self._latest.values()},
            **{f"read:{name}": memory for name, memory in self.memories.items()},
        }

    def compute(self, epoch: EpochInput) -> EpochResult:
        """One epoch. Raises UserCodeError, TooManyDead, InvariantBroken: then nothing of it was written."""
        try:
            return self._compute(epoch)
        except OnefoldError as error:
            error.where = {"flow": self.plan.flow, **error.where}
            error.where.setdefault("epoch", epoch.number)
            raise

    def _compute(self, epoch: EpochInput) -> EpochResult:
        run = _EpochRun(self, epoch)
        read, dead = run.read_all()
        self._judge_dead(read, dead)
        outputs = {output.name: rows for output in self.plan.outputs if (rows := run.output(output)).num_rows}
        if dead.num_rows:
            outputs[DEAD_LETTERS] = dead
            run.books.sink(DEAD_LETTERS, dead)
        for name in self._groups:  # one that no output has asked for must still take its rows
            run.take_in(name)
        for name, dedup in self._dedups.items():
            run.rows(name, "rows")
            dedup.advance(run.watermark(name))
        for name, batches in epoch.remember.items():
            self.memories[name].append(batches)
        deltas = {name: delta for name, table in self.tables.items() if (delta := table.take_delta())}
        marks = {name: dict(marks) for name, marks in self.watermarks.items()}
        dead_rows = read.dead + read.late
        return EpochResult(epoch.number, epoch.ends, outputs, deltas, marks, run.books, read.read, dead_rows, read.late)

    def look(self, epoch: EpochInput, name: str) -> pa.Table:
        """What one node emits for this input, as updates. Changes the state: for a pipeline made for it."""
        run = _EpochRun(self, epoch)
        run.read_all()
        return run.rows(name, "updates")

    def look_for_empty_columns(self, epoch: EpochNumber, reader: Reader, rows: pa.Table) -> None:
        """Once a run: a declared column that no row has a value for is more often a misspelt name than a truth."""
        node = reader.node
        if node.name in self._looked_at or rows.num_rows < LOOK_FROM:
            return
        self._looked_at.add(node.name)
        empty = [name for name in node.declared.names if rows.column(name).null_count == rows.num_rows]
        if empty:
            about = {"flow": self.plan.flow, "epoch": epoch}
            names = ", ".join(empty)
            LOG.warning("read %s: no row has a value for %s; is the name right?", node.name, names, extra=about)

    def _judge_dead(self, counts: ReadCounts, dead: pa.Table) -> None:
        self._judged += counts.read
        self._dead += counts.dead + counts.late
        most = self.plan.settings.max_dead
        if most is not None and self._judged >= MAX_DEAD_FROM and self._dead > most * self._judged:
            share = f"{self._dead} dead letters of {self._judged} rows in this run ({self._dead / self._judged:.1%})"
            raise TooManyDead(
                found=f"{share}, such as{examples_of(dead)}",
                expected=f"at most {most:.1%}",
            )


class _EpochRun:
    """One epoch on its way through the nodes; each node's rows are computed once, then dropped."""

    def __init__(self, pipeline: Pipeline, epoch: EpochInput) -> None:
        self.books = Books()
        self._pipe = pipeline
        self._epoch = epoch
        self._done: dict[tuple[str, Flavour], pa.Table] = {}
        self._taken: dict[str, dict[Flavour, pa.Table]] = {}
        self._emitted: dict[tuple[str, Flavour], int] = {}

    def read_all(self) -> tuple[ReadCounts, pa.Table]:
        """Judges every part in position order. Returns the counts of all reads and their dead letters."""
        total = ReadCounts(0, 0, 0, 0)
        letters = []
        for name, reader in self._pipe.readers.items():
            counts = ReadCounts(0, 0, 0, 0)
            tables = []
            marks = self._pipe.watermarks[name]
            self._admit(reader, marks)
            for part in self._epoch.parts.get(name, ()):
                rows, dead, more, largest = reader.judge(part, marks.get(part.partition))
                if largest is not None:
                    marks[part.partition] = largest
                tables.append(rows)
                letters.append(dead)
                counts += more
            rows = pa.concat_tables(tables) if tables else reader.node.schema.empty_table()
            self._pipe.look_for_empty_columns(self._epoch.number, reader, rows)
            self._done[name, "rows"] = rows.select(self._pipe._needed[name])
            lost = self._epoch.lost.get(name, 0)
            self.books.operator(name, "read", **vars(counts), **({"lost": lost} if lost else {}))
            self._emitted[name, "rows"] = counts.out
            total += counts
        if self._epoch.is_closing:
            self._close_all()
        return total, pa.concat_tables(letters) if letters else DEAD_SCHEMA.empty_table()

    def _admit(self, reader: Reader, marks: dict[PartitionId, int | None]) -> None:
        """Which partitions the watermark waits for.

        One without rows holds it. One that appears when the read has a watermark joins with that as its own, because
        windows have closed by it; one that was always empty and is gone is no longer waited for.
        """
        listed = self._epoch.partitions.get(reader.node.name)
        if listed is None or reader.node.event_time is None:
            return
        held = [mark for mark in marks.values() if mark is not None]
        joins_at = min(held) if held and len(held) == len(marks) else None
        for partition in listed:
            marks.setdefault(partition, joins_at)
        for partition in [p for p, mark in marks.items() if mark is None and p not in listed]:
            del marks[partition]

    def _close_all(self) -> None:
        """The end of input: marks move past every open window, so that what comes after it would be late."""
        ends = [end for group in self._pipe._groups.values() if (end := group.latest_end()) is not None]
        for name, reader in self._pipe.readers.items():
            lateness = reader.node.lateness_micros or 0
            for partition, mark in self._pipe.watermarks[name].items():
                marks = [end + lateness for end in ends] + ([] if mark is None else [mark])
                self._pipe.watermarks[name][partition] = max(marks, default=None)

    def output(self, output: Output) -> pa.Table:
        """The rows for one sink; an upsert gets the last row of each key."""
        rows = self._taken_from(output.input, output.name, "updates" if output.mode == "upsert" else "closed")
        if rows.num_rows == 0:
            return rows
        if output.mode == "append":
            enter_output(self.books, output, rows)
            return rows
        latest = self._pipe._latest.get(output.name)
        rows = latest.run(rows) if latest is not None else last_of_each_key(rows, output.key, None)
        enter_output(self.books, output, rows)
        return rows

    def watermark(self, name: str) -> int | None:
        """The least of the partitions' that reach this node, microseconds; None: not known yet, nothing closes."""
        reads = _reads_above(self._pipe._nodes, name)
        marks: list[int] = []
        for read in reads:
            node = self._pipe.readers[read].node
            known = self._pipe.watermarks[read]
            if node.event_time is None or not known:
                return None
            for mark in known.values():
                if mark is None:
                    return None
                marks.append(mark - (node.lateness_micros or 0))
        return min(marks, default=None)

    def rows(self, name: str, flavour: Flavour) -> pa.Table:
        """What a node emits in this epoch. Only aggregates and what follows them differ by flavour."""
        key = self._key(name, flavour)
        if key not in self._done:
            self._done[key] = self._run(self._pipe._nodes[name], key[1])
        return self._done[key]

    def _key(self, name: str, flavour: Flavour) -> tuple[str, Flavour]:
        return name, flavour if _has_aggregate_above(self._pipe._nodes, name) else "rows"

    def _taken_from(self, name: str, reader: str, flavour: Flavour) -> pa.Table:
        """A node's rows for one that reads them: as many as its books say that it emitted (INV-13)."""
        rows = self.rows(name, flavour)
        self.books.passes(reader, rows.num_rows, self._emitted[self._key(name, flavour)])
        return rows

    def _run(self, node: Node, flavour: Flavour) -> pa.Table:
        match node:
            case WhereNode() | SelectNode():
                return self._run_fused(node, flavour)
            case MapNode():
                return self._step(node, flavour, run_map(node, self._taken_from(node.inputs[0], node.name, flavour)))
            case ExplodeNode():
                return self._step(node, flavour, explode(node, self._taken_from(node.inputs[0], node.name, flavour)))
            case UnionNode():
                tables = [self._taken_from(name, node.name, flavour).cast(node.schema) for name in node.inputs]
                return self._step(node, flavour, pa.concat_tables(tables))
            case DedupNode():
                taken = self._taken_from(node.inputs[0], node.name, flavour)
                rows, counts = self._pipe._dedups[node.name].run(taken, self._pipe._needed[node.name])
                self.books.operator(node.name, "dedup", **vars(counts))
                self._emitted[node.name, flavour] = counts.out
                return rows
            case AggregateNode():
                self.take_in(node.name)
                return self._pipe._groups[node.name].finals(self._taken[node.name][flavour])
            case _:
                raise NotSupported(f"The embedded engine has no operator for {type(node).__name__}.", node=node.name)

    def _run_fused(self, node: WhereNode | SelectNode, flavour: Flavour) -> pa.Table:
        chain = _fusable(self._pipe, node)
        rows = self._taken_from(chain[0].inputs[0], chain[0].name, flavour)
        out = run_fused(self._pipe._sql, chain, rows, self._pipe._needed[node.name])
        self._book_step("+".join(step.name for step in chain), rows.num_rows, out.num_rows)
        self._emitted[node.name, flavour] = out.num_rows
        return out

    def _step(self, node: Node, flavour: Flavour, out: pa.Table) -> pa.Table:
        rows_in = sum(self.rows(name, flavour).num_rows for name in node.inputs)
        self._book_step(node.name, rows_in, out.num_rows)
        self._emitted[node.name, flavour] = out.num_rows
        return out

    def _book_step(self, name: str, rows_in: int, out: int) -> None:
        self.books.operator(
            name, "step", read=rows_in, out=out, created=max(0, out - rows_in), filtered=max(0, rows_in - out)
        )

    def take_in(self, name: str) -> None:
        """Let an aggregate take its rows, once an epoch, whoever asks for its results, or nobody."""
        if name in self._taken:
            return
        group = self._pipe._groups[name]
        node = group.node
        rows = self._taken_from(node.inputs[0], name, "rows")
        before = len(group.table)
        touched, opened = group.run(rows)
        closed = group.close(self.watermark(node.name))
        self.books.operator(
            node.name,
            "aggregate",
            read=rows.num_rows,
            opened=opened,
            closed=closed.num_rows,
            held_before=before,
            held_after=len(group.table),
        )
        self._taken[name] = {"updates": touched, "closed": closed}
        self._emitted |= {(name, "updates"): touched.num_rows, (name, "closed"): closed.num_rows}


def enter_output(books: Books, output: Output, rows: pa.Table, *, refused: int = 0) -> None:
    """What a sink gets, in the books. refused: rows that it was to get and did not take."""
    upserted = deleted = 0
    if output.mode == "upsert":
        deleted = rows.column(OP_COLUMN).to_pylist().count("delete") if OP_COLUMN in rows.column_names else 0
        upserted = rows.num_rows - deleted
    books.sink(output.name, rows, upserted=upserted, deleted=deleted, refused=refused)


def _fusable(pipe: Pipeline, node: WhereNode | SelectNode) -> list[WhereNode | SelectNode]:
    """The longest chain of where and select that ends at this node and that nobody else reads in between."""
    chain = [node]
    while True:
        above = pipe._nodes[chain[0].inputs[0]]
        if not isinstance(above, WhereNode | SelectNode) or pipe._readers_of[above.name] > 1:
            return chain
        chain.insert(0, above)


def _count_readers(plan: Plan) -> dict[str, int]:
    names = [name for node in plan.nodes for name in node.inputs] + [output.input for output in plan.outputs]
    return {node.name: names.count(node.name) for node in plan.nodes}


def _reads_above(nodes: Mapping[str, Node], name: str) -> set[str]:
    node = nodes[name]
    return {name} if isinstance(node, ReadNode) else set().union(*(_reads_above(nodes, above) for above in node.inputs))


def _has_aggregate_above(nodes: Mapping[str, Node], name: str) -> bool:
    node = nodes[name]
    return isinstance(node, AggregateNode) or any(_has_aggregate_above(nodes, above) for above in node.inputs)


def _refuse_state_after_aggregates(plan: Plan, nodes: Mapping[str, Node]) -> None:
    for node in plan.nodes:
        if isinstance(node, DedupNode | AggregateNode) and any(_has_aggregate_above(nodes, n) for n in node.inputs):
            raise NotSupported(
                "State after an aggregate is not supported yet.",
                node=node.name,
                found=f"{type(node).__name__} over the results of an aggregate",
                next_step="Write the aggregate to a table and read that in another flow.",
            )
