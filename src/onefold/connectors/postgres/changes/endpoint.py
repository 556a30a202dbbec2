"""What users make: `of.postgres(url).changes(tables)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.connectors.postgres.changes.slot import check_slot_name
from onefold.connectors.postgres.changes.source import ChangesSource
from onefold.connectors.postgres.changes.wanted import Wanted, changes_label
from onefold.connectors.postgres.connection import Server
from onefold.connectors.postgres.types import quoted
from onefold.errors import BuildError, NotSupported
from onefold.protocols import Format

__all__ = ["PostgresChanges", "wanted_of"]


def wanted_of(
    table: str | Sequence[str], schema: str, slot: str | None, publication: str | None, **rest: Any
) -> Wanted:
    """What is asked for. Raises BuildError for what cannot be."""
    names = (table,) if isinstance(table, str) else tuple(table)
    if not names or len(set(names)) < len(names):
        raise BuildError("Which tables?", found=repr(table), expected="one name, or several different ones")
    for name in (schema, *names):
        quoted(name)
    for option, allowed in (("unchanged", ("refuse", "stop")), ("truncate", ("stop", "ignore"))):
        if rest[option] not in allowed:
            raise BuildError(f"There is no such {option}.", found=repr(rest[option]), expected=" or ".join(allowed))
    if slot is not None:
        check_slot_name(slot)
    if publication is not None:
        quoted(publication)
    return Wanted(names, schema, slot, publication, **rest)


@dataclass(frozen=True)
class PostgresChanges:
    """What `of.postgres(url).changes(…)` gives."""

    server: Server
    wanted: Wanted

    @property
    def label(self) -> str:
        """postgres(url).changes(tables)."""
        return changes_label(self.server, self.wanted)

    @property
    def default_name(self) -> str:
        """The table's name; of several, "changes"."""
        return self.wanted.tables[0] if len(self.wanted.tables) == 1 else "changes"

    def as_source(self, format: Format | None) -> ChangesSource:  # noqa: A002  (the protocol's word)
        """A source of typed rows. Raises NotSupported when a format is given."""
        if format is not None:
            raise NotSupported(f"{self.label} gives typed rows.", found=f"format {format.name}", expected="no format")
        return ChangesSource(self.server, self.wanted)

    def infer_schema(self) -> pa.Schema:
        """The columns of all tables, and `_op`. Raises SourceUnavailable, SourceRefused, SchemaError."""
        return self.as_source(None).infer_schema()
