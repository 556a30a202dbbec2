"""Exactly-once data pipelines in Python, with the books to prove it.

    import onefold as of

    flow = of.Flow("revenue")
    payments = flow.read(of.files("payments/*.jsonl"), schema={"event_id": "VARCHAR", "amount": "DECIMAL(18,2)"})
    payments.where("amount > 0").dedup("event_id", within=None).append(of.duckdb("lake.duckdb").table("payments"))
    flow.run()

Connectors and formats are imported when they are first used. The logger `onefold` is silent until it is configured.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from onefold.errors import OnefoldError
from onefold.flow import Flow, Stream
from onefold.types import CommitClass, Guarantee

if TYPE_CHECKING:
    from onefold import testing as testing
    from onefold.connectors.console import console as console
    from onefold.connectors.delta import delta as delta
    from onefold.connectors.duckdb import DuckdbFile as duckdb  # noqa: N813 - what it makes is a connection
    from onefold.connectors.files import files as files
    from onefold.connectors.hudi import hudi as hudi
    from onefold.connectors.iceberg import iceberg as iceberg
    from onefold.connectors.kafka import kafka as kafka
    from onefold.connectors.memory import memory as memory
    from onefold.connectors.mysql import mysql as mysql
    from onefold.connectors.postgres import postgres as postgres
    from onefold.connectors.sqlite import SqliteFile as sqlite  # noqa: N813 - what it makes is a connection
    from onefold.formats.avro import avro as avro
    from onefold.formats.csv import Csv as csv  # noqa: N813 - a format is what it makes
    from onefold.formats.json_schema import json_schema as json_schema
    from onefold.formats.protobuf import protobuf as protobuf
    from onefold.formats.registry import schema_registry as schema_registry

__all__ = [
    "CommitClass", "Flow", "Guarantee", "OnefoldError", "Stream", "avro", "console", "csv", "delta", "duckdb", "files",
    "hudi", "iceberg", "json_schema", "kafka", "memory", "mysql", "postgres", "protobuf", "schema_registry", "sqlite",
    "testing",
]  # fmt: skip

__version__ = "0.1.0"

_CONNECTIONS = {
    "console": ("onefold.connectors.console", "console"),
    "delta": ("onefold.connectors.delta", "delta"),
    "duckdb": ("onefold.connectors.duckdb", "DuckdbFile"),
    "files": ("onefold.connectors.files", "files"),
    "hudi": ("onefold.connectors.hudi", "hudi"),
    "iceberg": ("onefold.connectors.iceberg", "iceberg"),
    "kafka": ("onefold.connectors.kafka", "kafka"),
    "memory": ("onefold.connectors.memory", "memory"),
    "mysql": ("onefold.connectors.mysql", "mysql"),
    "postgres": ("onefold.connectors.postgres", "postgres"),
    "sqlite": ("onefold.connectors.sqlite", "SqliteFile"),
}

_FORMATS = {
    "avro": ("onefold.formats.avro", "avro"),
    "csv": ("onefold.formats.csv", "Csv"),
    "json_schema": ("onefold.formats.json_schema", "json_schema"),
    "protobuf": ("onefold.formats.protobuf", "protobuf"),
    "schema_registry": ("onefold.formats.registry", "schema_registry"),
}

logging.getLogger("onefold").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "testing":
        return importlib.import_module("onefold.testing")
    found = _CONNECTIONS.get(name) or _FORMATS.get(name)
    if found is None:
        raise AttributeError(f"module 'onefold' has no attribute {name!r}")
    module, attribute = found
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
