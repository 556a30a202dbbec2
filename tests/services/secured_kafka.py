"""A secured broker for the tests of a worker: its users, grants, topics and tokens. Imports nothing of onefold."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from services.secured import SecuredBroker

MARKER = "pAssw0rd-that-nobody-may-see"
"""In every secret of these tests, right ones and wrong ones."""

PASSWORDS = {"alice": f"{MARKER}-alice"}
CLIENT_SECRET = f"{MARKER}-client"

Grant = tuple[str, str, str]
"""(topic | group | transactional_id, a name or a prefix that ends with *, operation)."""

_numbers = count(1)


def token_for(user: str, seconds: float = 300) -> tuple[str, float]:
    """An unsecured token, which this broker takes, and when it is over."""
    over = time.time() + seconds
    head, body = ({"alg": "none"}, {"sub": user, "iat": time.time(), "exp": over, "scope": "kafka", "marker": MARKER})
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, body))
    return ".".join(parts) + ".", over


class World:
    """What the tests do around the flows, by the listener on which everybody may do everything."""

    def __init__(self, broker: SecuredBroker) -> None:
        self.broker = broker
        self._settings = {"bootstrap.servers": broker.address, "log_level": "0"}
        self._admin = AdminClient(self._settings)
        self.certificate, self.key = broker.authority.issue("alice")
        self.locked_certificate, self.locked_key = broker.authority.issue("locked", password=MARKER)

    def topic(self, name: str, **configs: str) -> str:
        """A new topic of one partition; its name begins so."""
        full = f"{name}-{next(_numbers)}"
        for made in self._admin.create_topics([NewTopic(full, 1, 1, config=configs)]).values():
            made.result(30)
        return full

    def limit(self, topic: str, size_bytes: int) -> None:
        """Set its max.message.bytes."""
        entry = ConfigEntry("max.message.bytes", str(size_bytes), incremental_operation=AlterConfigOpType.SET)
        asked = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for changed in self._admin.incremental_alter_configs([asked]).values():
            changed.result(30)

    def feed(self, topic: str, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows as JSON, acknowledged."""
        producer = Producer({**self._settings, "message.max.bytes": "20000000"})
        for row in rows:
            producer.produce(topic, json.dumps(row).encode())
        if producer.flush(30):
            raise TimeoutError("the rows were not taken")

    def rows(self, topic: str) -> list[dict[str, Any]]:
        """What is committed."""
        consumer = Consumer({**self._settings, "group.id": "judge", "enable.partition.eof": "true"})
        consumer.assign([TopicPartition(topic, 0, 0)])
        found = []
        while (message := consumer.poll(30)) is not None and not message.error():
            found.append(json.loads(message.value()))
        consumer.close()
        return found

    def grant(self, user: str, *grants: Grant) -> None:
        """Allow, and wait until the broker has heard of it."""
        wanted = [_binding(user, grant) for grant in grants]
        for made in self._admin.create_acls(wanted).values():
            made.result(30)
        everything = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, f"User:{user}", None, AclOperation.ANY,
            AclPermissionType.ANY,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while not set(wanted) <= set(self._admin.describe_acls(everything).result(30)):
            if time.monotonic() > deadline:
                raise TimeoutError("the broker does not know what was granted")


def _binding(user: str, grant: Grant) -> AclBinding:
    kind, name, operation = grant
    pattern = ResourcePatternType.PREFIXED if name.endswith("*") else ResourcePatternType.LITERAL
    return AclBinding(
        ResourceType[kind.upper()], name.rstrip("*"), pattern, f"User:{user}", "*", AclOperation[operation],
        AclPermissionType.ALLOW,
    )  # fmt: skip


def needed(flow: str, topic: str, out: str) -> dict[str, Grant]:
    """What docs/how-to/secured-kafka.md says that a flow needs which reads `in` from one topic and writes `out` to
    another, each by what it is for."""
    return {
        "read": ("topic", topic, "READ"),
        "lag": ("group", f"onefold.{flow}.in", "READ"),
        "write": ("topic", out, "WRITE"),
        "token": ("topic", out, "READ"),
        "token group": ("group", f"onefold.token.{flow}.0.out", "READ"),
        "owners group": ("group", f"onefold.owners.{out}", "READ"),
        "transactional id": ("transactional_id", f"onefold.{flow}.0.out", "WRITE"),
    }


@contextmanager
def token_endpoint() -> Iterator[str]:
    """The URL of an endpoint of OpenID Connect that knows one client, whose tokens are alice's."""
    right = base64.b64encode(f"client:{CLIENT_SECRET}".encode()).decode()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            knows = self.headers.get("Authorization") == f"Basic {right}"
            answer = {"access_token": token_for("alice")[0], "token_type": "bearer", "expires_in": 300}
            body = json.dumps(answer if knows else {"error": "invalid_client", "error_description": "no"}).encode()
            self.send_response(200 if knows else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
