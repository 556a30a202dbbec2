"""The errors of changes that cannot be read on; each knows where one goes on who accepts the loss."""

from __future__ import annotations

from typing import Any

from onefold.connectors.postgres.changes.place import Place, lsn_text
from onefold.errors import InputLost
from onefold.types import Skip

__all__ = ["ForLoss", "truncated", "unlogged_value"]


class ForLoss:
    """Errors of one reading that stands at `place`. anew: the number of the beginning after the loss, if accepted.

    One who accepts begins anew: with the slot as it then is, a new one if there is none, and with the tables as they
    then are, unless they are not read. Rows that were deleted in between stay in the sinks.
    """

    def __init__(self, label: str, slot: str, place: Place, anew: int) -> None:
        self._label = label
        self._slot = slot
        self._place = place
        self._skip = Skip(Place(begin=max(anew, place.begin + 1)).position())

    def slot_gone(self) -> InputLost:
        """There is no slot of the name."""
        return self._lost("its replication slot is gone", found=f"no slot {self._slot}")

    def slot_invalid(self, status: str) -> InputLost:
        """The server has removed what the slot needs."""
        return self._lost(
            "the server did not keep the log for its replication slot",
            found=f"slot {self._slot} is {status}",
            next_step="Restore the server as it was before; and raise max_slot_wal_keep_size",
        )

    def slot_ahead(self, confirmed: int) -> InputLost:
        """Somebody else has moved it on."""
        return self._lost(
            "its replication slot was moved on by somebody else", found=f"slot {self._slot} at {lsn_text(confirmed)}"
        )

    def server_behind(self, end: int) -> InputLost:
        """What was processed is not in the server's log any more."""
        return self._lost(
            "the server went back in time: what was processed is gone from its log",
            found=f"a log that ends at {lsn_text(end)}",
        )

    def other_history(self, system: str, timeline: int) -> InputLost:
        """Another server, or one that parted from the one we know before our place."""
        return self._lost(
            "this is another server, or another history of the same",
            found=f"system {system}, timeline {timeline}",
        )

    def other_transaction(self, found: str) -> InputLost:
        """The log does not give what it gave."""
        return self._lost("the log gives another transaction than before", found=found)

    def table_remade(self, table: str) -> InputLost:
        """It has the name of one that was dropped."""
        return self._lost(
            f"table {table} was dropped and made anew; the log does not tell what became of its rows",
            found=f"another table {table}",
        )

    def table_unpublished(self, table: str, publication: str) -> InputLost:
        """Its changes do not come any more."""
        return self._lost(
            f"table {table} is not published any more; its changes are not in the stream",
            found=f"publication {publication} without {table}",
        )

    def publication_gone(self, found: str) -> InputLost:
        """Whether or not it was made anew: the log of between is decoded by what the catalog said at the time."""
        return self._lost(
            "its publication was dropped; what was logged without it cannot be decoded",
            found=found,
            next_step="Restore the server as it was before; else drop the slot, which never passes that place again: "
            f"SELECT pg_drop_replication_slot('{self._slot}')",
        )

    def _lost(self, what: str, *, found: str, next_step: str = "Restore the server as it was before") -> InputLost:
        place = self._place
        at = "the beginning" if place.lsn is None else f"LSN {lsn_text(place.lsn)}"
        history = f" of system {place.system}, timeline {place.timeline}" if place.system else ""
        return InputLost(
            f"{self._label}: {what}.",
            found=found,
            expected=f"every change from {at}{history} on, through slot {self._slot}",
            next_step=next_step,
            skip=self._skip,
            position=at,
        )


def truncated(label: str, table: str, behind: Place) -> InputLost:
    """TRUNCATE names no rows, so no deletes can be made of it. behind: where reading goes on without."""
    return InputLost(
        f"{label}: table {table} was emptied by TRUNCATE; the log does not tell which rows that deleted.",
        found=f"TRUNCATE of {table}, committed at LSN {lsn_text(behind.commit)}",
        expected="INSERT, UPDATE and DELETE",
        next_step='Empty the targets by hand and go on; or say truncate="ignore", and they keep those rows',
        skip=Skip(behind.position()),
    )


def unlogged_value(label: str, column: str, qualified: str, behind: Place, key: Any) -> InputLost:
    """An update left a large value as it was, and the log does not hold it. behind: where reading goes on without."""
    return InputLost(
        f"{label}: an update did not change the large value of column {column}, so the log does not hold it.",
        found=f"the row with key {key}, committed at LSN {lsn_text(behind.commit)}",
        expected="REPLICA IDENTITY FULL, under which the log holds whole rows",
        next_step=f"For later updates: ALTER TABLE {qualified} REPLICA IDENTITY FULL",
        skip=Skip(behind.position(), 1),
        column=column,
    )
