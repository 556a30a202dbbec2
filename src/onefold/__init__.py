"""Exactly-once data pipelines in Python, with the books to prove it.

    import onefold as of

    flow = of.Flow("revenue")
    payments = flow.read(of.files("payments/*.jsonl"), schema={"event_id": "VARCHAR", "amount": "DECIMAL(18,2)"})
    payments.where("amount > 0").dedup("event_id", within=None).append(of.duckdb("lake.duckdb").table("payments"))
    flow.run()

Connectors are imported when they are first used. The logger `onefold` is silent until it is configured.
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
    from onefold.connectors.duckdb import DuckdbFile as duckdb  # noqa: N813 - what it makes is a connection
    from onefold.connectors.files import files as files
    from onefold.connectors.kafka import kafka as kafka
    from onefold.connectors.memory import memory as memory
    from onefold.connectors.sqlite import SqliteFile as sqlite  # noqa: N813 - what it makes is a connection

__all__ = [
    "CommitClass", "Flow", "Guarantee", "OnefoldError", "Stream", "console", "duckdb", "files", "kafka", "memory",
    "sqlite", "testing",
]  # fmt: skip

__version__ = "0.1.0"

_CONNECTIONS = {
    "console": ("onefold.connectors.console", "console"),
    "duckdb": ("onefold.connectors.duckdb", "DuckdbFile"),
    "files": ("onefold.connectors.files", "files"),
    "kafka": ("onefold.connectors.kafka", "kafka"),
    "memory": ("onefold.connectors.memory", "memory"),
    "sqlite": ("onefold.connectors.sqlite", "SqliteFile"),
}

logging.getLogger("onefold").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "testing":
        return importlib.import_module("onefold.testing")
    if name not in _CONNECTIONS:
        raise AttributeError(f"module 'onefold' has no attribute {name!r}")
    module, attribute = _CONNECTIONS[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
