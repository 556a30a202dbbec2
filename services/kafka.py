"""Apache Kafka in KRaft mode: one broker on loopback, which can be killed and started again.

Source: Apache Kafka's documentation, chapters KRaft and Broker Configs.
"""

from __future__ import annotations

import base64
import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from services import jars
from services.jars import java
from services.process import Server, answers, free_port

__all__ = ["VARIABLE", "Broker", "answers", "free_port", "running"]

VARIABLE = "ONEFOLD_KAFKA"
"""Names the brokers of a cluster to use instead: host:port[,host:port]."""

POM = Path(__file__).with_name("kafka-pom.xml")
_JVM = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class Broker(Server):
    """A broker of our own; a context manager. Its data go with it.

    Args:
        settings: broker settings by name, beside those that make it small.
        port: of the client listener; 0: a free one. It stays the same over restarts.
        proxy_port: of a proxy. Clients that come through it, to `port_behind_proxy`, are told its address instead.
        features: feature levels to format the storage with, such as {"transaction.version": 1}.
    """

    PLACE = "kafka"
    NAME = "broker"

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        port: int = 0,
        proxy_port: int | None = None,
        features: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self._settings = dict(settings or {})
        self._features = dict(features or {})
        self._proxy_port = proxy_port
        self.port_behind_proxy = free_port() if proxy_port else 0
        self._port, self._controller_port = port or free_port(), free_port()

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._port}"

    def folder_of(self, topic: str, partition: int) -> Path:
        """Where a partition's log lies."""
        return self._path / "data" / f"{topic}-{partition}"

    def more_settings(self) -> Mapping[str, str]:
        """Of a special broker; made when its folder is there."""
        return {}

    def _make(self) -> None:
        self._write_settings()
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        levels = [text for name, level in self._features.items() for text in ("--feature", f"{name}={level}")]
        format_it = ["format", f"--cluster-id={cluster}", "-c", str(self._file), *levels, *self._storage()]
        self._tool("kafka.tools.StorageTool", [*_java(), "kafka.tools.StorageTool", *format_it])

    def _command(self) -> Sequence[str]:
        return [*_java(), "kafka.Kafka", str(self._file)]

    def _answers(self) -> bool:
        return answers(self._port)

    def _storage(self) -> Sequence[str]:
        """Further arguments for the tool that makes its storage."""
        return ()

    @property
    def _file(self) -> Path:
        return self._path / "server.properties"

    def _write_settings(self) -> None:
        listeners = {"PLAINTEXT": (self._port, self._port)}
        if self._proxy_port:
            listeners["PROXIED"] = (self.port_behind_proxy, self._proxy_port)
        bound = [f"{name}://127.0.0.1:{port}" for name, (port, _) in listeners.items()]
        advertised = [f"{name}://127.0.0.1:{port}" for name, (_, port) in listeners.items()]
        protocols = [f"{name}:PLAINTEXT" for name in ("CONTROLLER", *listeners)]
        small = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": ",".join([*bound, f"CONTROLLER://127.0.0.1:{self._controller_port}"]),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(protocols),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self._path / "data"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "log.cleaner.dedupe.buffer.size": "2097152",
            "num.io.threads": "2",
            "num.network.threads": "2",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
        }
        lines = [f"{name}={value}\n" for name, value in {**small, **self.more_settings(), **self._settings}.items()]
        self._file.write_text("".join(lines))


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of a cluster: the one in ONEFOLD_KAFKA, else a broker of our own while the block runs."""
    named = os.environ.get(VARIABLE)
    if named:
        yield named
        return
    with Broker() as broker:
        yield broker.address


def _java() -> list[str]:
    return [java(), *_JVM, "-cp", f"{jars.of_pom(POM)}/*"]
