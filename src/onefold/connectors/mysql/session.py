"""One connection of ours, and how it is set up: the same for every server, whatever its administrator prefers.

Source: MySQL's reference manual, chapters Server System Variables, Server SQL Modes, and Locking Functions.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from onefold.errors import ExtraMissing, RowsRefused, SinkRefused, SinkUnavailable

__all__ = ["LOCK_SECONDS", "Session", "end_sessions_of", "pymysql"]

LOCK_SECONDS = 30
"""How long a statement waits for a lock of somebody else before the sink counts as unavailable."""

IDLE_SECONDS = 7 * 86_400
"""How long a session may have nothing to deliver before the server hangs up."""

OLDEST_MYSQL, OLDEST_MARIADB = (8, 0, 19), (10, 6)

SETTINGS: Mapping[str, str] = {
    # Strict for every engine; a backslash is a character; 0 is no wish for a number; no other engine than was asked.
    "sql_mode": "'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'",
    "time_zone": "'+00:00'",
    "autocommit": "1",
    "completion_type": "0",
    "innodb_lock_wait_timeout": str(LOCK_SECONDS),
    "lock_wait_timeout": str(LOCK_SECONDS),
    "wait_timeout": str(IDLE_SECONDS),
    "foreign_key_checks": "1",
    "unique_checks": "1",
    "sql_notes": "1",
    "sql_safe_updates": "0",
    "sql_auto_is_null": "0",
    "sql_select_limit": "18446744073709551615",
}
OF_MARIADB: Mapping[str, str] = {"max_statement_time": "0", "idle_transaction_timeout": "0"}

HARMLESS = frozenset({1287, 1592, 1681})
"""Warnings about the statement, not about a value: something is deprecated, or unsafe for replication by statements."""

_PROBE = "a\\'b\"%`\u65e5"
_UNKNOWN_SESSION = 1094
_MOST_WARNINGS = 3


def pymysql() -> Any:
    """The client. Raises ExtraMissing."""
    try:
        import pymysql as client
    except ImportError as error:
        raise ExtraMissing("MySQL needs PyMySQL.", next_step="pip install 'onefold[mysql]'") from error
    return client


class Session:
    """A connection in autocommit, READ COMMITTED. Every verb raises the client's errors.

    is_mariadb, version, exact (the collation under which texts are equal only when their bytes are), packet_bytes (the
    longest statement), folds_names (names of tables are compared without case) are the server's.
    """

    def __init__(self, client: Any, connection: Any) -> None:
        self._client = client
        self._connection = connection
        self.is_mariadb = False
        self.version: tuple[int, ...] = ()
        self.exact = ""
        self.packet_bytes = 0
        self.folds_names = False

    @classmethod
    def begin(cls, client: Any, arguments: Mapping[str, Any], label: str) -> Self:
        """Connect and set everything up. Raises SinkRefused for a server that is too old or does not listen."""
        flags = client.constants.CLIENT.FOUND_ROWS  # an update counts the rows that it found
        connection = client.connect(**arguments, charset="utf8mb4", autocommit=True, client_flag=flags)
        session = cls(client, connection)
        try:
            session._set_up(label)
        except BaseException:
            session.close()
            raise
        return session

    def execute(self, sql: str | bytes | memoryview, values: Sequence[Any] | None = None) -> Any:
        """A cursor with the answer. values: take the places of %s, where a % itself is doubled."""
        cursor = self._connection.cursor()
        cursor.execute(bytes(sql) if isinstance(sql, memoryview) else sql, values)
        return cursor

    def write(self, sql: str | bytes, *, label: str, sink: str) -> Any:
        """Execute what writes rows, and take a warning for a refusal. Raises RowsRefused.

        Even a strict server cuts trailing spaces and digits off with a note, and goes on.
        """
        cursor = self.execute(sql)
        if cursor.warning_count:
            found = [row for row in self.execute("SHOW WARNINGS").fetchall() if row[1] not in HARMLESS]
            if found:
                words = "; ".join(f"{text} ({code})" for _, code, text in found[:_MOST_WARNINGS])
                raise RowsRefused(f"{label} would change values.", found=words, sink=sink)
        return cursor

    def number(self) -> int:
        """The server's number of this connection."""
        return int(self.execute("SELECT connection_id()").fetchone()[0])

    def kill(self, number: int) -> None:
        """End another connection, unless it has ended."""
        try:
            self.execute(f"KILL CONNECTION {number}")
        except self._client.Error as error:
            if error.args[0] != _UNKNOWN_SESSION:
                raise

    def close(self) -> None:
        """Hang up: what was not committed is forgotten."""
        with contextlib.suppress(self._client.Error, OSError):
            self._connection.close()

    def _set_up(self, label: str) -> None:
        version, packet, folding = self.execute(
            "SELECT version(), @@max_allowed_packet, @@lower_case_table_names"
        ).fetchone()
        self.is_mariadb, self.packet_bytes, self.folds_names = "mariadb" in version.lower(), packet, folding != 0
        self.exact = "utf8mb4_nopad_bin" if self.is_mariadb else "utf8mb4_0900_bin"
        self.version = tuple(map(int, re.findall(r"\d+", version)[:3]))
        if self.version < (OLDEST_MARIADB if self.is_mariadb else OLDEST_MYSQL):
            raise SinkRefused(f"{label} is too old.", found=version, expected="MySQL 8.0.19, MariaDB 10.6, or later")
        wanted = {**SETTINGS, **(OF_MARIADB if self.is_mariadb else {})}
        self.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        self.execute("SET " + ", ".join(f"SESSION {name} = {value}" for name, value in wanted.items()))
        if self.execute("SELECT %s", [_PROBE]).fetchone() != (_PROBE,):
            raise SinkRefused(f"{label} does not read texts as it was told to: is there a proxy that changes them?")


def end_sessions_of(session: Session, name: str) -> None:
    """Hang up on the other session of this name: an earlier instance may sleep on its locks for ever.

    The name is a lock that a session of ours holds as long as it lives. Who holds it is asked in the session that
    kills: connection numbers are counted anew when a server starts, and this session would not outlive that.
    When it returns, the name is this session's, and what the other was committing is committed or not.
    """
    if _take(session, name, seconds=0):
        return
    holder = session.execute("SELECT is_used_lock(%s)", [name]).fetchone()[0]
    if holder is not None:
        session.kill(int(holder))
    if not _take(session, name, seconds=LOCK_SECONDS):
        raise SinkUnavailable(
            "A session of an earlier instance does not end.",
            found=f"connection {holder} holds the lock {name!r} for more than {LOCK_SECONDS} s",
            next_step=f"onefold tries again by itself. If this goes on: KILL CONNECTION {holder}.",
        )


def _take(session: Session, name: str, *, seconds: int) -> bool:
    row = session.execute("SELECT get_lock(%s, %s)", [name, seconds]).fetchone()
    return bool(row[0] == 1)
