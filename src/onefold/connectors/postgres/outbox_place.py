"""Where an outbox is read: behind which row, and of which database. And what is said when that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onefold.errors import InputLost
from onefold.types import PartitionId, Position, Skip

__all__ = ["PARTITION", "START", "Origin", "Place", "of_another_database", "restored"]

PARTITION = PartitionId("0")


@dataclass(frozen=True)
class Origin:
    """Which database transaction ids belong to.

    server: the cluster's system identifier, which a failover keeps; "" when we may not ask. database: its oid.
    timeline: goes up with every promotion of a standby and every recovery to a point in time.
    """

    server: str
    database: int
    timeline: int

    def is_same(self, other: Origin) -> bool:
        """Whether both name one database, as far as is known."""
        return self.database == other.database and (self.server == other.server or not (self.server and other.server))


@dataclass(frozen=True)
class Place:
    """Behind this row; transaction 0 is before all rows."""

    transaction: int = 0
    id: int | str | None = None
    origin: Origin | None = None

    @staticmethod
    def of(position: Position) -> Place:
        """The inverse of `position`."""
        if not isinstance(position, Mapping) or not position:
            return START
        found: Mapping[str, Any] = position
        origin = Origin(str(found["server"]), int(found["database"]), int(found["timeline"]))
        return Place(int(found["transaction"]), found["id"], origin)

    @property
    def position(self) -> Position:
        """As JSON."""
        if self.origin is None:
            return {}
        return {
            "server": self.origin.server,
            "database": self.origin.database,
            "timeline": self.origin.timeline,
            "transaction": self.transaction,
            "id": self.id,
        }

    def is_before(self, other: Place) -> bool:
        """In the order of the server: integers by value, UUIDs by their bytes, which is the order of their text."""
        if self.transaction != other.transaction or self.id is None or other.id is None:
            return self.transaction < other.transaction
        mine: Any = self.id
        return bool(mine < other.id)

    def __str__(self) -> str:
        return f"transaction {self.transaction}, id {self.id}"


START = Place()


def restored(label: str, place: Place, next_transaction: int, end: Place) -> InputLost:
    """The position is ahead of the server. end: behind the last row that is there now."""
    return InputLost(
        f"{label}: the position is ahead of the database, so it was restored from a backup, or a standby that was "
        "behind was promoted.",
        found=f"the next transaction will be {next_transaction}",
        expected=f"a transaction after {place.transaction}: what {next_transaction} to {place.transaction} wrote was "
        "read and is missing",
        next_step="Restore a newer backup",
        partition=PARTITION,
        position=str(place),
        skip=Skip(end.position),
    )


def of_another_database(label: str, place: Place, here: Origin, next_transaction: int, end: Place) -> InputLost:
    """Transaction ids of another server say nothing here; but pg_upgrade, which makes a new one, keeps them."""
    is_ahead = place.transaction >= next_transaction
    kept = end if is_ahead else Place(place.transaction, place.id, here)
    there = place.origin or here
    return InputLost(
        f"{label}: the position is of another database.",
        found=f"server {here.server or 'unknown'}, database {here.database}",
        expected=f"server {there.server or 'unknown'}, database {there.database}",
        next_step="Name the database that was read; after pg_upgrade, which keeps transaction ids, nothing is missing "
        "and the loss may be accepted",
        partition=PARTITION,
        position=str(place),
        skip=Skip(kept.position),
    )
