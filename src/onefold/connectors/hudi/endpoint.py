"""What users make: `of.hudi(folder)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.connectors.hudi.place import Address
from onefold.connectors.hudi.shape import Target
from onefold.connectors.hudi.sink import HudiSink
from onefold.connectors.hudi.source import HudiSource
from onefold.connectors.spooling import check_key
from onefold.durations import Duration, duration_micros
from onefold.errors import NotSupported
from onefold.types import Mode

__all__ = ["Hudi", "hudi"]

_MICROS = 1_000_000


def hudi(
    uri: str,
    *,
    storage_options: Mapping[str, str] | None = None,
    partition_by: str | Sequence[str] = (),
    table_type: str = "cow",
    add_columns: bool = False,
    commit_every: Duration = "10 seconds",
    maintain_every: Duration | None = None,
    options: Mapping[str, str] | None = None,
    jars: str | None = None,
    java_options: Sequence[str] = (),
) -> Hudi:
    """An Apache Hudi table, in a folder or in an S3-compatible store; it is made when it is not there.

    Hudi's own Java engine writes it.

    Needs a Java runtime (11 or 17) and Hudi's jars, which are fetched from Maven Central when a flow first runs.

    Args:
        uri: the table's folder, or s3://bucket/prefix; may hold ${NAME}.
        storage_options: for the store: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
            AWS_ENDPOINT_URL, AWS_ALLOW_HTTP; what is not said here comes from the environment, as Amazon's clients look
            for it. Values may hold ${NAME}: write secrets so.
        partition_by: columns whose values name the folders of a new table. Upserts need them in their key.
        table_type: "cow": copy-on-write, the only one.
        add_columns: columns that the flow writes and the table lacks are added to it.
        commit_every: the least time from one commit to the next; a run's last comes at once.
        maintain_every: how often, within a run, orphans are removed and Hudi cleans and archives; None: only by
            `onefold maintain`.
        options: of Hudi's writer, such as {"hoodie.parquet.small.file.limit": "0"}.
        jars: a folder with Hudi's jars, instead of fetching them.
        java_options: of the JVM, such as ["-Xmx4g"].
    Raises BuildError, NotSupported. Nothing is started before the flow runs.
    """
    if table_type != "cow":
        raise NotSupported("Only copy-on-write tables of Hudi are written.", found=table_type, expected="cow")
    folders = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
    return Hudi(
        Target(
            address=Address(str(uri), dict(storage_options or {})),
            partition_by=folders,
            options=dict(options or {}),
            jars=jars,
            java_options=tuple(java_options),
            commit_every_seconds=duration_micros(commit_every, what="commit_every") / _MICROS,
            maintain_every_seconds=None
            if maintain_every is None
            else duration_micros(maintain_every, what="maintain_every") / _MICROS,
            may_add_columns=add_columns,
        )
    )


@dataclass(frozen=True)
class Hudi:
    """What `of.hudi(folder)` gives."""

    target: Target

    @property
    def label(self) -> str:
        """hudi(folder)."""
        return self.target.label

    @property
    def default_name(self) -> str:
        """The folder's own name."""
        return self.target.address.uri.rstrip("/").rpartition("/")[2] or "hudi"

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> HudiSink:
        """A sink of the table."""
        check_key(mode, key, self.label)
        return HudiSink(self.target, mode, key)

    def as_source(self, format: Any) -> HudiSource:  # noqa: A002 - the protocol's word
        """The rows that are inserted and updated, by instant. Raises NotSupported for a format."""
        if format is not None:
            raise NotSupported(f"{self.label} has columns already: it takes no format.", found=format.name)
        return HudiSource(self.target.address)

    def infer_schema(self) -> pa.Schema:
        """The table's columns. Reads it. Raises SourceUnavailable, SourceRefused, ExtraMissing."""
        return self.as_source(None).infer_schema()
