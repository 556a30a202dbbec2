"""What users make: `of.postgres(url).outbox(name)`."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from onefold.connectors.postgres.outbox import OutboxSource
from onefold.connectors.postgres.outbox_table import Outbox
from onefold.errors import NotSupported
from onefold.protocols import Format

__all__ = ["PostgresOutbox"]


@dataclass(frozen=True)
class PostgresOutbox:
    """What `of.postgres(url).outbox(name)` gives."""

    outbox: Outbox

    @property
    def label(self) -> str:
        """postgres(url).outbox(name), or with the schema when it is not public."""
        return self.outbox.label

    @property
    def default_name(self) -> str:
        """The table's name."""
        return self.outbox.name

    def as_source(self, format: Format | None) -> OutboxSource:  # noqa: A002  (the protocol's word)
        """A source of typed rows. Raises NotSupported when a format is given."""
        if format is not None:
            raise NotSupported(f"{self.label} gives typed rows.", found=f"format {format.name}", expected="no format")
        return OutboxSource(self.outbox)

    def infer_schema(self) -> pa.Schema:
        """The table's columns, without the transaction's. Raises SourceUnavailable, SourceRefused, SchemaError."""
        return self.as_source(None).infer_schema()
