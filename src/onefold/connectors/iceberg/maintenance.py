"""What keeps a table small: old snapshots expire, and files that no snapshot names any more are removed.

The token is a property of the table, so no expiry touches it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as fs
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import ManifestEntryStatus

from onefold.connectors.iceberg.catalog import sync_catalog
from onefold.connectors.iceberg.contents import JOINED
from onefold.connectors.iceberg.failure import step_before
from onefold.connectors.iceberg.owners import token_in
from onefold.connectors.iceberg.staged import area_of, folder_of
from onefold.connectors.staging import epoch_of
from onefold.protocols import Maintained
from onefold.types import Binding, EpochNumber

__all__ = ["maintain_table"]

MOST_TRIES = 5

GC = "gc.enabled"
"""A table's property: "false" where its files belong to another table as well."""


def maintain_table(table: Any, binding: Binding, *, before: float, is_dry: bool) -> Sequence[Maintained]:
    """Expire snapshots made before this moment, and remove what they alone named, and leftovers from before it.

    before: seconds since 1970. If killed inside: some files are left, for the next time.
    Raises what pyiceberg and file systems raise.
    """
    old = _old_snapshots(table, before)
    kept = {snapshot.snapshot_id for snapshot in table.metadata.snapshots} - old
    replaced = _files_in(table, old)
    if old and not is_dry:
        with step_before("iceberg.expire", ".".join(table.name()), binding.sink):
            table = _expire(table, before)
            sync_catalog(table.catalog)
        kept = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
    if table.metadata.properties.get(GC) == "false":
        return [Maintained("expired", f"{len(old)} of {len(old) + len(kept)} snapshots; {GC} keeps all files")]
    named = _named(table, kept)
    leftover = [*_leftover(table, binding, named, before)]
    unnamed = sorted(path for path in replaced if path not in named.files)
    if not is_dry:
        for path in (*unnamed, *leftover):
            with step_before("iceberg.remove", ".".join(table.name()), binding.sink):
                _remove(table, path)
    return [
        Maintained("expired", f"{len(old)} of {len(old) + len(kept)} snapshots"),
        Maintained("removed", f"{len(unnamed)} files that no snapshot names, {len(leftover)} leftovers"),
    ]


@dataclass(frozen=True)
class _Named:
    """What the kept snapshots name: rows' files, and files of metadata."""

    files: frozenset[str]
    metadata: frozenset[str]


def _old_snapshots(table: Any, before: float) -> set[int]:
    """Those that no branch and no tag is at."""
    held = {ref.snapshot_id for ref in table.metadata.refs.values()}
    limit = int(before * 1000)
    return {one.snapshot_id for one in table.metadata.snapshots if one.timestamp_ms < limit} - held


def _expire(table: Any, before: float) -> Any:
    moment = dt.datetime.fromtimestamp(before, dt.UTC)
    for attempt in range(MOST_TRIES):
        try:
            table.maintenance.expire_snapshots().older_than(moment).commit()
            break
        except CommitFailedException:
            if attempt == MOST_TRIES - 1:
                raise
        table = table.catalog.load_table(table.name())
    return table.catalog.load_table(table.name())


def _files_in(table: Any, snapshots: set[int]) -> set[str]:
    return {path for path, _ in _entries(table, snapshots)}


def _entries(table: Any, snapshots: set[int]) -> Iterator[tuple[str, str]]:
    """(path, manifest) of the rows' files that these snapshots hold; each manifest is read once."""
    seen: set[str] = set()
    for snapshot in table.metadata.snapshots:
        if snapshot.snapshot_id not in snapshots:
            continue
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                if entry.status != ManifestEntryStatus.DELETED:
                    yield entry.data_file.file_path, manifest.manifest_path


def _named(table: Any, snapshots: set[int]) -> _Named:
    metadata = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    for snapshot in table.metadata.snapshots:
        if snapshot.snapshot_id in snapshots:
            metadata.add(snapshot.manifest_list)
            metadata.update(manifest.manifest_path for manifest in snapshot.manifests(table.io))
    return _Named(frozenset(_files_in(table, snapshots)), frozenset(metadata))


def _leftover(table: Any, binding: Binding, named: _Named, before: float) -> Iterator[str]:
    """Files of ours, and metadata, that were written before and that nothing names; not what waits for delivery."""
    files, root = folder_of(table, binding)
    location = table.location().rstrip("/")
    token = token_in(table, binding)
    for path, entry in area_of(table, binding).listed(EpochNumber(0)):
        epoch = epoch_of(path)
        is_waiting = epoch is None or token is None or epoch > token.epoch
        if not is_waiting and _is_older(entry, before) and f"{location}/{path}" not in named.files:
            yield f"{location}/{path}"
    for folder, known in (("data", named.files), ("metadata", named.metadata)):
        for entry in files.get_file_info(fs.FileSelector(f"{root}/{folder}", allow_not_found=True)):
            is_ours = entry.base_name.startswith(JOINED) if folder == "data" else _is_metadata(entry.base_name)
            path = f"{location}/{folder}/{entry.base_name}"
            if is_ours and _is_older(entry, before) and path not in known:
                yield path


def _is_metadata(name: str) -> bool:
    return name.endswith((".avro", ".metadata.json"))


def _is_older(entry: fs.FileInfo, before: float) -> bool:
    return entry.type is fs.FileType.File and entry.mtime is not None and entry.mtime.timestamp() < before


def _remove(table: Any, path: str) -> None:
    try:
        table.io.delete(path)
    except FileNotFoundError:
        return
