"""A broker that asks everybody who they are: SASL and TLS listeners, certificates, and access control lists.

Its plain listener is for the tests alone: who comes in there may do anything. Source: Apache Kafka's documentation,
chapter Security; the OAUTHBEARER listener takes unsecured tokens, which Kafka offers for development.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from services.certificates import Authority
from services.kafka import Broker, answers, free_port

__all__ = ["SecuredBroker"]

_JAAS = "org.apache.kafka.common.security"
_MECHANISMS = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"


class SecuredBroker(Broker):
    """Clients trust `authority`. Names of its listeners: SASL (no TLS), SASLTLS, and TLS, which demands a certificate.

    Args:
        passwords: by user, for PLAIN and both SCRAMs. What a user may do is said by access control lists.
    """

    def __init__(self, passwords: Mapping[str, str]) -> None:
        super().__init__()
        self._passwords = dict(passwords)
        self._ports = {name: free_port() for name in ("SASL", "SASLTLS", "TLS")}
        self.authority: Authority

    @property
    def folder(self) -> Path:
        """For files that go with the broker."""
        return self._path

    def at(self, listener: str, host: str = "127.0.0.1") -> str:
        """host:port of a listener. Its certificate is for 127.0.0.1 alone."""
        return f"{host}:{self._ports[listener]}"

    def more_settings(self) -> Mapping[str, str]:
        """Listeners, mechanisms, certificates, and who may do anything."""
        self.authority = Authority(self._path)
        certificate, key = self.authority.issue("broker", address="IP:127.0.0.1")
        both = self._path / "broker-both.pem"
        both.write_text(key.read_text() + certificate.read_text())
        listeners = {"PLAINTEXT": self.address, **{name: self.at(name) for name in self._ports}}
        said = ",".join(f"{name}://{address}" for name, address in listeners.items())
        return {
            "listeners": f"{said},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": said,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
            "SASL:SASL_PLAINTEXT,SASLTLS:SASL_SSL,TLS:SSL",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate),
            "listener.name.tls.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "sasl.enabled.mechanisms": _MECHANISMS,
            **self._logins("sasl"),
            **self._logins("sasltls"),
        }

    def _logins(self, listener: str) -> dict[str, str]:
        users = " ".join(f'user_{name}="{password}"' for name, password in self._passwords.items())
        modules = {
            "plain": f"{_JAAS}.plain.PlainLoginModule required {users};",
            "scram-sha-256": f"{_JAAS}.scram.ScramLoginModule required;",
            "scram-sha-512": f"{_JAAS}.scram.ScramLoginModule required;",
            "oauthbearer": f"{_JAAS}.oauthbearer.OAuthBearerLoginModule required;",
        }
        return {f"listener.name.{listener}.{name}.sasl.jaas.config": text for name, text in modules.items()}

    def _storage(self) -> Sequence[str]:
        found = []
        for name, password in self._passwords.items():
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                found += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]
        return found

    def _answers(self) -> bool:
        return super()._answers() and all(answers(port) for port in self._ports.values())
