"""Commits of a table: appending finished files, merging rows, moving the token alone; and what an error means."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from onefold.connectors.delta.location import deltalake
from onefold.connectors.delta.table import Table
from onefold.connectors.delta.tokens import held_by, metadata_of, moves
from onefold.connectors.spooling import same_token
from onefold.errors import OutcomeUnknown, SinkRefused
from onefold.types import Guarantee, TokenMove

__all__ = ["Added", "Refusal", "append", "commit_properties", "hooks", "merge", "written"]

DELETES = "_onefold_deletes"
"""A column of the rows that are merged: whether the row says delete."""


class Refusal(Exception):
    """The table took something else in between, or does not take this: unless it says otherwise, nothing is written."""


@dataclass(frozen=True)
class Added:
    """A file that a commit is to name: path below the table's folder, and what the log says of it."""

    path: str
    size_bytes: int
    partition: Mapping[str, str | None]
    statistics: str


@dataclass(frozen=True)
class Moving:
    """The token's move in a commit. opened: the count of this sink's own opening."""

    move: TokenMove | None
    opened: int


def append(table: Table, handle: Any, added: Sequence[Added], moving: Moving, *, now_ms: int) -> None:
    """One commit that names the files. Raises Refusal, OutcomeUnknown."""
    from deltalake.transaction import AddAction

    actions = [AddAction(one.path, one.size_bytes, one.partition, now_ms, True, one.statistics) for one in added]
    with written(table):
        handle.create_write_transaction(
            actions,
            "append",
            handle.schema(),
            partition_by=list(table.partitions),
            commit_properties=_properties(table, handle, moving),
            post_commithook_properties=hooks(),
        )


def merge(table: Table, handle: Any, rows: pa.Table, moving: Moving) -> None:
    """One commit that upserts and deletes by key. rows: the kept columns and DELETES, one row a key.

    One that changes nothing is not written by the library: then the token is moved alone, on the same handle. Raises
    Refusal, OutcomeUnknown.
    """
    if rows.num_rows:
        with written(table):
            _merge(table, handle, rows, moving)
        if moving.move is None or same_token(held_by(handle, table.binding).token, moving.move.new):
            return
    append(table, handle, (), moving, now_ms=0)


def _merge(table: Table, handle: Any, rows: pa.Table, moving: Moving) -> None:
    names, key = table.kept.names, table.binding.key
    builder = handle.merge(
        rows,
        " AND ".join(f"({_same(rows, name)})" for name in key),
        source_alias="s",
        target_alias="t",
        commit_properties=_properties(table, handle, moving),
        post_commithook_properties=hooks(),
    )
    builder = builder.when_matched_delete(f"s.{DELETES}")
    changed = {_quoted(name): f"s.{_quoted(name)}" for name in names if name not in key}
    if changed:
        builder = builder.when_matched_update(changed, f"NOT s.{DELETES}")
    builder.when_not_matched_insert(
        {_quoted(name): f"s.{_quoted(name)}" for name in names}, f"NOT s.{DELETES}"
    ).execute()


def _same(rows: pa.Table, name: str) -> str:
    """NULL is a key like any other; where the rows have none, the plain comparison lets files be passed over."""
    sign = "IS NOT DISTINCT FROM" if rows.column(name).null_count else "="
    return f"t.{_quoted(name)} {sign} s.{_quoted(name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _properties(table: Table, handle: Any, moving: Moving) -> Any:
    if moving.move is None:
        tries = 0 if table.binding.guarantee is Guarantee.AT_MOST_ONCE else None
        return commit_properties([], most_tries=tries)
    since = handle.version() + 1
    identifiers = moves(deltalake(), table.binding, moving.move, since=since, opened=moving.opened)
    return commit_properties(identifiers, metadata=metadata_of(moving.move))


def commit_properties(
    identifiers: Sequence[Any], *, metadata: Mapping[str, Any] | None = None, most_tries: int | None = None
) -> Any:
    """What a commit carries besides its actions."""
    return deltalake().CommitProperties(
        custom_metadata=dict(metadata) if metadata else None,
        max_commit_retries=most_tries,
        app_transactions=list(identifiers),
    )


def hooks() -> Any:
    """Nothing after a commit: a checkpoint comes when the entries that it repeats are on the disk."""
    return deltalake().PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@contextlib.contextmanager
def written(table: Table) -> Iterator[None]:
    """Raises Refusal when the library found a conflict, SinkRefused for a table it does not write, else OutcomeUnknown.

    A conflict can be with ourselves: a client of an object store repeats a request whose answer was lost.
    """
    library = deltalake()
    try:
        yield
    except library.exceptions.CommitFailedError as error:
        raise Refusal(table.location.clean(error)) from None
    except library.exceptions.DeltaProtocolError as error:
        raise SinkRefused(
            f"{table.location.label} cannot be written.",
            found=table.location.clean(error),
            next_step="deltalake does not write tables with this feature: drop it, or write to another table.",
            sink=table.binding.sink,
        ) from None
    except (library.exceptions.DeltaError, OSError) as error:
        raise OutcomeUnknown(
            f"{table.location.label} did not answer a commit.",
            found=table.location.clean(error),
            sink=table.binding.sink,
        ) from None
