"""What the servers have in common: a folder of their own, and a process to start, kill and freeze, which ends with us.

A server that refuses to run as root runs as an unprivileged user when we are root.
"""

from __future__ import annotations

import abc
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from services import tied
from services.jars import FOLDER, ServiceMissing

STOP_SECONDS = 60.0
END_SECONDS = 30.0
LOG_TAIL_CHARACTERS = 3000
SERVER_PORTS = (15_000, 32_000)


class Server(abc.ABC):
    """A server of our own; a context manager. Its data go with it."""

    PLACE: ClassVar[str]
    """Of its folder, in the repository's ignored one."""

    NAME: ClassVar[str] = "server"
    """In messages, and of its files."""

    STOP: ClassVar[signal.Signals] = signal.SIGTERM
    """Asks it to end in good order."""

    START_SECONDS: ClassVar[float] = 60.0

    USERS: ClassVar[tuple[str, ...]] = ()
    """If it refuses to run as root: whom it runs as then, the first that this machine has."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._life: socket.socket | None = None
        self._watcher = 0
        self._user: User | None = None

    def __enter__(self) -> Self:
        self._user = User.instead_of_root(self.USERS)
        self._folder = self._new_folder()
        try:
            self._make()
            self.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def start(self) -> None:
        """Start it, and wait until it answers. Raises ServiceMissing."""
        command = self._command()
        self._life, other_end = socket.socketpair()
        with other_end, self._log.open("ab") as output:
            tie = [sys.executable, "-ES", tied.__file__, str(other_end.fileno()), str(self._user or "-")]
            self._process = subprocess.Popen(
                [*tie, *command],
                pass_fds=[other_end.fileno()], cwd=self._path, start_new_session=True,
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + self.START_SECONDS
        self._life.settimeout(self.START_SECONDS)
        with contextlib.suppress(TimeoutError):
            self._watcher = int(self._life.recv(20) or 0)
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failed("did not start")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, for all of its processes at once; they have ended when this returns. Its data stay."""
        process, self._process = self._process, None
        if process is not None:
            killed = tied.kill(process.pid, watcher=self._watcher) if process.poll() is None else []
            process.wait()
            deadline = time.monotonic() + END_SECONDS
            while tied.living().keys() & set(killed):
                if time.monotonic() > deadline:
                    raise ServiceMissing(f"{self.PLACE}: the {self.NAME} has been killed and does not end: {killed}")
                time.sleep(0.01)
        life, self._life = self._life, None
        if life is not None:
            life.close()

    def stop(self) -> None:
        """Let it end in good order, and wait. Raises ServiceMissing if it does not, and kills it then."""
        process = self._process
        if process is not None and process.poll() is None:
            self.thaw()
            os.kill(process.pid, self.STOP)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise self._failed(f"does not end after {self.STOP.name}") from None
        self.kill()

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and says nothing. It ends with us all the same."""
        if self._process is not None and self._process.poll() is None:
            tied.stop(self._process.pid, watcher=self._watcher)

    def thaw(self) -> None:
        """SIGCONT."""
        if self._process is not None and self._process.poll() is None:
            server = self._process.pid
            tied.send(signal.SIGCONT, [*tied.family(server, watcher=self._watcher), server])

    @abc.abstractmethod
    def _make(self) -> None:
        """Its settings and storage, in the folder that is there and empty. Raises ServiceMissing."""

    @abc.abstractmethod
    def _command(self) -> Sequence[str]:
        """The server's own process, in the foreground. Raises ServiceMissing."""

    @abc.abstractmethod
    def _answers(self) -> bool:
        """Whether it can be asked."""

    def _forget(self) -> None:  # noqa: B027 - most keep nothing
        """What it keeps outside its folder goes; it has ended, and the folder goes next."""

    @property
    def _path(self) -> Path:
        if self._folder is None:
            raise ServiceMissing(f"{self.PLACE}: a {self.NAME} is used inside its with block")
        return self._folder

    @property
    def _log(self) -> Path:
        return self._path / f"{self.NAME}.log"

    def _tool(self, name: str, command: Sequence[str], *, stdin: str = "") -> None:
        """Run a program to its end, as the server's user. Raises ServiceMissing."""
        user = self._user.of_process() if self._user else {}
        ran = subprocess.run(command, input=stdin, cwd=self._path, capture_output=True, text=True, check=False, **user)
        if ran.returncode:
            raise ServiceMissing(f"{name} failed: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")

    def _new_folder(self) -> Path:
        place = FOLDER / self.PLACE
        place.mkdir(parents=True, exist_ok=True)
        if self._user is None:
            return Path(tempfile.mkdtemp(prefix=f"{self.NAME}-", dir=place))
        if self._user.may_reach(place):
            made = Path(tempfile.mkdtemp(prefix=f"{self.NAME}-", dir=place))
        else:  # the repository is in a home that only its owner may enter
            made = Path(tempfile.mkdtemp(prefix=f"onefold-{self.PLACE}-"))
        os.chown(made, self._user.uid, self._user.gid)
        return made

    def _failed(self, what: str) -> ServiceMissing:
        text = self._log.read_text("utf-8", "replace")[-LOG_TAIL_CHARACTERS:]
        self.kill()
        return ServiceMissing(f"{self.PLACE}: the {self.NAME} {what}: {text}")

    def _leave(self) -> None:
        self.kill()
        if self._folder is not None:
            self._forget()
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class User:
    """Whom a server runs as."""

    uid: int
    gid: int

    @staticmethod
    def instead_of_root(names: Sequence[str]) -> User | None:
        """The first of them that is here, if we are root and there are any. Raises ServiceMissing."""
        if os.geteuid() != 0 or not names:
            return None
        for name in names:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return User(entry.pw_uid, entry.pw_gid)
        raise ServiceMissing(f"the server does not run as root, and there is no user {' or '.join(names)}")

    def may_reach(self, folder: Path) -> bool:
        """Whether it may enter the folder and all above it."""
        return all(self._may_enter(each.stat()) for each in (folder, *folder.parents))

    def of_process(self) -> dict[str, Any]:
        """Arguments of subprocess."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"

    def _may_enter(self, found: os.stat_result) -> bool:
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.gid:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)


def free_port() -> int:
    """A TCP port of loopback that nobody has now, and that no outgoing connection is given either.

    The system gives ports from 32768 (Linux) or 49152 (macOS) on to outgoing connections, also to one to that very
    port: a client that asks again and again for a server that is down can so be connected to itself, and the server
    finds its port taken when it comes back.
    """
    while True:
        port = random.randrange(*SERVER_PORTS)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as found:
        found.settimeout(1.0)
        return found.connect_ex(("127.0.0.1", port)) == 0
