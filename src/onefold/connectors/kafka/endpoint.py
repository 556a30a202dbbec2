"""What users make: `of.kafka(brokers).topic(name)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onefold.connectors.kafka.connection import Connection, Mechanism, TokenOf, names_of
from onefold.connectors.kafka.sink import KafkaSink
from onefold.connectors.kafka.source import KafkaSource, Topics
from onefold.errors import BuildError, NotSupported
from onefold.formats import format_named
from onefold.protocols import Format, WritingFormat
from onefold.types import Mode

__all__ = ["Kafka", "KafkaTopic", "kafka"]


def kafka(
    brokers: str,
    *,
    username: str | None = None,
    password: str | None = None,
    mechanism: Mechanism | None = None,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    tls: bool = False,
    token: TokenOf | None = None,
    options: Mapping[str, str] | None = None,
) -> Kafka:
    """A Kafka cluster. All texts may hold ${NAME}. Nothing is connected before a flow runs.

    Args:
        brokers: host:port, with commas between several.
        username, password, mechanism: SASL; PLAIN when no mechanism is named.
        ca, certificate, key: PEM files: whom to trust, and who we are. Any of them means TLS, as tls=True does.
        token: for OAUTHBEARER: gives an access token and when it is over, in seconds since 1970.
        options: settings of librdkafka by name. Those that the guarantees hang on are refused.
    """
    given = {name: str(value) for name, value in (options or {}).items()}
    return Kafka(Connection(brokers, username, password, mechanism, ca, certificate, key, tls, given, token))


@dataclass(frozen=True)
class Kafka:
    """What `of.kafka(…)` gives."""

    connection: Connection

    def topic(
        self,
        name: str | Sequence[str],
        *,
        start: Literal["earliest", "latest"] | int = "earliest",
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
        group: str | None = None,
        format: str | Format | None = None,  # noqa: A002 - the word everyone uses
        headers: str | None = None,
    ) -> KafkaTopic:
        """A topic; to read: several, or a pattern that begins with ^.

        Args:
            start: where a new flow begins: "earliest", "latest", or milliseconds since 1970. Later runs, and
                partitions that appear later, do not ask.
            isolation: read_uncommitted reads what producers may still abort.
            group: the consumer group whose offsets follow the flow, for lag tools. Default: one of its own.
            format: of the values: "json" (the default), "raw", or of.avro(…), of.protobuf(…), of.json_schema(…).
            headers: to write: the column that becomes the messages' headers instead of a part of the value.
        """
        if start not in ("earliest", "latest") and not isinstance(start, int):
            raise BuildError("A topic is not read from there.", found=repr(start), expected="earliest, latest or ms")
        if isolation not in ("read_committed", "read_uncommitted"):
            raise BuildError("There is no such isolation.", found=repr(isolation), expected="read_committed")
        made = format_named(format) if isinstance(format, str) else format
        return KafkaTopic(self.connection, Topics(names_of(name), start, isolation, group), made, headers)


@dataclass(frozen=True)
class KafkaTopic:
    """What `of.kafka(…).topic(…)` gives."""

    connection: Connection
    topics: Topics
    format: Format | None = None
    headers: str | None = None

    @property
    def topic_names(self) -> tuple[str, ...]:
        """The topics, by which a registry finds their schemas."""
        return self.topics.names

    @property
    def label(self) -> str:
        """kafka(brokers).topic(name)."""
        return f"{self.connection.label}.topic({', '.join(self.topics.names)})"

    @property
    def default_name(self) -> str:
        """The topic's name; of several, "topics"."""
        first = self.topics.names[0]
        return first if len(self.topics.names) == 1 and not first.startswith("^") else "topics"

    def as_source(self, format: Format | None) -> KafkaSource:  # noqa: A002  (the protocol's word)
        """A source of bytes."""
        return KafkaSource(self.connection, self.topics)

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> KafkaSink:
        """A transactional sink. Raises NotSupported for several topics, and for an upsert without a key."""
        (name, *more) = self.topics.names
        if more or name.startswith("^"):
            raise NotSupported(f"{self.label} is no single topic to write to.", expected="one topic's name")
        if mode == "upsert" and not key:
            raise NotSupported(f"An upsert into {self.label} needs a key.", next_step='Say key="column".')
        if self.format is not None and not isinstance(self.format, WritingFormat):
            raise NotSupported(
                f"{self.label} cannot be written as {self.format.name}.",
                expected="json, raw, avro, protobuf, json_schema",
            )
        return KafkaSink(self.connection, name, self.format, self.headers)
