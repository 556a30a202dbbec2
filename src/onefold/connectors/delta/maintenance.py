"""Looking after a table: joining small files, checkpoints, and removing what nobody reads any more.

Never the token, which checkpoints keep; never rows that wait for their delivery, whose epochs lie behind the token.
deltalake's own VACUUM knows nothing of those, so it only tells which files no version names; and its light form
forgets what a checkpoint has dropped.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from onefold.connectors.delta.committing import Refusal, hooks, written
from onefold.connectors.delta.table import Options, Table
from onefold.connectors.delta.tokens import held_by
from onefold.connectors.staging import FOLDER
from onefold.disk import durable_step
from onefold.errors import OutcomeUnknown, SinkUnavailable
from onefold.protocols import Maintained
from onefold.types import Guarantee

__all__ = ["checkpointed", "maintained"]

CHECKPOINT_EVERY = 20
"""Versions. Without checkpoints, opening a table takes longer with each of them."""

SMALL_BYTES = 32 << 20
SMALL_FILES = 10
"""So many files smaller than that are worth joining: fewer cost more to write again than to read."""

_HOUR_SECONDS = 3600


def maintained(table: Table, options: Options, *, is_dry: bool) -> Sequence[Maintained]:
    """What was done, or would be. Raises SinkUnavailable, SinkRefused, DiskError, OSError."""
    handle = table.load()
    if handle is None:
        return []
    done = [*_compacted(table, handle, is_dry=is_dry)]
    handle = table.load()
    done += _cleaned(table, handle, options, is_dry=is_dry)
    if not is_dry:
        done += checkpointed(table, handle, least=1)
        with durable_step("delta.clean-log"):
            handle.cleanup_metadata()
    return done


def checkpointed(table: Table, handle: Any, *, least: int = CHECKPOINT_EVERY) -> Iterator[Maintained]:
    """Make a checkpoint when the last one is so many versions old. Entries are on the disk before it repeats them."""
    version = handle.version()
    if version - table.log.last_checkpoint() < least:
        return
    table.sync()
    with durable_step("delta.checkpoint"):
        handle.create_checkpoint()
    if table.local is not None:
        table.local.sync_checkpoints()
    yield Maintained("checkpoint", f"of version {version}")


def _compacted(table: Table, handle: Any, *, is_dry: bool) -> Iterator[Maintained]:
    sizes: dict[str, list[int]] = {}
    for size, partition in _files_of(handle):
        if size < SMALL_BYTES:
            sizes.setdefault(partition, []).append(size)
    small = sum(len(found) for found in sizes.values() if len(found) >= SMALL_FILES)
    if not small:
        return
    if is_dry:
        yield Maintained("to compact", f"{small} small files")
        return
    with durable_step("delta.compact"), _told(table):
        found = handle.optimize.compact(post_commithook_properties=hooks())
    table.sync()
    yield Maintained("compacted", f"{found['numFilesRemoved']} files into {found['numFilesAdded']}")


def _cleaned(table: Table, handle: Any, options: Options, *, is_dry: bool) -> Iterator[Maintained]:
    """Files that no version within the retention names: replaced ones as VACUUM does, and our own leftovers."""
    hours = math.ceil(options.retention_seconds / _HOUR_SECONDS)
    held = held_by(handle, table.binding).token
    through = held.epoch if held else None
    if held is None and table.binding.guarantee is Guarantee.EXACTLY_ONCE:
        return  # nothing is decided yet
    candidates = handle.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
    gone = [path for path in candidates if not path.startswith(f"{FOLDER}/") or table.area.is_outrun(path, through)]
    if gone and not is_dry:
        for path in gone:
            table.area.remove(path)
    if gone:
        yield Maintained("to remove" if is_dry else "removed", f"{len(gone)} files that no version names")


def _files_of(handle: Any) -> Iterator[tuple[int, str]]:
    """(size, partition) of every file."""
    import pyarrow as pa

    actions = pa.table(handle.get_add_actions())
    partitions = actions.column("partition") if "partition" in actions.schema.names else None
    for place, size in enumerate(actions.column("size_bytes").to_pylist()):
        yield size, "" if partitions is None else str(partitions[place])


@contextlib.contextmanager
def _told(table: Table) -> Iterator[None]:
    """A compaction that lost to another writer, or whose outcome is unknown, is made another time."""
    try:
        with written(table):
            yield
    except (Refusal, OutcomeUnknown) as error:
        raise SinkUnavailable(
            f"{table.location.label} was changed while it was compacted.", found=str(error), sink=table.binding.sink
        ) from error
