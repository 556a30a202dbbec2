"""What the stream does not tell and a reading is to notice: who holds it up, and tables that were exchanged."""

from __future__ import annotations

import logging
from typing import Any

from onefold.connectors.postgres.changes.cursor import Cursor
from onefold.connectors.postgres.changes.slot import still_open
from onefold.errors import SourceUnavailable
from onefold.protocols import Clock

__all__ = ["HeldUp", "Watch"]

LOOK_SECONDS = 10.0
"""Between two looks: one small query each."""

WORD_SECONDS = 30.0
"""So long the first reading is held up without a word."""

HELD_SECONDS = 600.0
"""So long it is held up before the run ends."""

LOG = logging.getLogger("onefold")


class HeldUp(SourceUnavailable):
    """Others keep transactions open, and nobody knows until when. A connection that is made again mends nothing."""


class Watch:
    """Of one cursor. sql: its connection beside the stream."""

    def __init__(self, cursor: Cursor, sql: Any, clock: Clock, label: str) -> None:
        self._cursor = cursor
        self._sql = sql
        self._clock = clock
        self._label = label
        self._looked_at = self._free_at = clock.monotonic()
        self._is_told = False

    def look(self, *, is_idle: bool) -> None:
        """Raises HeldUp; InputLost when nothing is left to deliver and a table is another; the client's errors."""
        now = self._clock.monotonic()
        if not self._cursor.is_held_up:
            self._free_at, self._is_told = now, False
        elif now - self._free_at > (HELD_SECONDS if self._is_told else WORD_SECONDS):
            self._tell(now - self._free_at)
        if is_idle and now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            self._cursor.demand_same_tables()

    def _tell(self, seconds: float) -> None:
        summary = f"{self._label}: the first reading goes on when transactions have ended that are still open."
        found = f"open for more than {seconds:.0f} seconds: {still_open(self._sql)}"
        if self._is_told:
            raise HeldUp(summary, found=found, next_step="End them (a prepared one is forgotten), then run again.")
        self._is_told = True
        LOG.warning("%s Found: %s", summary, found)
