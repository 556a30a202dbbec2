"""What the user asked for, held against the tables that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from onefold.connectors.postgres.changes.catalog import SeenTable, columns_of
from onefold.connectors.postgres.changes.rows import META
from onefold.connectors.postgres.connection import Server
from onefold.connectors.spooling import OP_COLUMN
from onefold.errors import SchemaError, SourceRefused
from onefold.protocols import Copy

__all__ = ["Wanted", "changes_label", "columns_wanted", "demand_keys"]


@dataclass(frozen=True)
class Wanted:
    """What `of.postgres(url).changes(…)` was asked for."""

    tables: tuple[str, ...]
    schema: str = "public"
    slot: str | None = None
    publication: str | None = None
    snapshot: bool = True
    unchanged: Literal["refuse", "stop"] = "refuse"
    truncate: Literal["stop", "ignore"] = "stop"


def changes_label(server: Server, wanted: Wanted) -> str:
    """postgres(url).changes(tables)."""
    prefix = "" if wanted.schema == "public" else f"{wanted.schema}."
    return f"{server.label}.changes({', '.join(prefix + name for name in wanted.tables)})"


def columns_wanted(
    wanted: Wanted, tables: Sequence[SeenTable], declared: pa.Schema | None, label: str
) -> dict[str, pa.DataType]:
    """The columns to read, with the types that they are read as. declared: by the flow; None: all.

    Raises SchemaError, SourceRefused for tables that cannot be read as wanted.
    """
    found = columns_of(tables)
    columns = {name: column.arrow for name, column in found.items()}
    if declared is not None:
        names = [name for name in declared.names if name != OP_COLUMN]
        for name in names:
            if name not in found:
                raise SchemaError(f"{label} has no column {name}.", expected=", ".join(found))
        columns = {name: _as_declared(columns[name], declared.field(name).type) for name in names}
    for table in tables:
        _demand_key(wanted, table, label)
        _demand_whole_rows(wanted, table, columns, label)
    return columns


def demand_keys(copies: Sequence[Copy], tables: Sequence[SeenTable], label: str) -> None:
    """Each copy is keyed by the key of the tables that reach it. Raises SchemaError.

    A copy that gets some of the tables by a condition other than `_table = '…'` must have the key of one of them.
    """
    for copy in copies:
        only = copy.only.get("_table")
        reaching = [table for table in tables if table.key and (only is None or table.name in only)]
        faults = [fault for table in reaching if (fault := _fault(copy, table)) is not None]
        if faults and (not copy.is_narrowed or len(faults) == len(reaching)):
            table, what, expected = faults[0]
            raise SchemaError(
                f"{label}: a delete names the key of {table.name} alone, so the copy would keep rows that are gone.",
                found=f"sink {copy.sink} by {what}",
                expected=expected,
                next_step=f"Upsert it by key={list(table.key)}, without latest_by.",
            )


def _fault(copy: Copy, table: SeenTable) -> tuple[SeenTable, str, str] | None:
    """What of the copy does not fit the table, and what would."""
    key = copy.key - {"_table"}
    if key != set(table.key):
        return table, f"key {', '.join(sorted(key)) or 'none'}", f"key {', '.join(table.key)}"
    unknown = copy.latest_by - {*table.identified, *META.names}
    if unknown:
        expected = "no latest_by (changes come in their order), or one that deletes hold: _lsn, or a column of the key"
        return table, f"latest_by {', '.join(sorted(unknown))}", expected
    return None


def _demand_key(wanted: Wanted, table: SeenTable, label: str) -> None:
    if wanted.snapshot and not table.key:
        raise SourceRefused(
            f"{label}: {table.name} has no key to read it by for the first time.",
            next_step="Give it a primary key, or say snapshot=False to read only what changes from now on.",
        )


def _demand_whole_rows(wanted: Wanted, table: SeenTable, columns: dict[str, pa.DataType], label: str) -> None:
    large = [name for name in table.large if name in columns]
    if large and wanted.unchanged == "refuse":
        raise SourceRefused(
            f"{label}: the log leaves out large values of {table.name} that an update does not change.",
            found=f"columns that can hold them: {', '.join(large)}",
            expected="REPLICA IDENTITY FULL, under which the log holds whole rows",
            next_step=f"ALTER TABLE {table.qualified} REPLICA IDENTITY FULL; or, if no row ever has 2 kB, say "
            'unchanged="stop": should one come, the flow stops there.',
        )


def _as_declared(found: pa.DataType, declared: pa.DataType) -> pa.DataType:
    """Text where the flow wants text; else the server's type, which the flow's reader makes what it wants."""
    return declared if pa.types.is_string(declared) else found
