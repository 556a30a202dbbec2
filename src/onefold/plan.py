"""The plan: what a flow has become once it is built. Immutable, engine-neutral, comparable.

Nodes stand in topological order; each has a unique name, the names of its inputs, and the schema of its rows.
Expressions are SQL text in DuckDB's dialect, already bound against the input schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from onefold.protocols import Format, Sink, Source
from onefold.types import Guarantee, JsonValue, Mode, canonical_json

__all__ = [
    "Aggregate", "AggregateNode", "DedupNode", "ExplodeNode", "MapNode", "Node", "Output", "Plan", "ReadNode",
    "SelectNode", "Settings", "UnionNode", "WhereNode", "schema_json",
]  # fmt: skip

OP_COLUMN = "_op"
"""The change column of a change stream: "upsert" or "delete"."""


@dataclass(frozen=True)
class Node:
    """One step. name: unique in the flow. inputs: names of nodes it reads. schema: of the rows it emits."""

    name: str
    inputs: tuple[str, ...]
    schema: pa.Schema

    def shape(self) -> dict[str, JsonValue]:
        """What identifies the step for the fingerprint: everything that changes its results."""
        return {
            "node": type(self).__name__,
            "name": self.name,
            "inputs": list(self.inputs),
            "schema": schema_json(self.schema),
        }


@dataclass(frozen=True)
class ReadNode(Node):
    """Reads a source. declared: the schema without metadata columns; schema: with the metadata columns asked for.

    lateness_micros, max_ahead_micros: None where no event time is declared. casts: "exact" or "lenient".
    """

    source: Source
    label: str
    format: Format | None
    declared: pa.Schema
    event_time: str | None = None
    lateness_micros: int | None = None
    max_ahead_micros: int | None = None
    casts: Literal["exact", "lenient"] = "exact"

    def shape(self) -> dict[str, JsonValue]:
        """See Node."""
        return {
            **super().shape(),
            "format": self.format.name if self.format else None,
            "event_time": self.event_time,
            "lateness": self.lateness_micros,
            "casts": self.casts,
        }


@dataclass(frozen=True)
class WhereNode(Node):
    """Keeps the rows for which the predicate is true (not null).

    stays: of changes that make a copy, a condition of its own; a row for which it is not true becomes a delete of its
    key, and no row is dropped by it. "": none.
    """

    predicate: str
    stays: str = ""

    def shape(self) -> dict[str, JsonValue]:
        """See Node."""
        return {**super().shape(), "predicate": self.predicate, **({"stays": self.stays} if self.stays else {})}


@dataclass(frozen=True)
class SelectNode(Node):
    """Projects. columns: output name -> SQL expression over the input's columns, in order."""

    columns: Mapping[str, str]

    def shape(self) -> dict[str, JsonValue]:
        """See Node."""
        return {**super().shape(), "columns": [[name, sql] for name, sql in self.columns.items()]}


@dataclass(frozen=True)
class MapNode(Node):
    """Calls a Python function on each batch; it returns rows of `schema`, any number of them."""

    function: Callable[[Any], Any]
    batch: Literal["arrow", "polars", "pandas"]

    def shape(self) -> dict[str, JsonValue]:
        """See Node."""
        return {**super().shape(), "function": getattr(self.function, "__qualname__", "?"), "batch": self.batch}


@dataclass(frozen=True)
class ExplodeNode(Node):
    """One row per element of a list column; empty and null lists give no row, or one with null if keep_empty."""

    column: str
    keep_empty: bool = False

    def shape(self) -> dict[str, JsonValue]:
        """See Node."""
        return {**super().shape(), "column": self.column, "keep_empty": self.keep_empty}


@dataclass(frozen=True)
class UnionNode(Node):
    """All rows of its inputs, which have one schema."""


@dataclass(frozen=True)
class DedupNode(Node):
    """Keeps the first row of each key. within_micros: compared on `event_time`; None: forever."""

    key: tuple[str, ...]
    within_micros: int | None
    event_time: str | None

    def shape(self) -> dict[str, JsonValue]:
        """See Node."""
        return {**super().shape(), "key": list(self.key), "within": self.within_micros, "event_time": self.event_time}


