"""A connection that speaks the streaming replication protocol, over libpq.

The server decodes the log once and sends whole transactions, in the order of their commits, as fast as they are
taken; what is not taken waits in the server. One thread at a time.
Source: PostgreSQL's documentation, chapters Streaming Replication Protocol and Functions Associated with COPY (libpq).
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Any

from onefold.connectors.postgres.changes.pgoutput import status
from onefold.connectors.postgres.changes.place import lsn_text
from onefold.connectors.postgres.connection import Server, liveness, psycopg, session_options
from onefold.connectors.postgres.types import quoted
from onefold.settings import resolve

__all__ = ["Replication"]


class Replication:
    """Connected when it is made. Raises the client's errors, which carry the server's SQLSTATE if it gave one."""

    def __init__(self, server: Server, name: str) -> None:
        client = psycopg()
        url = resolve(server.url, used_in=server.label)
        wanted = {
            "replication": "database",
            "application_name": name,
            "client_encoding": "utf8",
            "options": session_options(),
            **liveness(url),
        }
        text = client.conninfo.make_conninfo(url, **wanted)
        self._pq = client.pq
        self._errors = client.errors
        self._connection: Any = client.pq.PGconn.connect(text.encode())
        if self._connection.status != client.pq.ConnStatus.OK:
            message = self._connection.error_message.decode("utf8", "replace")
            self._connection.finish()
            raise client.OperationalError(message)

    def ask(self, command: str) -> Sequence[Sequence[str | None]]:
        """The rows that a command gives, as text. Not while a stream runs."""
        result = self._connection.exec_(command.encode())
        if result.status not in (self._pq.ExecStatus.TUPLES_OK, self._pq.ExecStatus.COMMAND_OK):
            raise self._failure(result)
        return [
            [None if (value := result.get_value(row, column)) is None else value.decode() for column in columns]
            for columns in [range(result.nfields)]
            for row in range(result.ntuples)
        ]

    def start(self, slot: str, lsn: int, publication: str) -> None:
        """Begin the stream: every transaction whose commit record starts at `lsn` or later."""
        names = quoted(publication).replace("'", "''")
        command = (
            f"START_REPLICATION SLOT {quoted(slot)} LOGICAL {lsn_text(lsn)} "
            f"(proto_version '1', publication_names '{names}', messages 'true')"
        )
        result = self._connection.exec_(command.encode())
        if result.status != self._pq.ExecStatus.COPY_BOTH:
            raise self._failure(result)
        self._connection.nonblocking = 1

    def take(self) -> bytes | None:
        """The next message, if one has come."""
        for _ in range(2):
            count, raw = self._connection.get_copy_data(1)
            if count > 0:
                return bytes(raw)
            if count < 0:
                raise self._failure(self._connection.get_result())
            self._connection.flush()
            self._connection.consume_input()
        return None

    def wait(self, seconds: float) -> None:
        """Until something comes, at most so long."""
        select.select([self._connection.socket], [], [], seconds)

    def confirm(self, settled: int) -> None:
        """Tell the server that we are there, and that it may forget what is before `settled`; 0: nothing of that."""
        self._connection.put_copy_data(status(settled))
        self._connection.flush()

    def close(self) -> None:
        """Hang up. May be called twice."""
        self._connection.finish()

    def _failure(self, result: Any) -> Exception:
        state = result.error_field(self._pq.DiagnosticField.SQLSTATE) if result is not None else None
        message = result.error_message.decode("utf8", "replace") if result is not None else ""
        try:
            kind = self._errors.lookup((state or b"").decode())
        except KeyError:
            kind = psycopg().OperationalError
        failure: Exception = kind(message or "the server has ended the stream")
        return failure
