"""What `onefold doctor` says of a slot: whether it is there, and how far behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.connectors.postgres.changes.catalog import SeenTable
from onefold.connectors.postgres.changes.place import lsn_text
from onefold.connectors.postgres.changes.seeking import Names
from onefold.connectors.postgres.changes.slot import end_of_log, find_slot, unpublished
from onefold.protocols import CheckResult

__all__ = ["standing"]

SLOTS_TO_BEGIN = 2
"""A new one is a copy of a temporary one."""

_ROOM = """
SELECT current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user)
"""


def standing(connection: Any, names: Names, tables: Sequence[SeenTable], label: str) -> list[CheckResult]:
    """Writes nothing. Raises SourceRefused, and the client's errors."""
    slot = find_slot(connection, names.slot)
    found = []
    room, may_replicate = connection.execute(_ROOM).fetchone()
    if not may_replicate:
        found.append(
            CheckResult(label, "warning", "the user lacks REPLICATION", "ALTER USER … REPLICATION, if a run says so.")
        )
    if slot is None:
        if room < SLOTS_TO_BEGIN:
            text = f"no slot yet, and {max(room, 0)} of the server's are free"
            return [*found, CheckResult(label, "failed", text, "Raise max_replication_slots, or drop one.")]
        text = f"no slot {names.slot} yet: a new flow makes it"
        return [*found, CheckResult(label, "ok", text)]
    missing = unpublished(connection, names.publication, tables, label)
    if missing is not None:
        text = f"publication {names.publication} lacks table {missing}"
        return [*found, CheckResult(label, "failed", text, "Add it before the flow begins; later, input is lost.")]
    behind = end_of_log(connection) - (slot.confirmed or 0)
    text = f"slot {names.slot} at {lsn_text(slot.confirmed or 0)}, {behind:,} bytes behind; {slot.status}"
    if slot.status in ("lost", "unreserved"):
        return [*found, CheckResult(label, "failed", text, "Raise max_slot_wal_keep_size; `onefold recover` if lost.")]
    return [*found, CheckResult(label, "ok", text)]
