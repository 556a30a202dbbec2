"""What a position of a topic's partition means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.types import Position

__all__ = ["FORGOTTEN", "MEMORY", "Place"]

MEMORY = pa.schema([("topic", pa.string()), ("partition", pa.int32()), ("id", pa.string()), ("at", pa.int64())])
"""Where a partition was begun: its topic's name, its number, the topic's id, the first offset."""

FORGOTTEN = -1
"""The first offset of a partition that is gone, and is read no more."""


@dataclass(frozen=True)
class Place:
    """topic: its id, "" when unknown. at: the next offset. epoch: leader epoch of the record before; -1 unknown."""

    topic: str
    at: int
    epoch: int = -1

    def position(self) -> Position:
        """As the engine keeps it."""
        return {"topic": self.topic, "at": self.at, "epoch": self.epoch}

    @staticmethod
    def of(position: Position) -> Place:
        """The inverse."""
        body: Mapping[str, Any] = position if isinstance(position, Mapping) else {}
        return Place(str(body.get("topic", "")), int(body.get("at", 0)), int(body.get("epoch", -1)))
