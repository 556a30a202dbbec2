"""What users make: `of.sqlite(path).table(name)`."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from onefold.connectors.spooling import check_key
from onefold.connectors.sqlite.sink import SqliteSink
from onefold.connectors.sqlite.source import SqliteSource
from onefold.errors import NotSupported
from onefold.protocols import Format
from onefold.types import Mode

__all__ = ["SqliteFile", "SqliteTable"]


@dataclass(frozen=True)
class SqliteFile:
    """A SQLite file. path may hold ${NAME}."""

    path: str

    def table(self, name: str, *, key: str | None = None) -> SqliteTable:
        """A table of it; the name is taken as it is.

        key: to read it, the integer column that grows with every row; None: the rowid.
        """
        return SqliteTable(self.path, name, key)


@dataclass(frozen=True)
class SqliteTable:
    """What `of.sqlite(path).table(name)` gives."""

    path: str
    name: str
    key: str | None = None

    @property
    def label(self) -> str:
        """sqlite(path).name."""
        return f"sqlite({self.path}).{self.name}"

    @property
    def default_name(self) -> str:
        """The table's name."""
        return self.name

    def as_source(self, format: Format | None) -> SqliteSource:  # noqa: A002  (the protocol's word)
        """A source of an append-only table. Raises NotSupported when a format is given: rows are typed."""
        if format is not None:
            raise NotSupported(f"{self.label} gives typed rows.", found=f"format {format.name}", expected="no format")
        return SqliteSource(self.path, self.name, self.key)

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> SqliteSink:
        """A transactional sink. Raises NotSupported for an upsert without a key."""
        check_key(mode, key, self.label)
        return SqliteSink(self.path, self.name)

    def infer_schema(self) -> pa.Schema:
        """The table's columns. Raises SourceUnavailable."""
        return self.as_source(None).infer_schema()
