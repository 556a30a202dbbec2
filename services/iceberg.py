"""Apache Iceberg's REST catalog on loopback, which can be killed and started again.

It is the one that Iceberg tests its own clients against: its reference for the protocol, over a database of SQLite.
Tables are folders beside that. Source: apache/iceberg, core/src/test/java/org/apache/iceberg/rest; Jetty's
documentation, Jetty XML.
"""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from services import jars
from services.jars import java
from services.process import Server, free_port

__all__ = ["VARIABLE", "IcebergCatalog", "running"]

VARIABLE = "ONEFOLD_ICEBERG_REST"
"""Names the address of a catalog to use instead: http://host:port. It makes tables where we can write."""

POM = Path(__file__).with_name("iceberg-pom.xml")
SETTINGS = Path(__file__).with_name("iceberg-jetty.xml")
_JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class IcebergCatalog(Server):
    """A catalog of our own; a context manager. Its tables go with it. port: 0: a free one."""

    PLACE = "iceberg"
    NAME = "catalog"

    def __init__(self, *, port: int = 0) -> None:
        super().__init__()
        self._port = port or free_port()

    @property
    def address(self) -> str:
        """Of its REST interface."""
        return f"http://127.0.0.1:{self._port}"

    def _make(self) -> None:
        (self._path / "warehouse").mkdir()

    def _command(self) -> Sequence[str]:
        given = [f"port={self._port}", f"folder={self._path}"]
        start = "org.eclipse.jetty.xml.XmlConfiguration"
        return [java(), *_JVM, "-cp", f"{jars.of_pom(POM)}/*", start, *given, str(SETTINGS)]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/v1/config", timeout=2.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of a catalog: the one in ONEFOLD_ICEBERG_REST, else one of our own while the block runs."""
    named = os.environ.get(VARIABLE)
    if named:
        yield named
        return
    with IcebergCatalog() as server:
        yield server.address
