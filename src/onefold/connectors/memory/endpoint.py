"""What users make: `of.memory(name)`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.connectors.memory.sink import MemorySink
from onefold.connectors.memory.source import MemorySource
from onefold.connectors.memory.store import Fault, MemoryStore, forget, store_named
from onefold.connectors.spooling import check_key
from onefold.errors import SchemaError
from onefold.protocols import Format
from onefold.types import Mode, PartitionId

__all__ = ["MemoryEndpoint", "memory"]


def memory(name: str = "memory", *, schema: pa.Schema | None = None) -> MemoryEndpoint:
    """Rows in this process's memory under a name: feed them, read them, write them.

    Args:
        name: two endpoints of one name share their rows.
        schema: of the rows that are fed as dicts; None: taken from the rows.
    """
    return MemoryEndpoint(name, schema)


@dataclass(frozen=True)
class MemoryEndpoint:
    """What `memory` gives."""

    name: str
    schema: pa.Schema | None = None

    @property
    def label(self) -> str:
        """memory(name)."""
        return f"memory({self.name})"

    @property
    def default_name(self) -> str:
        """The name itself."""
        return self.name

    @property
    def store(self) -> MemoryStore:
        """What the name holds now."""
        return store_named(self.name)

    def as_source(self, format: Format | None) -> MemorySource:  # noqa: A002  (the protocol's word)
        """A source of typed rows, or of bytes in `_value` when a format is given."""
        return MemorySource(self.name, "rows" if format is None else "bytes")

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> MemorySink:
        """A transactional sink."""
        check_key(mode, key, self.label)
        return MemorySink(self.name)

    def feed(self, rows: pa.Table | Iterable[Mapping[str, Any]], *, partition: str = "0") -> None:
        """Append rows for the source: a table, or dicts. Raises SchemaError for a value of another type."""
        if not isinstance(rows, pa.Table):
            try:
                rows = pa.Table.from_pylist([dict(row) for row in rows], self.schema)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise SchemaError(
                    f"{self.label} was fed a value that does not fit its column.",
                    found=str(error),
                    expected=", ".join(f"{column.name} {column.type}" for column in self.schema or ()),
                ) from error
        self._append(partition, rows)

    def feed_bytes(self, records: Iterable[bytes | str | Mapping[str, Any]], *, partition: str = "0") -> None:
        """Append records for a source with a format: bytes, text, or dicts that become JSON."""
        values = [record if isinstance(record, bytes) else _as_text(record).encode() for record in records]
        self._append(partition, pa.table({"_value": pa.array(values, pa.binary())}))

    def forget_input(self, before: int, *, partition: str = "0") -> None:
        """Lose the rows before an offset, as a source with a short retention would."""
        with self.store.lock:
            self.store.first[PartitionId(partition)] = before

    def fail_next(self, fault: Fault, times: int = 1) -> None:
        """Let the next commits fail in this way."""
        with self.store.lock:
            self.store.faults.extend([fault] * times)

    def set_down(self, is_down: bool) -> None:
        """While down, `open` and `commit` say SinkUnavailable, and reading says SourceUnavailable."""
        with self.store.lock:
            self.store.is_down = is_down

    def table(self) -> pa.Table:
        """The rows that were written. Raises KeyError when nothing has opened it as a sink."""
        with self.store.lock:
            written = self.store.written()
        if written is None:
            raise KeyError(f"{self.label} was never opened as a sink")
        return written

    def rows(self) -> list[dict[str, Any]]:
        """The rows that were written, as dicts; [] when there are none."""
        with self.store.lock:
            written = self.store.written()
        return [] if written is None else list(written.to_pylist())

    def clear(self) -> None:
        """Forget everything under this name."""
        forget(self.name)

    def _append(self, partition: str, table: pa.Table) -> None:
        store = self.store
        with store.lock:
            store.batches.setdefault(PartitionId(partition), []).extend(table.combine_chunks().to_batches())
        with store.fed:
            store.fed.notify_all()


def _as_text(record: str | Mapping[str, Any]) -> str:
    return record if isinstance(record, str) else json.dumps(record, default=str)
