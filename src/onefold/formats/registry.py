"""A schema registry: which schema a message was written with, and which one we write.

Talks through confluent-kafka's own client, which tries again by itself (`max.retries`). Nothing is connected before a
schema is needed. Texts may hold ${NAME}; they are read when the registry is first asked, and no value of theirs is
shown. Source: Confluent's Schema Registry API Reference.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from onefold.errors import BuildError, ExtraMissing, SchemaError, SinkRefused, SinkUnavailable, SourceUnavailable
from onefold.settings import resolve

__all__ = ["Kind", "Registry", "Subject", "WriterSchema", "schema_registry"]

Kind: TypeAlias = Literal["AVRO", "PROTOBUF", "JSON"]
Failure: TypeAlias = type[SourceUnavailable] | type[SinkUnavailable]

FREE_OPTIONS = frozenset(
    {
        "bearer.auth.client.id", "bearer.auth.client.secret", "bearer.auth.credentials.source",
        "bearer.auth.identity.pool.id", "bearer.auth.issuer.endpoint.url", "bearer.auth.logical.cluster",
        "bearer.auth.scope", "bearer.auth.token", "max.retries", "retries.max.wait.ms", "retries.wait.ms",
        "ssl.key.password", "timeout",
    }
)  # fmt: skip
"""What a user may set of the client. Whom to trust is `ca`: certificates are always checked."""

_NUMBERS = frozenset({"max.retries", "retries.max.wait.ms", "retries.wait.ms", "timeout"})
_DEFAULTS = {"timeout": "10", "max.retries": "3", "retries.wait.ms": "200", "retries.max.wait.ms": "2000"}
_FORM: Mapping[str, str | None] = {"AVRO": None, "JSON": None, "PROTOBUF": "serialized"}
_MOST_SCHEMAS = 10_000
_UNKNOWN = frozenset({40401, 40402, 40403})
"""The registry's own codes of a subject, a version and a schema that it does not have."""


@dataclass(frozen=True)
class WriterSchema:
    """A schema as the registry keeps it. references: (name, text) of what it refers to, innermost first."""

    kind: Kind
    text: str
    references: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Subject:
    """Where the schema of a topic's values is kept, and the newest one there."""

    name: str
    id: int
    schema: WriterSchema


