"""`of.postgres(url)`: which server, as whom, and what every session of ours has set.

Nothing here connects before it is asked to. A password never leaves the client's own argument.
Source: PostgreSQL's documentation, chapters Connection Strings and Client Connection Defaults.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from onefold.connectors.databases import hidden, without_password
from onefold.errors import (
    BuildError,
    ExtraMissing,
    SettingMissing,
    SinkRefused,
    SinkUnavailable,
    SourceRefused,
    SourceUnavailable,
)
from onefold.settings import names_in, resolve, show

__all__ = [
    "Server",
    "acknowledge_when_durable",
    "end_sessions_of",
    "liveness",
    "may_pass",
    "psycopg",
    "session_options",
]

LIVENESS = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 40_000,
}
"""A server that vanished without a word is noticed within a minute. libpq's names and units; a URL may say others."""

LOCK_SECONDS = 30
"""How long a statement waits for a lock of somebody else before the sink counts as unavailable."""

ENDING_SECONDS = 10
"""How long a session that is told to end may take; what it still holds then, the lock on the token's row waits for."""

SCHEMES = ("postgresql", "postgres")

_HOPELESS = {
    "28P01": "the password is wrong",
    "28000": "the server does not let this user in",
    "3D000": "there is no such database",
    "42501": "this user lacks a permission",
    "3F000": "there is no such schema",
}
"""SQLSTATEs that no later try mends."""


