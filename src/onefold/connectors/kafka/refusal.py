"""Why a cluster does not let us in: what the client says while it goes on trying, and what a person can do about it."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from onefold.connectors.kafka.connection import Connection
from onefold.errors import SettingMissing
from onefold.settings import resolve, show

__all__ = ["About", "Heard", "Refusal", "refusal_of"]

Kind: TypeAlias = Literal["who", "token", "trust", "certificate", "protocol", "setting"]

PROBE_SECONDS = 3.0

_AUTHENTICATION = ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "ILLEGAL_SASL_STATE")
_NOT_ACQUIRED = "Failed to acquire SASL OAUTHBEARER token"
_NO_ANSWER = re.compile(r"connect|resolve|timed? ?out|timeout|refused|unreachable|HTTP error 5", re.IGNORECASE)
_ADDRESS = re.compile(r"ssl://(.+):(\d+)/", re.IGNORECASE)


@dataclass(frozen=True)
class About:
    """For an error: what is wrong (after the cluster's name), what was expected, what to do."""

    summary: str
    expected: str
    next_step: str


@dataclass(frozen=True)
class Refusal:
    """The client's text, and what kind of refusal it is."""

    kind: Kind
    text: str

    def about(self, connection: Connection) -> About:
        """In words, for this connection. Looks at the broker's certificate where that is what is wrong."""
        who = connection.principal
        match self.kind:
            case "who":
                return About(
                    f"does not let {who} in.",
                    f"a user and a password that the brokers know for {connection.sasl_mechanism}",
                    "Correct username=…, password=… or mechanism=….",
                )
            case "token":
                return About(
                    "lets nobody in without a token, and we were given none.",
                    "a token from the endpoint, or from token=…",
                    "Check sasl.oauthbearer.client.id and .client.secret, or what token=… returns.",
                )
            case "trust":
                why = why_not_trusted(connection, self.text)
                return About(
                    f"is not who it should be: {why or 'its certificate cannot be verified'}.",
                    f"a certificate of the broker's own host name, signed by {_authority(connection)}",
                    "Name the authority's PEM file in ca=…, and the brokers by the names in their certificates.",
                )
            case "certificate":
                sent = "was sent" if connection.has_certificate else "was not sent: none is named"
                return About(
                    f"does not accept our certificate, which {sent}.",
                    "a certificate that is not over, signed by an authority that the brokers trust",
                    "Name it and its key in certificate=… and key=….",
                )
            case "protocol":
                return About(
                    "speaks without TLS there.",
                    f"a listener that speaks {connection.protocol}",
                    "Name another port, or leave tls, ca, certificate and key out.",
                )
            case "setting":
                return About("cannot be reached with these settings.", "settings that fit", "Correct the setting.")


class Heard:
    """What the client said beside its answers. Lives on its own, so that the client does not keep its owner alive."""

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.last = ""

    def tell(self, error: Any) -> None:
        """The client's callback."""
        name, text = str(error.name()), str(error.str())
        self.refusal = refusal_of(name, text) or self.refusal
        if name != "_ALL_BROKERS_DOWN":
            self.last = text

    def forget(self) -> None:
        """An answer came: what was before does not matter."""
        self.refusal, self.last = None, ""


def refusal_of(name: str, text: str) -> Refusal | None:
    """None for what may pass by itself. name: the client's name of the error."""
    if _NOT_ACQUIRED in text:
        return None if _NO_ANSWER.search(text) else Refusal("token", text)
    if name in _AUTHENTICATION:
        return Refusal("who", text)
    if "SSL alert number" in text:
        return Refusal("certificate", text)
    if "PLAINTEXT broker listener" in text:
        return Refusal("protocol", text)
    if name == "_SSL" and "certificate verify failed" in text:
        return Refusal("trust", text)
    return Refusal("setting", text) if name in ("_INVALID_ARG", "_SSL") else None


def why_not_trusted(connection: Connection, text: str) -> str:
    """What Python's TLS finds wrong with the certificate of the broker that a text is about; "" when nothing."""
    address = _ADDRESS.search(text)
    if address is None:
        return ""
    host = address[1].strip("[]")
    try:
        context = ssl.create_default_context(cafile=resolve(connection.ca) if connection.ca else None)
        with (
            socket.create_connection((host, int(address[2])), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message).rstrip(".")
    except (OSError, SettingMissing):
        return ""


def _authority(connection: Connection) -> str:
    return show(connection.ca) if connection.ca else "an authority that this machine trusts"
