"""A schema with tables whose changes are read by a source, as the engine reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pyarrow as pa

import onefold as of
from onefold.connectors.postgres.changes import ChangesSource
from onefold.protocols import Limit, Reading
from onefold.types import PartitionId

AMPLE = Limit(rows=1 << 20, size_bytes=1 << 30)
PARTITION = PartitionId("changes")
META = ("_table", "_lsn", "_offset", "_xid", "_committed_at", "_before")


@dataclass
class World:
    """One test's schema. admin: a connection of the test's own, in autocommit."""

    url: str
    schema: str
    admin: Any = None
    sources: list[ChangesSource] = field(default_factory=list)
    remembered: list[pa.RecordBatch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin = psycopg.connect(self.url, autocommit=True)
        self.do(f"CREATE SCHEMA {self.schema}", f"SET search_path TO {self.schema}")

    @property
    def slot(self) -> str:
        return f"{self.schema}_slot"

    def do(self, *statements: str) -> None:
        for statement in statements:
            self.admin.execute(statement)

    def one(self, query: str) -> Any:
        return self.admin.execute(query).fetchone()[0]

    def endpoint(self, tables: str | Sequence[str] = "t", *, url: str = "", **options: Any) -> Any:
        return of.postgres(url or self.url, tokens=f"{self.schema} tokens").changes(
            tables, schema=self.schema, **{"slot": self.slot, **options}
        )

    def open(
        self, tables: str | Sequence[str] = "t", columns: pa.Schema | None = None, **options: Any
    ) -> ChangesSource:
        """A new source, opened, with all that was remembered."""
        self.close_sources()
        source: ChangesSource = self.endpoint(tables, **options).as_source(None)
        source.told(Reading("flow", "read", None, columns or pa.schema([]), META))
        self.sources.append(source)
        known = pa.Table.from_batches(self.remembered, source.memory) if self.remembered else None
        source.open(known)
        return source

    def drain(self, source: ChangesSource, start: Any = None, limit: Limit = AMPLE) -> tuple[list[dict[str, Any]], Any]:
        """All rows from a position on, and the one behind them."""
        rows: list[dict[str, Any]] = []
        place = {} if start is None else start
        while True:
            read = source.read(PARTITION, place, limit, 0.5)
            if read.remember is not None:
                self.remembered.append(read.remember)
            rows += [row for batch in read.batches for row in batch.to_pylist()]
            place = json.loads(json.dumps(read.next))
            if read.is_idle:
                return rows, place

    def close_sources(self) -> None:
        for source in self.sources:
            source.close()
        self.sources.clear()

    def close(self) -> None:
        self.close_sources()
        self.admin.close()


def brief(rows: Sequence[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    """What happened, and these columns."""
    return [(row["_op"], *(row[name] for name in columns)) for row in rows]
