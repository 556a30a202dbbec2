"""Apache Kafka in KRaft mode: one broker on loopback, which can be killed and started again.

Source: Apache Kafka's documentation, chapters KRaft and Broker Configs.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from services.jars import FOLDER, ServiceMissing, jars, java

VARIABLE = "ONEFOLD_KAFKA"
"""Names the brokers of a cluster to use instead: host:port[,host:port]."""

START_SECONDS = 60.0
SERVER_PORTS = (15_000, 32_000)
TIED = str(Path(__file__).with_name("tied.py"))
_JVM = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class Broker:
    """A broker of our own; a context manager. Its data go with it.

    Args:
        settings: broker settings by name, beside those that make it small.
        port: of the client listener; 0: a free one. It stays the same over restarts.
        proxy_port: of a proxy. Clients that come through it, to `port_behind_proxy`, are told its address instead.
        features: feature levels to format the storage with, such as {"transaction.version": 1}.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        port: int = 0,
        proxy_port: int | None = None,
        features: Mapping[str, int] | None = None,
    ) -> None:
        self._settings = dict(settings or {})
        self._features = dict(features or {})
        self._proxy_port = proxy_port
        self.port_behind_proxy = free_port() if proxy_port else 0
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._life: int | None = None
        self._port, self._controller_port = port or free_port(), free_port()

    def __enter__(self) -> Self:
        (FOLDER / "kafka").mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="broker-", dir=FOLDER / "kafka"))
        self._write_settings()
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        levels = [text for name, level in self._features.items() for text in ("--feature", f"{name}={level}")]
        format_it = ["format", f"--cluster-id={cluster}", "-c", str(self._file), *levels, *self._storage()]
        self._run("kafka.tools.StorageTool", *format_it)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers. Raises ServiceMissing."""
        log = self._path / "broker.log"
        command = [java(), *_JVM, "-cp", f"{jars()}/*", "kafka.Kafka", str(self._file)]
        read_end, self._life = os.pipe()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-ES", TIED, str(read_end), *command], pass_fds=[read_end],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        os.close(read_end)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = log.read_text("utf-8", "replace")[-3000:]
                self.kill()
                raise ServiceMissing(f"the broker did not start: {text}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL. Its data stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(signal.SIGTERM)

    def folder_of(self, topic: str, partition: int) -> Path:
        """Where a partition's log lies."""
        return self._path / "data" / f"{topic}-{partition}"

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and says nothing."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)

    @property
    def _path(self) -> Path:
        if self._folder is None:
            raise ServiceMissing("a broker is used inside its with block")
        return self._folder

    @property
    def _file(self) -> Path:
        return self._path / "server.properties"

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
            process.wait()
        life, self._life = self._life, None
        if life is not None:
            os.close(life)

    def more_settings(self) -> Mapping[str, str]:
        """Of a special broker; made when its folder is there."""
        return {}

    def _answers(self) -> bool:
        """Whether it can be asked."""
        return answers(self._port)

    def _storage(self) -> Sequence[str]:
        """Further arguments for the tool that makes its storage."""
        return ()

    def _run(self, main: str, *arguments: str) -> None:
        command = [java(), *_JVM, "-cp", f"{jars()}/*", main, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise ServiceMissing(f"{main} failed: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")

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
