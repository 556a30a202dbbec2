"""`of.mysql(url)`: which server, as whom, and what every session of ours has set.

Nothing here connects before it is asked to. A password never leaves the client's own argument.
Source: MySQL's reference manual, chapters Server System Variables, Server SQL Modes, and Connecting Using URI-Like
Strings; MariaDB's, Differences Between MariaDB and MySQL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from onefold.connectors.databases import hidden, without_password
from onefold.connectors.mysql.session import Session, pymysql
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

__all__ = ["Server"]

CONNECT_SECONDS = 10
PORT = 3306
SCHEMES = ("mysql", "mariadb")
EXPECTED = "mysql://user:password@host:port/database"

TLS = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
OPTIONS = ("ssl_mode", "ssl_ca", "ssl_cert", "ssl_key", "unix_socket")

_HOPELESS = {
    1044: "this user may not use the database",
    1045: "user name or password is wrong",
    1049: "there is no such database",
    1095: "this user may not end a session of an earlier instance",
    1130: "the server does not let this host in",
    1142: "this user lacks a permission",
    1143: "this user lacks a permission",
    1227: "this user lacks a permission",
    1251: "the server wants a way to log in that the client does not know",
    1665: "its binary log is kept by statements, which forbids READ COMMITTED",
    1698: "user name or password is wrong",
    1820: "the password has expired",
    1862: "the password has expired",
    3118: "the account is locked",
    4151: "the account is locked",
}
"""Errors that no later try mends."""


@dataclass(frozen=True)
class Server:
    """A database of a server.

    url: mysql://user:password@host:port/database?options; may hold ${NAME}. tokens: the database of the table of
    tokens, which is made when it is missing; None: the URL's.
    """

    url: str = field(repr=False)
    tokens: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.url, str) or not self.url.strip():
            raise BuildError("Which database?", found=repr(self.url), expected=f'for instance "{EXPECTED}"')
        if not names_in(self.url):
            self._arguments()

    @property
    def label(self) -> str:
        """mysql(url), references unexpanded, without a password that was written out."""
        return f"mysql({without_password(show(self.url))})"

    @property
    def target(self) -> str:
        """Names the database in a sink's fingerprint: host, port and database, or the text that refers to them."""
        if names_in(self.url):
            return show(self.url)
        parts = urlsplit(self.url)
        return f"{parts.hostname or ''}:{parts.port or PORT}{parts.path}"

    @property
    def database(self) -> str:
        """The database of the URL. Raises BuildError, SettingMissing."""
        return str(self._arguments()["database"])

    @contextlib.contextmanager
    def session(self, error: type[SinkUnavailable | SourceUnavailable]) -> Iterator[Session]:
        """A session in autocommit. Raises `error`, or SinkRefused or SourceRefused when trying again is useless,
        SettingMissing."""
        session = self.connect(error)
        try:
            yield session
        finally:
            session.close()

    def connect(self, error: type[SinkUnavailable | SourceUnavailable]) -> Session:
        """See `session`; the caller closes it."""
        client = pymysql()
        arguments = self._arguments()
        try:
            return Session.begin(client, {**arguments, "connect_timeout": CONNECT_SECONDS}, self.label)
        except client.Error as found:
            raise self.failure(found, error) from None
        except RuntimeError as found:  # PyMySQL's word for a package that it needs to log in
            next_step = "pip install 'onefold[mysql]'"
            raise ExtraMissing(f"{self.label} needs another package.", found=str(found), next_step=next_step) from None

    def failure(self, found: Any, error: type[SinkUnavailable | SourceUnavailable], **where: Any) -> Exception:
        """What to raise for an error of the client that happened before anything could have landed."""
        why = _HOPELESS.get(found.args[0] if found.args else 0)
        refused = SinkRefused if error is SinkUnavailable else SourceRefused
        if why is not None:
            return refused(f"{self.label} cannot be used: {why}.", found=self.clean(said(found)), **where)
        return error(f"{self.label} does not answer.", found=self.clean(said(found)), **where)

    def clean(self, text: str) -> str:
        """A text of the client's without the password, should it hold one."""
        with contextlib.suppress(SettingMissing, ValueError):
            password = urlsplit(resolve(self.url)).password
            for form in (password, unquote(password)) if password else ():
                text = hidden(text, form)
        return text.strip()

    def _arguments(self) -> dict[str, Any]:
        """The client's arguments. Raises BuildError for a URL that is none, SettingMissing."""
        try:
            parts = urlsplit(resolve(self.url, used_in=self.label))
            port = parts.port or PORT
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:
            raise self._no_url() from None
        database = unquote(parts.path.removeprefix("/"))
        if parts.scheme not in SCHEMES or not database or "/" in parts.path.removeprefix("/"):
            raise self._no_url()
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise BuildError(f"{self.label} has options unknown here.", found=unknown, expected=", ".join(OPTIONS))
        arguments: dict[str, Any] = {
            "host": parts.hostname or "localhost",
            "port": port,
            "user": unquote(parts.username or ""),
            # As text it would be sent in Latin-1.
            "password": unquote(parts.password or "").encode(),
            "database": database,
            **self._tls(options),
        }
        return arguments | ({"unix_socket": options["unix_socket"]} if "unix_socket" in options else {})

    def _tls(self, options: Mapping[str, str]) -> dict[str, Any]:
        """As MySQL's own clients take ssl-mode and its companions."""
        mode = options.get("ssl_mode", "VERIFY_CA" if "ssl_ca" in options else "PREFERRED").upper()
        if mode not in TLS:
            raise BuildError(f"{self.label} has a wrong ssl_mode.", found=mode, expected=", ".join(TLS))
        if mode == "DISABLED":
            return {"ssl_disabled": True}
        files = {name: options[f"ssl_{name}"] for name in ("ca", "cert", "key") if f"ssl_{name}" in options}
        if mode == "PREFERRED" and not files:
            return {}
        is_verified = mode in ("VERIFY_CA", "VERIFY_IDENTITY")
        if is_verified and "ca" not in files:
            raise BuildError(f"{self.label} verifies the server, and has nothing to do it by.", expected="ssl_ca=FILE")
        return {"ssl": {**files, "verify_mode": is_verified, "check_hostname": mode == "VERIFY_IDENTITY"}}

    def _no_url(self) -> BuildError:
        return BuildError("This is no URL of MySQL or MariaDB.", found=self.label, expected=EXPECTED)


def said(error: Any) -> str:
    """The server's or the client's words, with its number."""
    return f"{error.args[1]} ({error.args[0]})" if len(error.args) > 1 else str(error)
