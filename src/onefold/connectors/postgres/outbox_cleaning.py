"""Settled rows of an outbox, deleted."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from onefold.connectors.postgres.connection import psycopg
from onefold.connectors.postgres.outbox_place import Place
from onefold.connectors.postgres.outbox_rows import origin_of
from onefold.connectors.postgres.outbox_table import Layout
from onefold.connectors.postgres.types import quoted
from onefold.disk import durable_step
from onefold.errors import OnefoldError, SourceUnavailable
from onefold.protocols import Clock

__all__ = ["Cleaner"]

LOG = logging.getLogger("onefold")

ROWS_AT_ONCE = 5_000

CLEAN_SECONDS = 2.0
"""How long one call goes on: sealing waits for it."""

LOCK_MILLISECONDS = 1_000


class Cleaner:
    """Deletes what is before a settled position. Used by one thread; it connects when it is first asked to.

    What is not deleted now is deleted by a later call. If killed inside: some rows are gone, all of them settled.
    """

    def __init__(self, layout: Layout, clock: Clock) -> None:
        self._layout = layout
        self._clock = clock
        self._connection: Any = None

    def clean(self, place: Place) -> None:
        """Never raises for an operating error: it is logged, and rows stay."""
        if place.origin is None:
            return
        try:
            self._clean(place)
        except (OnefoldError, psycopg().Error) as error:
            self.close()
            text = self._layout.outbox.server.clean(str(error))
            LOG.warning("%s: settled rows were not deleted: %s", self._layout.outbox.label, text)

    def close(self) -> None:
        """Hang up. Never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg().Error):
                connection.close()

    def _clean(self, place: Place) -> None:
        """Only in the database that the position is of, and under its timeline: elsewhere, rows of the same
        transaction ids may be others."""
        connection = self._connected()
        if origin_of(connection, psycopg().errors.InsufficientPrivilege) != place.origin:
            return
        statement = self._statement(place)
        began = self._clock.monotonic()
        while self._clock.monotonic() - began < CLEAN_SECONDS:
            with durable_step("postgres.clean"):
                count = connection.execute(statement).rowcount
            if count < ROWS_AT_ONCE:
                return

    def _connected(self) -> Any:
        if self._connection is None or self._connection.closed:
            outbox = self._layout.outbox
            self._connection = outbox.server.connect(SourceUnavailable, name="onefold outbox cleaning")
            self._connection.execute(f"SET lock_timeout TO {LOCK_MILLISECONDS}; SET enable_seqscan TO off")
        return self._connection

    def _statement(self, place: Place) -> str:
        outbox = self._layout.outbox
        keys = ", ".join(f"source.{quoted(name)}" for name in (outbox.transaction, outbox.id))
        before = self._layout.key(place.transaction, place.id)
        oldest = (
            f"SELECT {keys} FROM {self._layout.rows} AS source WHERE ({keys}) <= {before} "
            f"ORDER BY {keys} LIMIT {ROWS_AT_ONCE}"
        )
        return f"DELETE FROM {self._layout.rows} AS source WHERE ({keys}) IN ({oldest})"
