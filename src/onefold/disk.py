"""Durable file operations: the one port through which onefold makes bytes survive power loss.

Every operation that must survive (or must be seen to fail) is a *durable step* with a name. Crash tests set
`observer` and are called before and after each step, in order; production leaves it None.

Rules (INV-9): a file is synced before it gets its final name, its folder after; a failed sync is fatal and never
retried, because the kernel may already have dropped the dirty pages (Rebello et al., ATC 2020).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from onefold.errors import DiskFailed, DiskFull

__all__ = [
    "Moment",
    "durable_step",
    "make_folder",
    "overwrite",
    "publish",
    "publish_exclusive",
    "remove",
    "sync_folder",
    "sync_path",
    "write_synced",
]

Moment = Literal["before", "after"]

observer: Callable[[str, Moment], None] | None = None
"""Called as observer(step name, "before" | "after") around every durable step. Tests only."""

_F_FULLFSYNC = 51  # macOS: fsync alone does not reach the platter (Apple, fcntl(2))

_NOT_KNOWN_HERE = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
"""What a file system without F_FULLFSYNC says: nothing was synced, so fsync is no second try. SQLite does the same."""


@contextlib.contextmanager
def durable_step(name: str) -> Iterator[None]:
    """Mark the block as one durable step, for instance `with durable_step("duckdb.commit"): con.commit()`.

    Raises whatever the block raises; an OSError becomes DiskFull or DiskFailed.
    If killed inside: the step happened wholly or not at all as far as the wrapped operation promises it.
    """
    try:
        if observer is not None:
            observer(name, "before")
        yield
        if observer is not None:
            observer(name, "after")
    except OSError as error:
        raise _translate(name, error) from error


def sync_file(descriptor: int) -> None:
    """Force a file's bytes to stable storage. Raises OSError; never call it again after a failure."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(descriptor, _F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _NOT_KNOWN_HERE:
                raise
        else:
            return
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (names made, renamed or removed in it) to stable storage."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def sync_path(path: Path) -> None:
    """Force the bytes of a file that somebody else wrote to stable storage. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create the folder and its missing parents durably; an existing one is fine."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        with durable_step("folder.make"):
            path.mkdir(exist_ok=True)
            sync_folder(path.parent)


def write_synced(path: Path, chunks: Iterable[bytes | memoryview], *, step: str) -> int:
    """Write a new file and sync its bytes (not its folder). Returns the size in bytes.

    If killed inside: the file may be missing, partial or whole; give it a name that nobody trusts until `publish`.
    Raises DiskFull, DiskFailed.
    """
    size = 0
    with durable_step(step), _naming(path), path.open("xb", buffering=0) as file:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            while view:  # a raw write may be short
                written = file.write(view)
                size += written
                view = view[written:]
        sync_file(file.fileno())
    return size


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of reading and writing an open file do not say which one it was."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def overwrite(descriptor: int, pieces: Iterable[tuple[int, bytes]], *, step: str) -> None:
    """Write bytes over those at these offsets of an open file, and sync them.

    If killed inside: any part of it is done; the caller can do all of it again. Raises DiskFull, DiskFailed.
    """
    with durable_step(step):
        for offset, piece in pieces:
            view = memoryview(piece)
            while view:
                written = os.pwrite(descriptor, view, offset)
                offset, view = offset + written, view[written:]
        sync_file(descriptor)


def publish(temporary: Path, final: Path, *, step: str) -> None:
    """Give a synced file its final name, replacing any file there, and sync the folders."""
    with durable_step(step):
        temporary.replace(final)
        sync_folder(final.parent)
        if temporary.parent != final.parent:
            sync_folder(temporary.parent)


def publish_exclusive(temporary: Path, final: Path, *, step: str) -> bool:
    """Give a synced file its final name only if that name is free (link, then unlink). Returns whether it was.

    This is a compare-and-set on the name: of two processes exactly one gets True.
    If killed inside: the final name holds the whole file or is free; the temporary may remain and is ignored.
    """
    with durable_step(step):
        try:
            os.link(temporary, final)
        except FileExistsError:
            won = False
        else:
            won = True
        sync_folder(final.parent)
        temporary.unlink()
    return won


def remove(path: Path, *, step: str) -> None:
    """Remove a file if it exists. The removal need not be durable: leftovers are removed again on opening."""
    with durable_step(step):
        path.unlink(missing_ok=True)


_MISPLACED = {
    errno.ENOENT: "A folder or file that onefold keeps is not there.",
    errno.ENOTDIR: "A folder cannot be made below a file.",
    errno.EEXIST: "A file stands where a folder is to be made.",
    errno.EISDIR: "A folder stands where a file is to be.",
}
"""What is a matter of paths, not of the disk."""


def _translate(step: str, error: OSError) -> Exception:
    where = str(error.filename or step)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(where=where, step=step)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return DiskFailed(
            "The folder cannot be written to.",
            where=where,
            step=step,
            found=os.strerror(error.errno),
            next_step="Give this user the right to write there, or choose another folder with --state.",
        )
    if error.errno in _MISPLACED:
        return DiskFailed(
            _MISPLACED[error.errno],
            where=where,
            step=step,
            found=os.strerror(error.errno),
            next_step="Look at the path: is --state, ONEFOLD_STATE or the target spelt right, and still there?",
        )
    return DiskFailed(where=where, step=step, found=os.strerror(error.errno) if error.errno else str(error))
