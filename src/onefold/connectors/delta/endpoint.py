"""What users make: `of.delta(uri)`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from onefold.connectors.delta.location import Location
from onefold.connectors.delta.sink import DeltaSink
from onefold.connectors.delta.source import DeltaSource
from onefold.connectors.delta.table import Options
from onefold.connectors.spooling import check_key
from onefold.durations import Duration, duration_micros
from onefold.errors import BuildError, NotSupported
from onefold.protocols import Format
from onefold.types import Mode

__all__ = ["DeltaTableEndpoint", "delta"]

_MICROS = 1_000_000
_LEAST_RETENTION_SECONDS = 3600


def delta(
    uri: str | Path,
    *,
    storage_options: Mapping[str, str] | None = None,
    partition_by: str | Sequence[str] = (),
    evolve: bool = False,
    create: bool = True,
    properties: Mapping[str, str] | None = None,
    commit_every: Duration = "10 seconds",
    maintain_every: Duration | None = None,
    retention: Duration = "7 days",
    from_version: int | None = None,
    changes: bool = False,
) -> DeltaTableEndpoint:
    """A Delta Lake table, in a folder or in an object store. Appends, upserts and deletes exactly once.

    Args:
        uri: a folder, or s3://bucket/prefix, az://…, gs://…; may hold ${NAME}.
        storage_options: for the object store, as deltalake knows them, such as AWS_REGION; values may hold ${NAME}:
            write secrets so.
        partition_by: columns of whole numbers, texts, dates or booleans that a new table is partitioned by.
        evolve: columns that the table lacks are added to it; otherwise they are an error when the flow starts.
        create: make the table when it is not there. properties: of a table that is made, such as
            delta.enableChangeDataFeed.
        commit_every: epochs are gathered for so long, so that the table does not get a version for each of them.
        maintain_every: how often a run looks after the table (`onefold maintain` does it by hand): joins small files,
            makes a checkpoint, removes files that no version younger than `retention` names.
        retention: how long a reader may hold on to a version.
        from_version: where a new flow that reads the table begins; otherwise with all rows that are there.
        changes: read it as a change stream with `_op`, "upsert" or "delete"; otherwise a version that takes rows back
            (UPDATE, DELETE, MERGE) stops the flow.
    Raises BuildError. Nothing is connected before the flow runs.
    """
    columns = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
    retention_seconds = duration_micros(retention, what="retention") / _MICROS
    if retention_seconds < _LEAST_RETENTION_SECONDS:
        raise BuildError("A retention so short would take files from readers.", found=retention, expected="1 hour")
    every = None if maintain_every is None else duration_micros(maintain_every, what="maintain_every") / _MICROS
    options = Options(
        partition_by=columns,
        evolve=evolve,
        create=create,
        properties=tuple(sorted((properties or {}).items())),
        commit_every_seconds=duration_micros(commit_every, what="commit_every") / _MICROS,
        maintain_every_seconds=every,
        retention_seconds=retention_seconds,
    )
    return DeltaTableEndpoint(Location(str(uri), dict(storage_options or {})), options, from_version, changes)


@dataclass(frozen=True)
class DeltaTableEndpoint:
    """What `of.delta(uri)` gives."""

    location: Location
    options: Options = field(default_factory=Options)
    from_version: int | None = None
    changes: bool = False

    @property
    def label(self) -> str:
        """delta(uri)."""
        return self.location.label

    @property
    def default_name(self) -> str:
        """The last part of the address that is a plain name."""
        for part in reversed(re.split(r"[/\\]", self.location.uri)):
            if part and not set(part) & set("${}:"):
                return part
        return "delta"

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> DeltaSink:
        """A transactional sink. Raises NotSupported for an upsert without a key."""
        check_key(mode, key, self.label)
        return DeltaSink(self.location, replace(self.options, mode=mode))

    def as_source(self, format: Format | None) -> DeltaSource:  # noqa: A002  (the protocol's word)
        """A replayable source of one partition. Raises NotSupported for a format: rows come typed."""
        if format is not None:
            raise NotSupported(f"{self.label} gives typed rows, not bytes to decode.", found=format.name)
        return DeltaSource(self.location, from_version=self.from_version, changes=self.changes)

    def infer_schema(self) -> pa.Schema:
        """The table's columns. Raises SourceUnavailable, SourceRefused."""
        return self.as_source(None).infer_schema()
