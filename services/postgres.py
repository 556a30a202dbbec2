"""PostgreSQL: one server on loopback, which can be killed and started again.

Source: PostgreSQL's documentation, chapters Server Setup and Operation, Server Configuration, and Database Physical
Storage (postmaster.pid).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from services.jars import ServiceMissing
from services.process import Server, free_port

__all__ = ["VARIABLE", "Postgres", "Standby", "forget", "running"]

VARIABLE = "ONEFOLD_POSTGRES"
"""Names the database of a server to use instead: postgresql://user:password@host[:port]/database. It needs
wal_level = logical and max_prepared_transactions above 0."""

USER, PASSWORD, DATABASE = "onefold", "one@fold", "onefold"
"""The user may do everything. A password whose sign must be quoted in a URL: who forgets it notices."""

PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
"""Where the programs are when they are not on the PATH: Debian's, Red Hat's, Homebrew's two."""

SMALL = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_prepared_transactions": "64",
    "max_connections": "50",
    "shared_buffers": "16MB",
    # Its files go with the folder. Those of the system's own memory file system stay when a server is killed.
    "dynamic_shared_memory_type": "mmap",
}

PID_FILE = "postmaster.pid"
_MEMORY_LINE, _STATUS_LINE = 6, 7


class Postgres(Server):
    """A server of our own; a context manager. Its data go with it.

    Args:
        settings: by name, beside those that make it small. fsync is on, as a server has it that is meant to be killed.
        port: 0: a free one. It stays the same over restarts.
    """

    PLACE = "postgres"
    STOP = signal.SIGINT
    USERS = ("postgres", "nobody")

    def __init__(self, settings: Mapping[str, str] | None = None, *, port: int = 0) -> None:
        super().__init__()
        self._settings = dict(settings or {})
        self._port = port or free_port()

    @property
    def url(self) -> str:
        """Of the database `onefold`, with user and password."""
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self._port}/{DATABASE}"

    def start(self) -> None:
        """Start it, and wait until it answers. Raises ServiceMissing.

        The pid file of a killed server holds a number that may be another process's by now, and the server would not
        start. Its parent's number is never held against it. The file stays: it names the shared memory by which the
        server notices that some process of its last life is still there, and refuses.
        """
        lines = _lines(self._pid_file)
        if lines:
            self._pid_file.write_text("\n".join([str(os.getpid()), *lines[1:], ""]))
        super().start()

    def _make(self) -> None:
        password = self._path / "password"
        password.write_text(f"{PASSWORD}\n")
        who = ["--username", USER, "--pwfile", str(password), "--auth", "scram-sha-256"]
        # What initdb writes need not survive the machine: it is killed processes that are tested.
        what = ["--encoding", "UTF8", "--no-locale", "--no-sync"]
        self._tool("initdb", [_program("initdb"), "-D", str(self._storage), *who, *what])
        settings = {"port": str(self._port), **SMALL, **self._settings}
        with (self._storage / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{_quoted(value)}'\n" for name, value in settings.items())
        alone = [_program("postgres"), "--single", "-D", str(self._storage), "postgres"]
        self._tool("postgres --single", alone, stdin=f"CREATE DATABASE {DATABASE};\n")

    def _command(self) -> Sequence[str]:
        return [_program("postgres"), "-D", str(self._storage)]

    def _answers(self) -> bool:
        """As pg_ctl finds out: the port alone is open while it still recovers."""
        lines = _lines(self._pid_file)
        is_ours = self._process is not None and lines[:1] == [str(self._process.pid)]
        return is_ours and [line.strip() for line in lines[_STATUS_LINE:]] in (["ready"], ["standby"])

    def _forget(self) -> None:
        forget(self._storage)

    @property
    def _storage(self) -> Path:
        return self._path / "data"

    @property
    def _pid_file(self) -> Path:
        return self._storage / PID_FILE


class Standby(Postgres):
    """A server that follows another one by streaming, until it is promoted.

    Source: PostgreSQL's documentation, chapter Log-Shipping Standby Servers, and the page pg_basebackup.
    """

    PLACE = "postgres-standby"

    def __init__(self, primary: Postgres) -> None:
        super().__init__()
        self._primary = primary

    def _make(self) -> None:
        how = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        self._tool(
            "pg_basebackup", [_program("pg_basebackup"), "-D", str(self._storage), "-d", self._primary.url, *how]
        )
        with (self._storage / "postgresql.conf").open("a") as file:
            file.write(f"port = '{self._port}'\n")

    def promote(self) -> None:
        """It takes over: from now on it takes writes."""
        self._tool("pg_ctl promote", [_program("pg_ctl"), "promote", "-w", "-D", str(self._storage)])


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The URL of a database: the one in ONEFOLD_POSTGRES, else one of a server of our own while the block runs."""
    named = os.environ.get(VARIABLE)
    if named:
        yield named
        return
    with Postgres() as server:
        yield server.url


def forget(storage: Path) -> None:
    """The small piece of shared memory of a server that was killed and does not come back. Nobody else removes it."""
    memory = _lines(storage / PID_FILE)[_MEMORY_LINE : _MEMORY_LINE + 1]
    if memory and memory[0].split():
        remove = ["ipcrm", "-m", memory[0].split()[-1]]
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(remove, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().splitlines()
    return []


def _program(name: str) -> str:
    """The path of a program of the server; all from one folder. Raises ServiceMissing."""
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted((found for place in PLACES for found in Path("/").glob(place[1:])), key=_version, reverse=True)
    for folder in folders:
        if all(os.access(folder / each, os.X_OK) for each in ("initdb", "postgres")):
            return str(folder / name)
    raise ServiceMissing(f"no PostgreSQL server: install the package postgresql, or name a database in {VARIABLE}")


def _version(folder: Path) -> int:
    return int("".join(re.findall(r"\d+", f"{folder}")) or 0)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
