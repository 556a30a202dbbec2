"""A mark beside the journal: an epoch may be prepared in sinks and undecided, so none of them may leave the flow yet.

Only a sink can list what is prepared in it, and one that has left the flow is not asked any more.
"""

from __future__ import annotations

from pathlib import Path

from onefold.disk import remove, sync_folder, write_synced

__all__ = ["Undecided"]

NAME = "undecided"


class Undecided:
    """For flows that commit together. If killed between mark and prepare, it says too much."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / NAME

    @property
    def is_marked(self) -> bool:
        """Whether an instance began to prepare, and none has said since that all is decided."""
        return self.file.exists()

    def mark(self) -> None:
        """Durable when it returns. Raises DiskError."""
        if not self.is_marked:
            write_synced(self.file, [], step="undecided.mark")
            sync_folder(self.file.parent)

    def clear(self) -> None:
        """Nothing is prepared any more that is not sealed."""
        if self.is_marked:
            remove(self.file, step="undecided.clear")
