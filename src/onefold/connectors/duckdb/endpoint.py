"""What users make: `of.duckdb(path).table(name)`."""

from __future__ import annotations

from dataclasses import dataclass

from onefold.connectors.duckdb.sink import DuckdbSink
from onefold.connectors.spooling import check_key
from onefold.errors import NotSupported
from onefold.protocols import Format, Source
from onefold.types import Mode

__all__ = ["DuckdbFile", "DuckdbTable"]


@dataclass(frozen=True)
class DuckdbFile:
    """A DuckDB file. path may hold ${NAME}."""

    path: str

    def table(self, name: str, *, schema: str = "main") -> DuckdbTable:
        """A table of it; names are taken as they are, quotes and dots included."""
        return DuckdbTable(self.path, name, schema)


@dataclass(frozen=True)
class DuckdbTable:
    """What `of.duckdb(path).table(name)` gives."""

    path: str
    name: str
    schema: str = "main"

    @property
    def label(self) -> str:
        """duckdb(path).name."""
        return f"duckdb({self.path}).{self.name}"

    @property
    def default_name(self) -> str:
        """The table's name."""
        return self.name

    def as_source(self, format: Format | None) -> Source:  # noqa: A002  (the protocol's words)
        """Refused: a DuckDB table has no order of arrival to follow."""
        raise NotSupported(
            f"{self.label} cannot be read as a stream.",
            next_step="Export it with COPY … TO 'folder' (FORMAT parquet) and read of.files('folder/*.parquet').",
        )

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> DuckdbSink:
        """A transactional sink. Raises NotSupported for an upsert without a key."""
        check_key(mode, key, self.label)
        return DuckdbSink(self.path, self.name, self.schema)
