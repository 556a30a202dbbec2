"""A schema registry in memory, in the place of the client that talks to one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from confluent_kafka.schema_registry import RegisteredSchema, Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from onefold.formats.registry import Registry

__all__ = ["FakeClient", "fake_registry"]


@dataclass
class FakeClient:
    """Keeps schemas; answers, or fails, as it is told. asked: the ids that were asked for."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    failure: Exception | None = None
    refuses: bool = False

    def clear_latest_caches(self) -> None:
        pass

    def get_schema(self, number: int, fmt: str | None = None) -> Schema:
        self._fail()
        self.asked.append(number)
        if number not in self.schemas:
            raise SchemaRegistryError(404, 40403, "Schema not found")
        return self.schemas[number]

    def get_latest_version(self, subject: str, fmt: str | None = None) -> Any:
        self._fail()
        if subject not in self.subjects:
            raise SchemaRegistryError(404, 40401, "Subject not found")
        number = self.subjects[subject][-1]
        return self._registered(subject, number)

    def get_schema_types(self) -> list[str]:
        self._fail()
        return ["AVRO", "JSON"]

    def register_schema(self, subject: str, schema: Schema) -> int:
        self._fail()
        if self.refuses:
            raise SchemaRegistryError(409, 409, "incompatible with an earlier schema")
        for number, known in self.schemas.items():
            if (known.schema_str, known.schema_type) == (schema.schema_str, schema.schema_type):
                break
        else:
            number = len(self.schemas) + 1
            self.schemas[number] = schema
        if number not in self.subjects.setdefault(subject, []):
            self.subjects[subject].append(number)
        return number

    def lookup_schema(self, subject: str, schema: Schema) -> Any:
        self._fail()
        for number in self.subjects.get(subject, []):
            if self.schemas[number].schema_str == schema.schema_str:
                return self._registered(subject, number)
        raise SchemaRegistryError(404, 40403, "Schema not found")

    def _registered(self, subject: str, number: int) -> RegisteredSchema:
        return RegisteredSchema(subject=subject, version=1, schema_id=number, guid=None, schema=self.schemas[number])

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def fake_registry() -> tuple[Registry, FakeClient]:
    """A registry and what stands behind it."""
    made, client = Registry("http://localhost:1"), FakeClient()
    real = {name for name in vars(FakeClient) if not name.startswith("_")} - {"asked", "failure", "refuses"}
    assert all(hasattr(SchemaRegistryClient, name) for name in real)
    made._clients.append(client)
    return made, client
