"""`of.kafka(brokers, …)`: which cluster, who we are there, and which of the client's settings a user may change.

Nothing here connects. Texts may hold ${NAME}; they are read when the flow runs, and no value of theirs is ever shown.
Source: librdkafka's CONFIGURATION.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from onefold.errors import BuildError
from onefold.settings import resolve

__all__ = ["Connection", "Mechanism", "Start"]

Mechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
Start: TypeAlias = Literal["earliest", "latest"]

FREE_OPTIONS = frozenset(
    {
        "broker.address.family", "broker.address.ttl", "client.id", "client.rack", "compression.level",
        "compression.type", "connections.max.idle.ms", "fetch.max.bytes", "fetch.min.bytes", "fetch.wait.max.ms",
        "linger.ms", "max.partition.fetch.bytes", "message.max.bytes", "metadata.max.age.ms", "partitioner",
        "queued.max.messages.kbytes", "receive.message.max.bytes", "reconnect.backoff.max.ms", "reconnect.backoff.ms",
        "request.timeout.ms", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.extensions", "sasl.oauthbearer.method", "sasl.oauthbearer.scope",
        "sasl.oauthbearer.token.endpoint.url", "security.protocol", "socket.connection.setup.timeout.ms",
        "socket.keepalive.enable", "socket.receive.buffer.bytes", "socket.send.buffer.bytes", "socket.timeout.ms",
        "ssl.ca.pem", "ssl.certificate.pem", "ssl.cipher.suites", "ssl.crl.location", "ssl.key.password", "ssl.key.pem",
        "ssl.keystore.location", "ssl.keystore.password", "transaction.timeout.ms",
    }
)  # fmt: skip
"""What a user may set. Everything that the guarantees hang on is set by the connector."""

OWN_OPTIONS: Mapping[str, str] = {
    "acks": "the guarantee decides it",
    "auto.offset.reset": "a position that is gone is an error, never a jump",
    "bootstrap.servers": "it is the first argument",
    "enable.auto.commit": "positions live in the journal",
    "enable.idempotence": "the guarantee decides it",
    "enable.ssl.certificate.verification": "a broker that is not who it says could take or invent events",
    "group.id": "say group=… to topic(…)",
    "isolation.level": "say isolation=… to topic(…)",
    "message.send.max.retries": "the guarantee decides it",
    "retries": "the guarantee decides it",
    "ssl.endpoint.identification.algorithm": "a broker that is not who it says could take or invent events",
    "transactional.id": "it fences other instances, and belongs to the flow and the sink",
}
"""What a user may not set, and why."""


@dataclass(frozen=True)
class Connection:
    """A cluster and how to reach it. secret settings: their values never leave `settings`.

    Args:
        brokers: host:port, with commas between several.
        username, password, mechanism: SASL. certificates: ca, certificate and key, paths of PEM files.
        is_encrypted: TLS. options: settings of librdkafka by name, out of FREE_OPTIONS.
    """

    brokers: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    mechanism: Mechanism | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    is_encrypted: bool = False
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.brokers, str) or not self.brokers.strip():
            raise BuildError("Which brokers?", found=repr(self.brokers), expected='for instance "localhost:9092"')
        for name in self.options:
            if name in OWN_OPTIONS:
                raise BuildError(f"The option {name} is not yours to set: {OWN_OPTIONS[name]}.", option=name)
            if name not in FREE_OPTIONS:
                raise BuildError(
                    f"There is no option {name!r}.", expected="one of " + ", ".join(sorted(FREE_OPTIONS)), option=name
                )
        if (self.username is None) != (self.password is None):
            raise BuildError("A user name and a password belong together.", next_step='Use "${NAME}" for the password.')

    @property
    def label(self) -> str:
        """kafka(brokers), references unexpanded."""
        return f"kafka({self.brokers})"

    def settings(self) -> dict[str, str]:
        """For librdkafka: where, who, how. Raises SettingMissing."""
        mechanism = self.mechanism or ("PLAIN" if self.username is not None else None)
        wanted = {
            "bootstrap.servers": self.brokers,
            "security.protocol": self._protocol(mechanism),
            "sasl.mechanism": mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
            "ssl.ca.location": self.ca,
            "ssl.certificate.location": self.certificate,
            "ssl.key.location": self.key,
            "socket.keepalive.enable": "true",
            **self.options,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        return {name: resolve(value, used_in=f"{self.label}: {name}") for name, value in given.items()}

    def _protocol(self, mechanism: str | None) -> str:
        is_encrypted = self.is_encrypted or self.ca is not None or self.certificate is not None
        return ("SASL_" if mechanism else "") + ("SSL" if is_encrypted else "PLAINTEXT")


def names_of(topics: str | Sequence[str]) -> tuple[str, ...]:
    """One topic or several, checked. Raises BuildError."""
    names = (topics,) if isinstance(topics, str) else tuple(topics)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise BuildError("Which topic?", found=repr(topics), expected="a name, several, or a pattern such as ^orders-")
    return names
