"""Apicurio Registry on loopback, which speaks the REST interface of Confluent's Schema Registry. Keeps all in memory.

Its schemas go with it; it needs no broker. Source: Apicurio Registry 2.6 documentation, "Confluent compatibility".
"""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

from services.jars import ServiceMissing, java, unpacked
from services.process import Server, free_port

VARIABLE = "ONEFOLD_SCHEMA_REGISTRY"
"""Names the address of a registry to use instead: http://host:port[/path]."""

ARTIFACT = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
_PATH = "/apis/ccompat/v7"
_JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class RegistryServer(Server):
    """A registry of our own; a context manager. Its schemas are gone when it ends. port: 0: a free one."""

    PLACE = "registry"
    START_SECONDS = 90.0

    def __init__(self, *, port: int = 0) -> None:
        super().__init__()
        self._port = port or free_port()

    @property
    def address(self) -> str:
        """Of its Confluent-compatible interface."""
        return f"http://127.0.0.1:{self._port}{_PATH}"

    def _make(self) -> None:
        """Nothing: it keeps all in memory."""

    def _command(self) -> Sequence[str]:
        folder = unpacked(ARTIFACT)
        jar = next(folder.glob("*-runner.jar"), None)
        if jar is None:
            raise ServiceMissing(f"no registry in {folder}")
        where = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self._port}"]
        return [java(), *_JVM, *where, "-jar", str(jar)]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/subjects", timeout=2.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of a registry: the one in ONEFOLD_SCHEMA_REGISTRY, else one of our own while the block runs."""
    named = os.environ.get(VARIABLE)
    if named:
        yield named
        return
    with RegistryServer() as server:
        yield server.address
