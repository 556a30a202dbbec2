"""`of.kafka(brokers, …)`: which cluster, who we are there, and which of the client's settings a user may change.

Nothing here connects. Texts may hold ${NAME}; they are read when the flow runs, and no value of theirs is ever shown.
Source: librdkafka's CONFIGURATION.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from onefold.errors import BuildError, SettingMissing
from onefold.settings import names_in, resolve, show

__all__ = ["Connection", "Mechanism", "Start", "TokenOf"]

Mechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
TokenOf: TypeAlias = Callable[[], tuple[str, float]]
"""Gives an access token and when it is over, in seconds since 1970. Called again before that; by any thread."""

Start: TypeAlias = Literal["earliest", "latest"]

FREE_OPTIONS = frozenset(
    {
        "broker.address.family", "broker.address.ttl", "client.id", "client.rack", "compression.level",
        "compression.type", "connections.max.idle.ms", "fetch.max.bytes", "fetch.min.bytes", "fetch.wait.max.ms",
        "https.ca.location", "https.ca.pem", "linger.ms", "max.partition.fetch.bytes", "message.max.bytes",
        "metadata.max.age.ms", "partitioner", "queued.max.messages.kbytes", "receive.message.max.bytes",
        "reconnect.backoff.max.ms", "reconnect.backoff.ms", "request.timeout.ms",
        "sasl.oauthbearer.assertion.algorithm", "sasl.oauthbearer.assertion.claim.aud",
        "sasl.oauthbearer.assertion.claim.exp.seconds", "sasl.oauthbearer.assertion.claim.iss",
        "sasl.oauthbearer.assertion.claim.jti.include", "sasl.oauthbearer.assertion.claim.nbf.seconds",
        "sasl.oauthbearer.assertion.claim.sub", "sasl.oauthbearer.assertion.file",
        "sasl.oauthbearer.assertion.jwt.template.file", "sasl.oauthbearer.assertion.private.key.file",
        "sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.extensions",
        "sasl.oauthbearer.grant.type", "sasl.oauthbearer.metadata.authentication.type", "sasl.oauthbearer.method",
        "sasl.oauthbearer.scope", "sasl.oauthbearer.sub.claim.name", "sasl.oauthbearer.token.endpoint.url",
        "security.protocol", "socket.connection.setup.timeout.ms", "socket.keepalive.enable",
        "socket.receive.buffer.bytes", "socket.send.buffer.bytes", "socket.timeout.ms", "ssl.ca.pem",
        "ssl.certificate.pem", "ssl.cipher.suites", "ssl.crl.location", "ssl.key.password", "ssl.key.pem",
        "ssl.keystore.location", "ssl.keystore.password", "transaction.timeout.ms",
    }
)  # fmt: skip
"""What a user may set. Everything that the guarantees hang on is set by the connector."""

SECRET_OPTIONS = frozenset(
    {
        "sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.client.secret", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password",
    }
)  # fmt: skip
"""Those of them whose values are never shown, not even when the client's own text would."""

HIDDEN = "(hidden)"

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
    """A cluster and how to reach it. The values of secrets never leave `settings`.

    Args:
        brokers: host:port, with commas between several.
        username, password, mechanism: SASL. token: gives tokens of OAUTHBEARER.
        ca, certificate, key: paths of PEM files. is_encrypted: TLS.
        options: settings of librdkafka by name, out of FREE_OPTIONS.
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
    token: TokenOf | None = field(default=None, repr=False)

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
        if (self.certificate is None) != (self.key is None):
            raise BuildError("A certificate and its key belong together.", next_step="Name a PEM file for each.")
        self._demand_mechanism()
        self._demand_protocol()

    def _demand_mechanism(self) -> None:
        if self.mechanism is not None and self.mechanism not in get_args(Mechanism):
            known = ", ".join(get_args(Mechanism))
            raise BuildError("There is no such mechanism.", found=repr(self.mechanism), expected=f"one of {known}")
        is_bearer = self.mechanism == "OAUTHBEARER"
        is_oidc = "sasl.oauthbearer.method" in self.options or any(
            name.startswith("sasl.oauthbearer.metadata") for name in self.options
        )
        if self.token is not None and (not is_bearer or is_oidc):
            raise BuildError("token=… belongs to mechanism OAUTHBEARER, and to no sasl.oauthbearer.method.")
        if is_bearer and self.token is None and not is_oidc:
            raise BuildError(
                "OAUTHBEARER needs a token.",
                expected="token=…, or options with sasl.oauthbearer.method",
                next_step='For OpenID Connect: "sasl.oauthbearer.method": "oidc" and the token endpoint in options=….',
            )
        if self.mechanism is not None and not is_bearer and self.username is None:
            raise BuildError(f"{self.mechanism} needs a user name and a password.")

    def _demand_protocol(self) -> None:
        """An option may not take away what the other arguments ask for: a password would be left out, or sent open."""
        given = self.options.get("security.protocol", "").upper()
        if not given or names_in(given):
            return
        lacks_sasl = self.sasl_mechanism is not None and not given.startswith("SASL_")
        lacks_tls = self._protocol().endswith("SSL") and not given.endswith("SSL")
        if lacks_sasl or lacks_tls:
            raise BuildError(
                "security.protocol contradicts the other arguments.",
                found=given,
                expected=self._protocol(),
                next_step="Leave it out: it follows from mechanism, tls, ca and certificate.",
            )

    @property
    def label(self) -> str:
        """kafka(brokers), references unexpanded."""
        return f"kafka({self.brokers})"

    @property
    def sasl_mechanism(self) -> str | None:
        """How we say who we are; None: not by SASL."""
        return self.mechanism or ("PLAIN" if self.username is not None else None)

    @property
    def protocol(self) -> str:
        """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        return self.options.get("security.protocol", self._protocol())

    @property
    def has_certificate(self) -> bool:
        """Whether we show one."""
        names = ("ssl.certificate.pem", "ssl.keystore.location")
        return self.certificate is not None or any(name in self.options for name in names)

    @property
    def principal(self) -> str:
        """Who we are, for people."""
        if self.username is not None:
            return f"user {show(self.username)}"
        if self.sasl_mechanism is not None:
            return "the user of this token"
        return "the user of this certificate" if self.has_certificate else "somebody without a name"

    def settings(self) -> dict[str, str]:
        """For librdkafka: where, who, how. Raises SettingMissing."""
        wanted = {
            "bootstrap.servers": self.brokers,
            "security.protocol": self._protocol(),
            "sasl.mechanism": self.sasl_mechanism,
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

    def clean(self, text: str) -> str:
        """A text of the client's without the value of any secret, should it hold one."""
        for secret in (self.password, *(value for name, value in self.options.items() if name in SECRET_OPTIONS)):
            if secret is not None:
                try:
                    value = resolve(secret)
                except SettingMissing:
                    continue
                text = text.replace(value, HIDDEN) if value else text
        return text

    def _protocol(self) -> str:
        names = ("ssl.ca.pem", "ssl.certificate.pem", "ssl.keystore.location")
        is_encrypted = self.is_encrypted or any(self.options.get(name) for name in names)
        is_encrypted |= self.ca is not None or self.certificate is not None
        return ("SASL_" if self.sasl_mechanism else "") + ("SSL" if is_encrypted else "PLAINTEXT")


def names_of(topics: str | Sequence[str]) -> tuple[str, ...]:
    """One topic or several, checked. Raises BuildError."""
    names = (topics,) if isinstance(topics, str) else tuple(topics)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise BuildError("Which topic?", found=repr(topics), expected="a name, several, or a pattern such as ^orders-")
    return names