@dataclass(frozen=True)
class Aggregate:
    """One aggregate column, split so that partial results merge.

    partials: name -> SQL aggregate over input rows. merges: name -> SQL aggregate over partial rows, same names.
    final: SQL expression over the partial columns. Example avg(x): partials s=sum(x), n=count(x); merges sum(s),
    sum(n); final s / n.
    """

    name: str
    sql: str
    partials: Mapping[str, str]
    merges: Mapping[str, str]
    final: str


@dataclass(frozen=True)
class AggregateNode(Node):
    """Groups by key columns, and by a tumbling window of event time if window_micros is given.

    partial_schema: key columns (with window_start and window_end), then the partial columns.
    schema: key columns, window_start, window_end, aggregates.
    """

    keys: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    partial_schema: pa.Schema
    window_micros: int | None = None
    window_offset_micros: int = 0
    event_time: str | None = None

    def shape(self) -> dict[str, JsonValue]:
        """See Node."""
        return {
            **super().shape(),
            "keys": list(self.keys),
            "aggregates": [[a.name, a.sql] for a in self.aggregates],
            "window": self.window_micros,
            "offset": self.window_offset_micros,
            "event_time": self.event_time,
        }


@dataclass(frozen=True)
class Output:
    """One sink of the flow, with what it writes.

    latest_by: on upsert, the row of a key with the largest value wins; None: the last in input order.
    is_shared: other flows or sinks may write to the same target. is_sifted: rows that the target refuses become dead
    letters.
    """

    name: str
    input: str
    sink: Sink
    label: str
    schema: pa.Schema
    mode: Mode
    guarantee: Guarantee
    key: tuple[str, ...] = ()
    latest_by: str | None = None
    is_shared: bool = False
    is_sifted: bool = False

    def binding_shape(self) -> dict[str, JsonValue]:
        """What must not change while epochs wait for this sink."""
        tokens = self.sink.promise.tokens
        return {
            "target": self.sink.promise.target,
            **({"tokens": tokens} if tokens else {}),
            "mode": self.mode,
            "key": list(self.key),
            "schema": schema_json(self.schema),
        }


@dataclass(frozen=True)
class Settings:
    """How a flow is run. Sizes in bytes, times in seconds; all have working defaults.

    keep_settled_seconds, keep_settled_bytes: how long payloads of settled epochs stay, so that a restored sink can
    be given them again. max_dead: the share of rows of an epoch's reads that may become dead letters (1.0: all; None:
    all, but not every row of a long epoch that a sink was offered).
    """

    epoch_bytes: int = 48 << 20
    epoch_rows: int = 400_000
    epoch_seconds: float = 0.02
    deliver_bytes: int = 64 << 20
    spool_quota_bytes: int = 8 << 30
    keep_settled_seconds: float = 86_400.0
    keep_settled_bytes: int = 256 << 20
    fence_every_seconds: float = 10.0
    settle_every_seconds: float = 1.0
    max_dead: float | None = None
    snapshot_every_bytes: int = 256 << 20


@dataclass(frozen=True)
class Plan:
    """A built flow: nodes in topological order and the outputs."""

    flow: str
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    guarantee: Guarantee = Guarantee.EXACTLY_ONCE
    commit: Literal["separately", "together"] = "separately"
    settings: Settings = field(default_factory=Settings)

    def node(self, name: str) -> Node:
        """The node of that name. Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def reads(self) -> tuple[ReadNode, ...]:
        """The nodes that read sources, in order."""
        return tuple(node for node in self.nodes if isinstance(node, ReadNode))

    def shape(self) -> dict[str, JsonValue]:
        """Operators and outputs as JSON: compared at every start, shown as a difference."""
        return {
            "nodes": {node.name: node.shape() for node in self.nodes},
            "outputs": {
                output.name: {"input": output.input, "latest_by": output.latest_by, **output.binding_shape()}
                for output in self.outputs
            },
            "commit": self.commit,
        }

    def fingerprint(self) -> str:
        """32 hexadecimal digits of the shape."""
        return hashlib.blake2b(canonical_json(self.shape()).encode(), digest_size=16).hexdigest()


def schema_json(schema: pa.Schema) -> list[JsonValue]:
    """[[name, type as text], …]."""
    return [[column.name, str(column.type)] for column in schema]
