"""Opening a table to write it: make it or check it, add columns, and end what was begun before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.connectors.delta.committing import Refusal, commit_properties, hooks, written
from onefold.connectors.delta.location import deltalake
from onefold.connectors.delta.schema import (
    check_table,
    refuse_other_partitions,
    refuse_partitions,
    required_columns,
)
from onefold.connectors.delta.table import Options, Table
from onefold.connectors.delta.tokens import Held, app_of, held_by, opening, owners_in
from onefold.connectors.spooling import refuse_taken
from onefold.disk import durable_step, make_folder
from onefold.errors import DiskFailed, NotSupported, OutcomeUnknown, SinkRefused, SinkUnavailable

__all__ = ["examine", "fence", "make_or_check", "together_refused"]

MOST_TRIES = 20
"""How often an opening that others keep overtaking is tried."""


def make_or_check(table: Table, options: Options) -> Any:
    """A handle of a table that takes the rows: made, or altered, when it may be.

    Raises SinkUnavailable, SinkRefused, SchemaError, NotSupported, TargetTaken.
    """
    refuse_partitions(options.partition_by, table.kept, table.location.label)
    handle = table.load()
    if handle is None:
        if not options.create:
            raise SinkRefused(
                f"{table.location.label} is not there.",
                found="no table",
                expected="a table",
                next_step="Make it, or say create=True.",
                sink=table.binding.sink,
            )
        _make(table, options)
        handle = table.load()
        if handle is None:
            raise SinkUnavailable(f"{table.location.label} was made and is not there.", sink=table.binding.sink)
    missing = examine(table, handle, options)
    if missing:
        _add(table, handle, missing)
        handle = table.load()
        examine(table, handle, options)
    table.partitions = list(handle.metadata().partition_columns)
    table.required = required_columns(handle, table.kept)
    return handle


def examine(table: Table, handle: Any, options: Options) -> Sequence[str]:
    """The columns that are to be added. Writes nothing. Raises SchemaError, SinkRefused, NotSupported, TargetTaken."""
    binding, label = table.binding, table.location.label
    apps = table.log.apps(handle.version())
    mine = app_of(binding)
    refuse_taken(binding, label, owners_in(app for app in apps if app != mine))
    refuse_other_partitions(handle, options.partition_by, label)
    return check_table(handle, table.kept, binding, label, evolves=options.evolve)


def fence(table: Table, handle: Any) -> Held:
    """Count the opening in the table: a commit that was begun before is a conflict from now on.

    Gives what the table held at that instant. Raises SinkUnavailable, OutcomeUnknown.
    """
    library, app = deltalake(), app_of(table.binding)
    for _ in range(MOST_TRIES):
        held = held_by(handle, table.binding)
        try:
            with durable_step("delta.fence"), written(table):
                handle.create_write_transaction(
                    [],
                    "append",
                    handle.schema(),
                    partition_by=list(handle.metadata().partition_columns),
                    commit_properties=commit_properties([opening(library, app, held.opened + 1)]),
                    post_commithook_properties=hooks(),
                )
        except Refusal:
            handle = table.load()
            if handle is None:
                raise OutcomeUnknown(f"{table.location.label} is gone.", sink=table.binding.sink) from None
            continue
        return Held(table.token(handle, held), held.since, held.opened + 1)
    raise SinkUnavailable(f"{table.location.label} is written too fast to be opened.", sink=table.binding.sink)


def together_refused(label: str) -> NotSupported:
    """The error of a merge under commit="together"."""
    return NotSupported(
        f'{label} cannot be upserted into under commit="together": a merge can lose to whoever adds a file '
        "meanwhile, and after the seal it must not fail.",
        found="upsert",
        expected="append",
        next_step='Append to it, or leave commit="together" out.',
    )


def _make(table: Table, options: Options) -> None:
    library = deltalake()
    folder = table.location.local
    if folder is not None:
        try:
            make_folder(folder)
        except DiskFailed as error:
            if isinstance(error.__cause__, NotADirectoryError | PermissionError | FileExistsError):
                raise SinkRefused(
                    f"{table.location.label} cannot be made: {error.__cause__.strerror}.",
                    found=str(folder),
                    next_step="Name a folder that this user may write to, then run again: nothing is lost.",
                    sink=table.binding.sink,
                ) from error
            raise
    try:
        with durable_step("delta.create"), written(table):
            library.DeltaTable.create(
                table.location.address,
                table.kept,
                mode="error",
                partition_by=list(options.partition_by) or None,
                configuration=dict(options.properties) or None,
                storage_options=table.location.settings(),
                post_commithook_properties=hooks(),
            )
    except (Refusal, OutcomeUnknown):
        if table.load() is None:
            raise
        # somebody else has made it meanwhile


def _add(table: Table, handle: Any, names: Sequence[str]) -> None:
    """Add columns; a conflict is left to the next try."""
    from deltalake import Field, Schema

    wanted = {field.name: field for field in Schema.from_arrow(table.kept).fields}
    fields = [Field(name, wanted[name].type, nullable=True) for name in names]
    try:
        with durable_step("delta.evolve"), written(table):
            handle.alter.add_columns(fields, post_commithook_properties=hooks())
    except Refusal as error:
        raise SinkUnavailable(
            f"{table.location.label} was changed while columns were added.", found=str(error), sink=table.binding.sink
        ) from error
