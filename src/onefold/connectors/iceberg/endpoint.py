"""What users make: `of.iceberg(table, catalog=)`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.connectors.iceberg.catalog import CatalogPlace
from onefold.connectors.iceberg.partitions import PartitionPart, parse_partitions
from onefold.connectors.spooling import check_key
from onefold.durations import Duration, duration_micros
from onefold.errors import BuildError, ExtraMissing, NotSupported
from onefold.protocols import Format
from onefold.types import Mode

__all__ = ["IcebergTable", "Making", "Upkeep", "iceberg"]

_SECOND = 1_000_000


def iceberg(
    table: str | Sequence[str],
    catalog: str | Mapping[str, str] = "default",
    *,
    partition_by: str | Sequence[str] = (),
    evolve: bool = False,
    create: bool = True,
    location: str | None = None,
    commit_every: Duration = "10 seconds",
    maintain_every: Duration | None = None,
    retention: Duration = "7 days",
    from_snapshot: int | None = None,
) -> IcebergTable:
    """An Iceberg table, to be written or read.

    Args:
        table: "namespace.name"; or the names one by one, where one has a dot in it.
        catalog: the name of one that pyiceberg is configured for (.pyiceberg.yaml, PYICEBERG_CATALOG__…), or its
            properties, such as {"type": "sql", "uri": "sqlite:///lake.db", "warehouse": "file:///lake"} or {"type":
            "rest", "uri": …}; values may hold ${NAME}: write secrets so. "name" is the catalog's name, "default" if it
            is left out.
        partition_by: how a table that is made is partitioned: columns, or year(c), month(c), day(c), hour(c),
            bucket(16, c), truncate(10, c). A table that is there must be partitioned so, where this is said.
        evolve: columns that the table lacks are added to it.
        create: a table that is not there is made, and its namespace.
        location: where a table that is made keeps its files, if not where the catalog says.
        commit_every: the time between two commits while following; at the end of a run all is committed.
        maintain_every: how often a run expires snapshots and removes leftovers; None: only `onefold maintain` does.
        retention: how long snapshots, and leftover files, are kept.
        from_snapshot: reading begins with what was appended after this snapshot; None: with all rows there are.
    Raises BuildError. Nothing is connected before the flow runs.
    """
    names = tuple(table.split(".")) if isinstance(table, str) else tuple(table)
    if len(names) < len(("namespace", "name")) or not all(names):
        raise BuildError("An Iceberg table is named with its namespace.", found=table, expected="namespace.name")
    upkeep = Upkeep(
        duration_micros(commit_every, what="commit_every") / _SECOND,
        None if maintain_every is None else duration_micros(maintain_every, what="maintain_every") / _SECOND,
        duration_micros(retention, what="retention") / _SECOND,
    )
    wanted = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
    making = Making(parse_partitions(wanted), evolve, create, location)
    return IcebergTable(names, CatalogPlace.of(catalog), making, upkeep, from_snapshot)


@dataclass(frozen=True)
class Making:
    """What becomes of a table that is not as the flow needs it. See `iceberg`."""

    partitions: tuple[PartitionPart, ...] = ()
    evolves: bool = False
    creates: bool = True
    location: str | None = None


@dataclass(frozen=True)
class Upkeep:
    """How often and for how long. See `iceberg`."""

    commit_every_seconds: float = 10.0
    maintain_every_seconds: float | None = None
    retention_seconds: float = 7 * 86_400.0


@dataclass(frozen=True)
class IcebergTable:
    """What `of.iceberg(…)` gives."""

    names: tuple[str, ...]
    catalog: CatalogPlace
    making: Making = Making()
    upkeep: Upkeep = Upkeep()
    from_snapshot: int | None = None

    @property
    def label(self) -> str:
        """iceberg(namespace.name, catalog)."""
        return f"iceberg({'.'.join(self.names)}, {self.catalog.label})"

    @property
    def default_name(self) -> str:
        """The table's name."""
        return self.names[-1]

    def as_source(self, format: Format | None) -> Any:  # noqa: A002  (the protocol's word)
        """The rows that are appended, by snapshot. Raises NotSupported for a format."""
        if format is not None:
            raise NotSupported(f"{self.label} has columns already: it takes no format.", found=format.name)
        _demand_library()
        source = importlib.import_module("onefold.connectors.iceberg.source")
        return source.IcebergSource(self)

    def infer_schema(self) -> pa.Schema:
        """The table's columns. Connects. Raises SourceUnavailable, SourceRefused."""
        source = self.as_source(None)
        try:
            found: pa.Schema = source.infer_schema()
        finally:
            source.close()
        return found

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> Any:
        """A transactional sink. Raises NotSupported for an upsert without a key, ExtraMissing."""
        check_key(mode, key, self.label)
        _demand_library()
        sink = importlib.import_module("onefold.connectors.iceberg.sink")
        return sink.IcebergSink(self, mode)


def _demand_library() -> None:
    if importlib.util.find_spec("pyiceberg") is None or importlib.util.find_spec("pyiceberg_core") is None:
        raise ExtraMissing("Iceberg needs pyiceberg.", next_step="pip install 'onefold[iceberg]'")
