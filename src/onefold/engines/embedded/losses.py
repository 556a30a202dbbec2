"""Input that is gone, and a person who goes on without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onefold.engines.embedded.ingest import Ingest, Loss
from onefold.engines.embedded.opening import open_flow, where_to_read
from onefold.engines.embedded.outputs import all_outputs
from onefold.engines.embedded.runner import Run
from onefold.plan import Plan
from onefold.protocols import Clock
from onefold.types import EpochNumber

__all__ = ["find_losses", "skip_losses"]

WAIT_SECONDS = 10.0
"""How long a partition that neither gives rows nor says that it has none is asked."""


def find_losses(plan: Plan, folder: Path, clock: Clock) -> tuple[Loss, ...]:
    """Every partition that cannot be read on from its position.

    Raises JournalLocked while the flow runs, PlanChanged, SourceUnavailable, SourceRefused. Seals nothing.
    """
    opened = open_flow(plan, folder, all_outputs(plan, folder), clock)
    ingest = Ingest(opened.pipeline, *where_to_read(opened))
    try:
        ingest.open()
        return tuple(ingest.losses(WAIT_SECONDS))
    finally:
        ingest.close()
        opened.journal.close()


def skip_losses(plan: Plan, folder: Path, losses: Sequence[Loss]) -> EpochNumber:
    """Seal an epoch without rows that moves behind the losses and counts them. Gives its number.

    Every error of the losses has a `skip`. Raises what a run raises. If killed inside: accepted or not.
    """
    with Run(plan, folder, until="drained", skipping=losses) as running:
        running.wait()
        return running.progress().epoch