_PASSING = ("08", "25", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that a later try may mend: connections, conflicts, resources, an operator's doing, disks."""


def may_pass(error: Any) -> bool:
    """Whether a later try may mend an error of the client's; one without SQLSTATE: the connection is gone, or a bug.

    Internal errors pass as well: the server says so of a table that is dropped or altered at this moment.
    """
    state = str(error.sqlstate or "")
    return not state or state[:2] in _PASSING or state == "XX000"


def psycopg() -> Any:
    """The client. Raises ExtraMissing."""
    try:
        import psycopg as client
    except ImportError as error:
        raise ExtraMissing("PostgreSQL needs psycopg.", next_step="pip install 'onefold[postgres]'") from error
    return client


@dataclass(frozen=True)
class Server:
    """A database of a server.

    url: postgresql://user:password@host:port/database?options, as libpq knows it; may hold ${NAME}. tokens: the schema
    of the table of tokens, which is made when it is missing. A schema that is named as the user is would be where that
    user's unqualified names lead, so the usual one has a name that nobody has.
    """

    url: str = field(repr=False)
    tokens: str = "_onefold"

    def __post_init__(self) -> None:
        if not isinstance(self.url, str) or not self.url.strip():
            raise BuildError(
                "Which database?", found=repr(self.url), expected='for instance "postgresql://user@host/db"'
            )
        if not names_in(self.url) and urlsplit(self.url).scheme not in SCHEMES:
            raise BuildError(
                "This is no URL of PostgreSQL.",
                found=self.label,
                expected="postgresql://user:password@host:port/database",
            )

    @property
    def label(self) -> str:
        """postgres(url), references unexpanded, without a password that was written out."""
        return f"postgres({without_password(show(self.url))})"

    @property
    def target(self) -> str:
        """Names the database in a sink's fingerprint: host, port and database, or the text that refers to them.

        Of several hosts (a primary and its standbys): all of them.
        """
        if names_in(self.url):
            return show(self.url)
        parts = urlsplit(self.url)
        hosts = parts.netloc.rpartition("@")[2].lower()
        if "," in hosts:
            return f"{hosts}{parts.path}"
        return f"{parts.hostname or ''}:{parts.port or 5432}{parts.path}"

    @property
    def user(self) -> str:
        """As the URL says; "" when it says none, or is a text that refers to it."""
        return "" if names_in(self.url) else unquote(urlsplit(self.url).username or "")

    @contextlib.contextmanager
    def session(self, error: type[SinkUnavailable | SourceUnavailable]) -> Iterator[Any]:
        """A psycopg connection in autocommit. Raises `error`, or SinkRefused or SourceRefused when trying again is
        useless, SettingMissing."""
        connection = self.connect(error)
        try:
            yield connection
        finally:
            connection.close()

    def connect(self, error: type[SinkUnavailable | SourceUnavailable], *, name: str = "onefold") -> Any:
        """See `session`; the caller closes it. name: how the server's views name the session."""
        client = psycopg()
        url = resolve(self.url, used_in=self.label)
        try:
            return client.connect(
                url,
                autocommit=True,
                prepare_threshold=None,
                client_encoding="utf8",
                application_name=name,
                options=session_options(),
                **liveness(url),
            )
        except client.ProgrammingError as found:
            refused = SinkRefused if error is SinkUnavailable else SourceRefused
            raise refused(f"{self.label} is no URL that libpq takes.", found=self.clean(str(found))) from None
        except client.Error as found:
            raise self.failure(found, error) from None

    def failure(self, found: Any, error: type[SinkUnavailable | SourceUnavailable], **where: Any) -> Exception:
        """What to raise for an error of the client that happened before anything could have landed.

        What the client itself finds wrong with a statement is a bug of ours, and no server is away: the error itself.
        A source is refused what no later try mends; what such an error means for a sink depends on its table.
        """
        if found.sqlstate is None and isinstance(found, psycopg().ProgrammingError):
            return found  # type: ignore[no-any-return]
        why = _HOPELESS.get(str(found.sqlstate)) or next(
            (text for text in _HOPELESS.values() if found.sqlstate is None and _says(found, text)), None
        )
        refused = SinkRefused if error is SinkUnavailable else SourceRefused
        if why is not None:
            return refused(f"{self.label} cannot be used: {why}.", found=self.clean(str(found)), **where)
        if error is SourceUnavailable and not may_pass(found):
            told = f"{self.clean(str(found))} ({found.sqlstate})"
            next_step = "Look at what the message names, such as a table or a setting of the server; then run again."
            return SourceRefused(f"{self.label} cannot be read so.", found=told, next_step=next_step, **where)
        return error(f"{self.label} does not answer.", found=self.clean(str(found)), **where)

    def clean(self, text: str) -> str:
        """A text of the client's without the password, should it hold one."""
        with contextlib.suppress(SettingMissing, ValueError):
            password = urlsplit(resolve(self.url)).password
            for form in (password, unquote(password)) if password else ():
                text = hidden(text, form)
        return text.strip()


def acknowledge_when_durable(connection: Any) -> None:
    """Have commits answered when they are on the disk, should the server be set to answer before."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )


def end_sessions_of(connection: Any, *names: str) -> None:
    """Hang up on every other session of these names and this user, and wait until they have ended.

    An earlier instance may sleep on its locks for ever. What it was committing or preparing is then done or not.
    """
    connection.execute(
        "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE application_name = ANY(%s) "
        "AND usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()",
        [ENDING_SECONDS * 1000, list(names)],
    )


def liveness(url: str) -> dict[str, int]:
    """What a connection needs besides, so that a server that vanished is noticed: what the URL does not say."""
    query = urlsplit(url).query
    return {option: value for option, value in LIVENESS.items() if f"{option}=" not in query}


_FATAL_TEXTS = {
    "the password is wrong": "password authentication failed",
    "the server does not let this user in": "no pg_hba.conf entry",
    "there is no such database": "does not exist",
}


def _says(found: Any, why: str) -> bool:
    """Errors of connecting have no SQLSTATE in libpq, only the server's text."""
    text = _FATAL_TEXTS.get(why)
    return text is not None and "FATAL" in str(found) and text in str(found)


def session_options() -> str:
    """The same sums and texts for everybody, durable commits, no wait for ever, and no rows that a policy hides: what
    it would hide from a DELETE or a MERGE is an error instead."""
    wanted = {
        "TimeZone": "UTC",
        "DateStyle": "ISO",
        "IntervalStyle": "iso_8601",
        "extra_float_digits": "1",
        "bytea_output": "hex",
        "default_transaction_isolation": "read\\ committed",
        "default_transaction_read_only": "off",
        "row_security": "off",
        "lock_timeout": f"{LOCK_SECONDS}s",
        "statement_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
    }
    return " ".join(f"-c {name}={value}" for name, value in wanted.items())
