"""When a snapshot of the state is due: enough changes since the last, and none is being written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onefold.engines.embedded.opening import OpenedFlow
from onefold.engines.embedded.pipeline import EpochResult

__all__ = ["SnapshotPacer"]

MOST_EPOCHS = 5_000
"""So that opening never applies more deltas than this, however small they are."""


class SnapshotPacer:
    """Freezes the state right after an epoch was computed, so that a snapshot is of exactly that epoch (INV-14)."""

    def __init__(self, opened: OpenedFlow) -> None:
        self._tables = opened.pipeline.tables
        self._store = opened.snapshots
        self._every_bytes = opened.plan.settings.snapshot_every_bytes
        newest = max(opened.snapshots.epochs(), default=0)
        since = [seal for _, seal in opened.history.seals if seal.deltas and seal.epoch > newest]
        self._bytes = sum(delta.detail["size"] for seal in since for delta in seal.deltas)
        self._epochs = len(since)

    def freeze_if_due(self, result: EpochResult) -> Mapping[str, Any]:
        """The frozen tables, or nothing. On the computing thread, before the next epoch touches the state."""
        self._bytes += sum(batch.nbytes for batches in result.deltas.values() for batch in batches)
        self._epochs += bool(result.deltas)
        if self._store.is_writing or (self._bytes < self._every_bytes and self._epochs < MOST_EPOCHS):
            return {}
        self._bytes = self._epochs = 0
        return {name: table.freeze() for name, table in self._tables.items()}
