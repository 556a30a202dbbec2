"""Checkpoints of a DuckDB file that may be cut off.

DuckDB 2.0 writes the metadata of a checkpoint over blocks that the former one still needs: in place, 256 KiB under one
checksum. Killed inside that write, or without power, it leaves a file that no DuckDB opens again ("Corrupt database
file"; seen after a SIGKILL). So DuckDB checkpoints only when we ask for it, those blocks are copied and synced first,
and they are put back if the checkpoint did not reach its end, which is when the file's header changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import duckdb

from onefold.clock import new_seal_id
from onefold.disk import durable_step, overwrite, publish, remove, write_synced
from onefold.errors import DiskError

__all__ = ["DUE_BYTES", "checkpoint_if_due", "mend", "only_when_asked"]

LOG = logging.getLogger("onefold")

DUE_BYTES = 4 << 20
"""A log of this size is replayed in some 20 ms, by every delivery and by everyone who reads the file."""

HEADER_BYTES = 12288
"""The main header, which names the database, and two that take turns: the newer one says which blocks count."""

_PIECE = struct.Struct("<QQ")


def only_when_asked(connection: duckdb.DuckDBPyConnection) -> None:
    """From now on DuckDB does not checkpoint by itself: not by size, not when it closes the file."""
    connection.execute("SET wal_autocheckpoint = '1TB'")
    connection.execute("SET auto_checkpoint_skip_wal_threshold = 1000000000000")
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")


def checkpoint_if_due(
    connection: duckdb.DuckDBPyConnection, path: Path, file: BinaryIO, *, due_bytes: int = DUE_BYTES
) -> None:
    """Move the log into the file once it has this size. One that fails is tried again by the next delivery.

    file: the database, opened before the connection and closed after it, because closing it ends DuckDB's lock (POSIX).
    If killed inside: `mend` makes the file what it was.
    """
    log = path.with_name(f"{path.name}.wal")
    if not log.exists() or log.stat().st_size < due_bytes:
        return
    try:
        saved = _save(connection, path, file)
        with durable_step("duckdb.checkpoint"):
            connection.execute("CHECKPOINT")
        remove(saved, step="duckdb.checkpointed")
    except (duckdb.Error, DiskError) as error:
        LOG.warning("%s: a checkpoint failed and will be tried again: %s", path, error)


def mend(path: Path) -> None:
    """Undo a checkpoint that was cut off. Does nothing while another process holds the file: it may be at it now.

    If killed inside: it begins anew.
    """
    saved = _saved(path)
    if not saved.exists():
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        with contextlib.suppress(BlockingIOError, PermissionError):
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock that DuckDB takes
            (_, header), *blocks = _read(saved)
            if os.pread(descriptor, HEADER_BYTES, 0) == header:
                LOG.warning("%s: a checkpoint was cut off, and is undone", path)
                overwrite(descriptor, blocks, step="duckdb.mend")
            remove(saved, step="duckdb.mended")
    finally:
        os.close(descriptor)


def _saved(path: Path) -> Path:
    return path.with_name(f".{path.name}.before-checkpoint")


def _save(connection: duckdb.DuckDBPyConnection, path: Path, file: BinaryIO) -> Path:
    """Copy the header and every block that a checkpoint may write in place. If killed inside: no copy, or all of it."""
    sizes = connection.execute("SELECT block_size FROM pragma_database_size()").fetchone()
    block_bytes = int(sizes[0]) if sizes else 0
    numbers = [int(row[0]) for row in connection.execute("SELECT block_id FROM pragma_metadata_info()").fetchall()]
    pieces = [(0, HEADER_BYTES), *((HEADER_BYTES + number * block_bytes, block_bytes) for number in sorted(numbers))]
    temporary = path.with_name(f".{path.name}.{new_seal_id()}.new")
    try:
        write_synced(temporary, _packed(file, pieces), step="duckdb.copy")
        publish(temporary, _saved(path), step="duckdb.copied")
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return _saved(path)


def _packed(file: BinaryIO, pieces: list[tuple[int, int]]) -> Iterator[bytes]:
    """Offset, size and bytes of each piece."""
    for offset, size in pieces:
        found = os.pread(file.fileno(), size, offset)
        yield _PIECE.pack(offset, len(found))
        yield found


def _read(saved: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each piece, the header first."""
    body = saved.read_bytes()
    at = 0
    while at < len(body):
        offset, size = _PIECE.unpack_from(body, at)
        at += _PIECE.size
        yield offset, body[at : at + size]
        at += size
