"""The spool: prepared rows and large state deltas as files beside the journal, or inline in its records.

Nobody trusts a file before a seal names it with its size and checksum, so it needs no rename: data, then folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from onefold.disk import durable_step, make_folder, remove, sync_folder, write_synced
from onefold.errors import FileCorrupt

__all__ = ["INLINE_BYTES", "FolderSpool", "from_ipc", "to_ipc"]

INLINE_BYTES = 256 << 10
"""Payloads up to this size live inside the seal: one fsync for all of them."""

_COMPRESS_FROM = 4 << 10


def to_ipc(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Buffer:
    """An Arrow IPC stream, LZ4-compressed unless tiny."""
    batches = [batch for batch in batches if batch.num_rows]
    size = sum(batch.nbytes for batch in batches)
    options = pa.ipc.IpcWriteOptions(compression="lz4" if size > _COMPRESS_FROM else None)
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return out.getvalue()


def from_ipc(body: bytes | pa.Buffer) -> pa.Table:
    """The inverse of `to_ipc`. Raises pyarrow.ArrowInvalid on anything else."""
    with pa.ipc.open_stream(body) as reader:
        return reader.read_all()


class FolderSpool:
    """See onefold.protocols.Spool. Used by several threads; names are the callers' and unique.

    Args:
        folder: is made when missing.
        incarnation: the process's; its files' names begin with it.
    """

    def __init__(self, folder: Path, *, incarnation: int = 1) -> None:
        make_folder(folder)
        self.folder = folder
        self._incarnation = incarnation

    def put(
        self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema
    ) -> tuple[Mapping[str, Any], bytes | None]:
        """See Spool. detail: {"size", "checksum"} and, for a file, {"file"}."""
        body = to_ipc(batches, schema)
        detail: dict[str, Any] = {"size": body.size, "checksum": xxhash.xxh3_128_hexdigest(body)}
        if body.size <= INLINE_BYTES:
            return detail, body.to_pybytes()
        detail["file"] = f"{self._incarnation}-{name}.arrow"
        path = self.folder / detail["file"]
        remove(path, step="spool.clear")  # a dead incarnation's leftover of the same name
        write_synced(path, [memoryview(body)], step="spool.write")
        with durable_step("spool.name"):
            sync_folder(self.folder)
        return detail, None

    def get(self, detail: Mapping[str, Any], inline: bytes | None) -> pa.Table:
        """See Spool."""
        path = self.folder / str(detail.get("file", ""))
        if inline is None:
            try:
                body: bytes | pa.Buffer = pa.py_buffer(path.read_bytes())
            except (FileNotFoundError, IsADirectoryError):
                raise FileCorrupt(file=path, found="no such file", expected=f"{detail['size']} bytes") from None
            except OSError as error:
                raise FileCorrupt(file=path, found=str(error), expected=f"{detail['size']} bytes") from error
        else:
            body = inline
        if xxhash.xxh3_128_hexdigest(body) != detail["checksum"]:
            where = path if inline is None else "the journal's inline payload"
            raise FileCorrupt(file=where, found="another checksum", expected=f"xxh3 {detail['checksum']}")
        return from_ipc(body)

    def free(self, detail: Mapping[str, Any]) -> None:
        """See Spool."""
        if "file" in detail:
            remove(self.folder / str(detail["file"]), step="spool.free")

    def sweep(self, named: Iterable[str]) -> int:
        """Remove files of earlier incarnations that no seal names (left by a crash before its seal). Returns how many.

        Not those of later ones: a process that slept since its start must not remove what its successor sealed (INV-2).
        """
        keep = set(named)
        leftovers = [path for path in self.folder.iterdir() if path.name not in keep and self._is_earlier(path)]
        for path in leftovers:
            remove(path, step="spool.sweep")
        return len(leftovers)

    def _is_earlier(self, path: Path) -> bool:
        incarnation, _, _ = path.name.partition("-")
        return incarnation.isdecimal() and int(incarnation) < self._incarnation
