"""A look at the first rows of a stream, without state, journal or any other effect."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

import pyarrow as pa

from onefold.clock import SystemClock
from onefold.engines.embedded.ingest import Ingest, gathering
from onefold.engines.embedded.pipeline import EpochInput, Pipeline
from onefold.plan import Node, Plan, ReadNode
from onefold.protocols import LeavesTraces
from onefold.types import EpochNumber

__all__ = ["preview"]

CLOCK = SystemClock()

READ_ROWS = 10_000
"""How many rows are read at most to find the ones to show."""

MOST_SECONDS = 30.0
"""How long a source may take for the first rows."""

GATHER_SECONDS = 0.5
"""How long more rows are waited for where a source says that there are more."""

POLL_SECONDS = 0.2


def preview(plan: Plan, node: str, rows: int) -> pa.Table:
    """Up to `rows` rows of what the node emits for the first input; open windows are shown as they would stand.

    Raises SourceUnavailable, UserCodeError.
    """
    settings = replace(plan.settings, epoch_rows=READ_ROWS, max_dead=1.0)
    pipeline = Pipeline(replace(plan, settings=settings, nodes=_through(plan, node), outputs=()), bytes(16))
    ingest = Ingest(pipeline, {}, EpochNumber(1))
    deadline = CLOCK.monotonic() + MOST_SECONDS
    ingest.open()
    try:
        epoch = _gather(ingest, 0.0)
        while epoch is None and not ingest.is_idle and CLOCK.monotonic() < deadline:
            epoch = _gather(ingest, POLL_SECONDS)
    finally:
        ingest.close()
    if epoch is None:
        return plan.node(node).schema.empty_table()
    return pipeline.look(epoch, node).slice(0, rows)


def _gather(ingest: Ingest, wait_seconds: float) -> EpochInput | None:
    return ingest.next(wait_seconds, gathering(CLOCK, GATHER_SECONDS, Event().wait, until_idle=True))


def _through(plan: Plan, name: str) -> tuple[Node, ...]:
    """The node and those above it."""
    wanted = {name}
    for node in reversed(plan.nodes):  # a node stands after its inputs
        if node.name in wanted:
            wanted |= {*node.inputs}
    return tuple(_traceless(node) for node in plan.nodes if node.name in wanted)


def _traceless(node: Node) -> Node:
    """The same, of a source that leaves nothing behind."""
    if isinstance(node, ReadNode) and isinstance(node.source, LeavesTraces):
        return replace(node, source=node.source.glance())
    return node
