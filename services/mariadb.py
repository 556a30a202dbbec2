"""MariaDB: one server on loopback, which can be killed and started again.

Source: MariaDB's documentation, pages mariadbd Options, InnoDB System Variables, mariadb-install-db, and the protocol's
Initial Handshake Packet.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from services.jars import ServiceMissing
from services.process import Server, free_port

__all__ = ["VARIABLE", "MariaDB", "running"]

VARIABLE = "ONEFOLD_MARIADB"
"""Names the database of a server to use instead: mysql://user:password@host[:port]/database."""

USER, PASSWORD, DATABASE = "onefold", "one@fold", "onefold"
"""The user may do everything. A password whose sign must be quoted in a URL: who forgets it notices."""

PLACES = (
    "/usr/sbin",
    "/usr/libexec",
    "/usr/bin",
    "/opt/homebrew/opt/mariadb/bin",
    "/usr/local/opt/mariadb/bin",
)
"""Where the programs are when they are not on the PATH: Debian's, Red Hat's, Homebrew's two."""

SMALL = {
    "bind-address": "127.0.0.1",
    "skip-networking": "0",
    "skip-name-resolve": "1",
    # Below the folder of the data, where the server works: a socket's whole path has 107 bytes at most.
    "socket": "mariadb.sock",
    "pid-file": "mariadb.pid",
    "character-set-server": "utf8mb4",
    "max-connections": "50",
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "16M",
    "innodb-flush-log-at-trx-commit": "1",
}

GREETING_SECONDS = 1.0
_HEADER_BYTES, _PROTOCOL = 4, 10


class MariaDB(Server):
    """A server of our own; a context manager. Its data go with it.

    Args:
        settings: options of the server by name, beside those that make it small.
        port: 0: a free one. It stays the same over restarts.
    """

    PLACE = "mariadb"
    USERS = ("mysql", "nobody")

    def __init__(self, settings: Mapping[str, str] | None = None, *, port: int = 0) -> None:
        super().__init__()
        self._settings = dict(settings or {})
        self._port = port or free_port()
        self._is_new = True

    @property
    def url(self) -> str:
        """Of the database `onefold`, with user and password."""
        return f"mysql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self._port}/{DATABASE}"

    def start(self) -> None:
        """Start it, and wait until it answers. Raises ServiceMissing."""
        super().start()
        self._is_new = False

    def _make(self) -> None:
        self._is_new = True
        own = {"datadir": str(self._path / "data"), "tmpdir": str(self._path), "port": str(self._port)}
        settings = {**own, **SMALL, **self._settings}
        lines = ["[mysqld]\n", *(f"{name} = {value}\n" for name, value in settings.items())]
        self._options.write_text("".join(lines))
        self._first.write_text(
            f"CREATE DATABASE {DATABASE};\n"
            f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
        )
        install = [_program("mariadb-install-db", "mysql_install_db"), f"--defaults-file={self._options}"]
        self._tool("mariadb-install-db", [*install, "--skip-test-db"])

    def _command(self) -> Sequence[str]:
        first = [f"--init-file={self._first}"] if self._is_new else []
        return [_program("mariadbd", "mysqld"), f"--defaults-file={self._options}", *first]

    def _answers(self) -> bool:
        """The port alone is open before somebody serves it: the server speaks first."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), GREETING_SECONDS) as to:
            greeting = to.recv(_HEADER_BYTES + 1)
            return greeting[_HEADER_BYTES:] == bytes([_PROTOCOL])
        return False

    @property
    def _options(self) -> Path:
        return self._path / "server.cnf"

    @property
    def _first(self) -> Path:
        return self._path / "first.sql"


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The URL of a database: the one in ONEFOLD_MARIADB, else one of a server of our own while the block runs."""
    named = os.environ.get(VARIABLE)
    if named:
        yield named
        return
    with MariaDB() as server:
        yield server.url


def _program(*names: str) -> str:
    """The path of the first that is here. Raises ServiceMissing."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *PLACES])
    for name in names:
        found = shutil.which(name, path=places)
        if found:
            return found
    raise ServiceMissing(f"no MariaDB server: install the package mariadb-server, or name a database in {VARIABLE}")