def schema_registry(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Registry:
    """A Confluent-compatible schema registry. All texts may hold ${NAME}. Nothing is connected before a flow needs it.

    Args:
        url: http(s)://host:port[/path], with commas between several.
        username, password: HTTP basic authentication.
        ca, certificate, key: PEM files: whom to trust, and who we are.
        options: settings of the client by name, such as "timeout" (seconds) or "bearer.auth.token".

    Raises BuildError.
    """
    given = {name: str(value) for name, value in (options or {}).items()}
    return Registry(url, username, password, ca, certificate, key, given)


@dataclass(frozen=True)
class Registry:
    """What `of.schema_registry(…)` gives; see there. Used by several threads."""

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    _known: dict[int, WriterSchema] = field(default_factory=dict, repr=False, compare=False, init=False)
    _clients: list[Any] = field(default_factory=list, repr=False, compare=False, init=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.url, str) or not self.url.strip():
            raise BuildError("Which schema registry?", expected='for instance "http://localhost:8081"')
        _refuse_secrets_in(self.url)
        for name in self.options:
            if name not in FREE_OPTIONS:
                raise BuildError(
                    f"There is no option {name!r}.", expected="one of " + ", ".join(sorted(FREE_OPTIONS)), option=name
                )
        if (self.username is None) != (self.password is None):
            raise BuildError("A user name and a password belong together.", next_step='Use "${NAME}" for the password.')

    @property
    def label(self) -> str:
        """schema_registry(url), references unexpanded."""
        return f"schema_registry({self.url})"

    def by_id(self, number: int, kind: Kind) -> WriterSchema | None:
        """The schema of that id; None when the registry has none of that kind. Each is asked for once: none changes.

        Raises SourceUnavailable when it does not answer, or refuses us.
        """
        made = self._known.get(number)
        if made is None:
            found = self._ask(SourceUnavailable, lambda client: client.get_schema(number, fmt=_FORM[kind]))
            if found is None:
                return None
            made = self._whole(found, SourceUnavailable)
            if len(self._known) >= _MOST_SCHEMAS:
                self._known.pop(next(iter(self._known)), None)
            self._known[number] = made
        return made if made.kind == kind else None

    def latest(self, subject: str, kind: Kind, failure: Failure) -> Subject | None:
        """The newest schema of a subject; None when there is no such subject. Raises failure."""

        def ask(client: Any) -> Any:
            client.clear_latest_caches()
            return client.get_latest_version(subject, fmt=_FORM[kind])

        found = self._ask(failure, ask)
        return None if found is None else Subject(subject, int(found.schema_id), self._whole(found.schema, failure))

    def register(self, subject: str, schema: WriterSchema) -> int:
        """The id of a schema, which is registered under the subject if it is not there yet. Idempotent.

        Raises SchemaError when it is refused (incompatible with the earlier ones, say), SinkUnavailable.
        """
        made = self._as_client_schema(schema)
        found = self._ask(SinkUnavailable, lambda client: client.register_schema(subject, made), subject=subject)
        if found is None:
            raise SinkRefused(f"{self.label} takes no schema.", subject=subject, found="HTTP 404")
        return int(found)

    def lookup(self, subject: str, schema: WriterSchema) -> int | None:
        """The id of a schema that must be registered already; None when it is not. Raises SinkUnavailable."""
        made = self._as_client_schema(schema)
        found = self._ask(SinkUnavailable, lambda client: client.lookup_schema(subject, made), subject=subject)
        return None if found is None else int(found.schema_id)

    def kinds(self) -> list[str]:
        """The kinds of schemas that it keeps: whether it answers, and lets us in. Raises SourceUnavailable."""
        found = self._ask(SourceUnavailable, lambda client: client.get_schema_types())
        return [str(kind) for kind in found or ()]

    # ------------------------------------------------------------------------------------------------------- inner

    def _settings(self) -> dict[str, Any]:
        where = self.label
        url = resolve(self.url, used_in=where)
        _refuse_secrets_in(url)
        settings: dict[str, Any] = {"url": url}
        for name, value in {**_DEFAULTS, **self.options}.items():
            text = resolve(value, used_in=f"{where}: {name}")
            settings[name] = _number(name, text) if name in _NUMBERS else text
        files = {"ssl.ca.location": self.ca, "ssl.certificate.location": self.certificate, "ssl.key.location": self.key}
        for name, path in files.items():
            if path is not None:
                settings[name] = resolve(path, used_in=f"{where}: {name}")
        if self.username is not None and self.password is not None:
            user = resolve(self.username, used_in=where)
            settings["basic.auth.user.info"] = f"{user}:{resolve(self.password, used_in=f'{where}: password')}"
        return settings

    def _client(self) -> Any:
        with self._lock:
            if not self._clients:
                try:
                    from confluent_kafka.schema_registry import SchemaRegistryClient
                except ImportError as error:
                    raise ExtraMissing(
                        "A schema registry needs confluent-kafka with its client.",
                        found=str(error),
                        next_step="pip install 'onefold[avro]' (or [protobuf], [jsonschema])",
                    ) from None
                try:
                    self._clients.append(SchemaRegistryClient(self._settings()))
                except (ValueError, TypeError, OSError) as error:
                    raise BuildError(
                        f"{self.label} cannot be used as it is set.", found=type(error).__name__,
                        next_step="Check the address, the PEM files, and the bearer.auth options.",
                    ) from None  # fmt: skip
            return self._clients[0]

    def _ask(self, failure: Failure, ask: Any, *, subject: str | None = None) -> Any:
        """The answer; None for what the registry says it does not have. Raises failure, SchemaError, SinkRefused."""
        client = self._client()
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return ask(client)
        except SchemaRegistryError as error:
            if error.http_status_code == 404 and error.error_code in _UNKNOWN:
                return None
            raise self._refused(error, failure, subject) from None
        except Exception as error:  # noqa: BLE001 - whatever the HTTP client raises, it is no answer
            raise failure(
                f"{self.label} does not answer.", found=type(error).__name__,
                next_step="Check its address and whether it runs.",
            ) from None  # fmt: skip

    def _refused(self, error: Any, failure: Failure, subject: str | None) -> Exception:
        status = error.http_status_code
        if status in (401, 403):
            kind: Any = SinkRefused if failure is SinkUnavailable else failure
            advice = "Check user name, password and permissions."
            return kind(f"{self.label} refuses us.", found=f"HTTP {status}", next_step=advice)  # type: ignore[no-any-return]
        text = f"HTTP {status}, code {error.error_code}"
        if status in (409, 422) and failure is SinkUnavailable:
            advice = "Write columns that fit the subject's earlier schemas, or change its compatibility, or its name."
            return SchemaError(
                f"{self.label} refuses the schema of the rows.", subject=subject,
                found=f"{text}: {str(error.error_message)[:500]}", expected="a compatible schema", next_step=advice,
            )  # fmt: skip
        return failure(f"{self.label} gives no schema.", found=text, next_step="Check its address and its log.")

    def _whole(self, schema: Any, failure: Failure) -> WriterSchema:
        """With the texts of all that it refers to."""
        references: dict[str, str] = {}
        self._collect(schema, references, failure)
        return WriterSchema(schema.schema_type or "AVRO", schema.schema_str, tuple(references.items()))

    def _collect(self, schema: Any, into: dict[str, str], failure: Failure) -> None:
        form = _FORM[schema.schema_type or "AVRO"]
        for reference in schema.references or ():
            if reference.name in into:
                continue
            found = self._ask(
                failure, lambda client, at=reference: client.get_version(at.subject, at.version, fmt=form)
            )
            if found is None:
                raise failure(
                    f"{self.label} does not have what a schema refers to.",
                    found=f"{reference.subject}, version {reference.version}",
                )
            self._collect(found.schema, into, failure)
            into[reference.name] = found.schema.schema_str

    def _as_client_schema(self, schema: WriterSchema) -> Any:
        self._client()
        from confluent_kafka.schema_registry import Schema

        return Schema(schema.text, schema.kind)


def registry_of(registry: Registry | str) -> Registry:
    """A registry, or the one at an address. Raises BuildError."""
    if isinstance(registry, Registry):
        return registry
    if isinstance(registry, str):
        return Registry(registry)
    raise BuildError("This is no schema registry.", found=type(registry).__name__, expected="of.schema_registry(url)")


def _refuse_secrets_in(url: str) -> None:
    for one in url.split(","):
        if "@" in urlsplit(one.strip()).netloc:
            raise BuildError(
                "The address of a schema registry must not hold a user name or password: addresses are shown.",
                next_step='Say username="…" and password="${NAME}".',
            )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BuildError(f"The option {name} is a number.", option=name) from None
