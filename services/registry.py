"""Apicurio Registry on loopback, which speaks the REST interface of Confluent's Schema Registry. Keeps all in memory.

Its schemas go with it; it needs no broker. Source: Apicurio Registry 2.6 documentation, "Confluent compatibility".
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self

from services.jars import FOLDER, ServiceMissing, java, unpacked
from services.kafka import free_port

VARIABLE = "ONEFOLD_SCHEMA_REGISTRY"
"""Names the address of a registry to use instead: http://host:port[/path]."""

ARTIFACT = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
START_SECONDS = 90.0
_PATH = "/apis/ccompat/v7"
_JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class RegistryServer:
    """A registry of our own; a context manager. port: 0: a free one."""

    def __init__(self, *, port: int = 0) -> None:
        self._port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def address(self) -> str:
        """Of its Confluent-compatible interface."""
        return f"http://127.0.0.1:{self._port}{_PATH}"

    def start(self) -> None:
        """Start it, and wait until it answers. Raises ServiceMissing."""
        folder = unpacked(ARTIFACT)
        jar = next(folder.glob("*-runner.jar"), None)
        if jar is None:
            raise ServiceMissing(f"no registry in {folder}")
        self._log = tempfile.TemporaryFile(prefix="registry-", dir=FOLDER)  # noqa: SIM115 - closed by kill
        where = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self._port}"]
        self._process = subprocess.Popen(
            [java(), *_JVM, *where, "-jar", jar.name],
            cwd=folder, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.address):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                text = self._log.read().decode("utf-8", "replace")[-3000:]
                self.kill()
                raise ServiceMissing(f"the registry did not start: {text}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL. Its schemas are gone."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of a registry: the one in ONEFOLD_SCHEMA_REGISTRY, else one of our own while the block runs."""
    named = os.environ.get(VARIABLE)
    if named:
        yield named
        return
    with RegistryServer() as server:
        yield server.address


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/subjects", timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
