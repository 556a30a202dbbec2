"""Who keeps an outbox waiting: the oldest transaction of the server, in whatever database, prepared or forgotten."""

from __future__ import annotations

import logging
import math
from typing import Any

from onefold.protocols import Clock

__all__ = ["Patience", "oldest_transaction"]

LOG = logging.getLogger("onefold")

WAIT_SECONDS = 30.0
"""How long rows wait behind one transaction before it is named."""

AGAIN_SECONDS = 300.0
"""How often it is named after that."""

_XID_BITS = 32


def oldest_transaction(connection: Any, bound: int) -> str:
    """What runs under this transaction id, in words. Raises the client's errors.

    The views have 32 bits of it; no two that run have the same.
    """
    short = bound % (1 << _XID_BITS)
    prepared = connection.execute(
        "SELECT gid, owner::text, database::text, extract(epoch FROM now() - prepared)::bigint "
        "FROM pg_prepared_xacts WHERE transaction::text::bigint = %s",
        [short],
    ).fetchone()
    if prepared is not None:
        gid, owner, database, seconds = prepared
        return (
            f"prepared transaction {gid!r} of {owner} in database {database}, prepared {seconds} s ago: "
            "COMMIT PREPARED or ROLLBACK PREPARED ends it"
        )
    running = connection.execute(
        "SELECT pid, usename::text, datname::text, application_name, extract(epoch FROM now() - xact_start)::bigint "
        "FROM pg_stat_activity WHERE backend_xid::text::bigint = %s",
        [short],
    ).fetchone()
    if running is None:
        return f"transaction {bound}, which has just ended"
    pid, user, database, application, seconds = running
    age = "" if seconds is None else f", begun {seconds} s ago"
    named = f" ({application})" if application else ""
    return f"transaction {bound} of process {pid}{named}, user {user}, database {database}{age}"


class Patience:
    """Names, in the log, the transaction that rows wait for, when they have waited for long."""

    def __init__(self, label: str, clock: Clock) -> None:
        self._label = label
        self._clock = clock
        self._bound: int | None = None
        self._since = self._said = -math.inf

    def over(self) -> None:
        """Nothing waits."""
        self._bound = None

    def waits(self, connection: Any, bound: int) -> None:
        """Rows wait for this transaction to end. Raises the client's errors."""
        now = self._clock.monotonic()
        if bound != self._bound:
            self._bound, self._since, self._said = bound, now, -math.inf
        if now - self._since < WAIT_SECONDS or now - self._said < AGAIN_SECONDS:
            return
        self._said = now
        holder = oldest_transaction(connection, bound)
        LOG.warning("%s: rows have waited for %.0f s until this ends: %s", self._label, now - self._since, holder)
