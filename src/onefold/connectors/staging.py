"""What the sinks of table formats share: Parquet files that lie in the table's folder before a commit names them.

A file's name says whose it is: `onefold/OWNER/BLOCK/EPOCH-INCARNATION-JOURNAL-SEAL-NUMBER.parquet` below the table.
Until a commit of the table names it, no reader sees it; afterwards it stays where it is. Blocks of epochs keep
listings short.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from onefold.connectors.spooling import file_name
from onefold.disk import durable_step, make_folder, sync_folder, write_synced
from onefold.errors import FileCorrupt, SinkUnavailable
from onefold.types import Binding, EpochNumber, Handle, Incarnation, SealId

__all__ = ["FOLDER", "Staged", "StagingArea", "encoded", "epoch_of"]

FOLDER = "onefold"
"""Below the table's folder. No leading underscore: what vacuums tables must see files that a compaction replaced."""

EPOCHS_A_BLOCK = 1024
_JOINED = "j"
_OWNER_CHARACTERS = 60
_NUMBERED = "{:020d}"


@dataclass(frozen=True)
class Staged:
    """A file that is durable and that no commit names yet. path: below the table's folder, with slashes."""

    path: str
    size_bytes: int
    rows: int
    metadata: pq.FileMetaData


class StagingArea:
    """The staged files of one sink.

    Args:
        files: the file system of the table. root: the table's folder in it, without a slash at the end.
        local: the same folder where it is on this machine: there every file and folder is synced.
        system: the first word of durable steps, such as delta.
    """

    def __init__(self, files: fs.FileSystem, root: str, binding: Binding, *, system: str, local: Path | None) -> None:
        self._files = files
        self._root = root
        self._binding = binding
        self._system = system
        self._local = local

    def make(self, after: EpochNumber) -> None:
        """Make the folder for the epochs that come after this one, where folders are made. Raises DiskError."""
        if self._local is not None:
            make_folder(self._local / self._block(EpochNumber(after + 1)))

    def stage(
        self,
        epoch: EpochNumber,
        seal: SealId,
        number: int,
        body: pa.Buffer,
        metadata: pq.FileMetaData,
        *,
        is_joined: bool = False,
    ) -> Staged:
        """Write a file, durably. One of the same name, which no commit can have named, is replaced.

        is_joined: it is made by a commit, from rows that are kept elsewhere, so it is no handle.
        If killed inside: the file is missing, partial or whole, and `handles` lists it. Raises DiskError,
        SinkUnavailable.
        """
        path = self._path(epoch, seal, f"{_JOINED if is_joined else ''}{number}")
        if self._local is not None:
            place = self._local / path
            make_folder(place.parent)
            place.unlink(missing_ok=True)
            write_synced(place, [memoryview(body)], step=f"{self._system}.stage")
            with durable_step(f"{self._system}.stage-sync"):
                sync_folder(place.parent)
        else:
            whole = self._whole(path)
            with (
                durable_step(f"{self._system}.stage"),
                self._reached(),
                self._files.open_output_stream(whole) as stream,
            ):
                stream.write(body)
        return Staged(path, body.size, metadata.num_rows, metadata)

    def demand(self, path: str, size_bytes: int, epoch: EpochNumber) -> None:
        """Raise FileCorrupt unless the file is there with its size: a table that names a missing one is unreadable."""
        found = self._files.get_file_info(self._whole(path))
        if found.type is not fs.FileType.File or found.size != size_bytes:
            raise FileCorrupt(
                "A staged file of a table is not what was written.",
                file=f"{self._root}/{path}",
                found="nothing" if found.type is fs.FileType.NotFound else f"{found.size} bytes",
                expected=f"{size_bytes} bytes",
                next_step="Somebody removed it before it was committed, for instance a VACUUM with a short retention. "
                "Restore it from a backup.",
                sink=self._binding.sink,
                epoch=epoch,
            )

    def handles(self, after: EpochNumber) -> list[Handle]:
        """Staged files of later epochs, as handles, in order. May block. Raises OSError."""
        found = [handle for path, _ in self.listed(after) if (handle := _handle_of(path)) is not None]
        return sorted((handle for handle in found if handle.epoch > after), key=lambda handle: str(handle.detail))

    def listed(self, after: EpochNumber) -> Iterator[tuple[str, fs.FileInfo]]:
        """(path, what is known) of every file of the blocks in which epochs after this one may be. Raises OSError."""
        first = _NUMBERED.format(after // EPOCHS_A_BLOCK)
        selector = fs.FileSelector(self._whole(self._folder), allow_not_found=True)
        blocks = sorted(entry.base_name for entry in self._files.get_file_info(selector))
        for block in blocks:
            if block >= first:
                inside = fs.FileSelector(self._whole(f"{self._folder}/{block}"), allow_not_found=True)
                for entry in self._files.get_file_info(inside):
                    if entry.type is fs.FileType.File:
                        yield f"{self._folder}/{block}/{entry.base_name}", entry

    def remove(self, path: str) -> None:
        """Remove a file that no commit names. Idempotent. Raises OSError."""
        with durable_step(f"{self._system}.abort"), self._reached():
            if self._files.get_file_info(self._whole(path)).type is not fs.FileType.NotFound:
                self._files.delete_file(self._whole(path))

    def is_outrun(self, path: str, through: EpochNumber | None) -> bool:
        """Whether a file is of this sink, and of an epoch that is decided: one up to `through`, of None every one."""
        if not path.startswith(f"{self._folder}/"):
            return False
        epoch = path.rpartition("/")[2].partition("-")[0]
        return through is None or (epoch.isdecimal() and int(epoch) <= through)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """An object store that fails is no disk that fails: it may answer later."""
        try:
            yield
        except OSError as error:
            if self._local is not None:
                raise
            raise SinkUnavailable(
                "Files of a table cannot be written now.", found=str(error), sink=self._binding.sink
            ) from error

    @property
    def _folder(self) -> str:
        binding = self._binding
        owner = ".".join(_plain(name) for name in (binding.flow, binding.lane, binding.sink))
        if len(owner) > _OWNER_CHARACTERS:
            owner = f"{owner[:_OWNER_CHARACTERS]}!!{hashlib.sha256(owner.encode()).hexdigest()[:16]}"
        return f"{FOLDER}/{owner}"

    def _path(self, epoch: EpochNumber, seal: SealId, number: str) -> str:
        binding = self._binding
        parts = [_NUMBERED.format(epoch), str(binding.incarnation), *map(_plain, (binding.journal, seal)), number]
        return f"{self._block(epoch)}/{'-'.join(parts)}.parquet"

    def _block(self, epoch: EpochNumber) -> str:
        return f"{self._folder}/{_NUMBERED.format(epoch // EPOCHS_A_BLOCK)}"

    def _whole(self, path: str) -> str:
        return f"{self._root}/{path}" if self._root else path


def encoded(table: pa.Table, **options: Any) -> tuple[pa.Buffer, pq.FileMetaData]:
    """The bytes of a Parquet file, and what its footer says. options: of pyarrow.parquet.ParquetWriter."""
    collected: Sequence[pq.FileMetaData] = []
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, metadata_collector=collected, **options)
    return sink.getvalue(), collected[0]


def epoch_of(path: str) -> EpochNumber | None:
    """The epoch of a staged file; None of another file."""
    handle = _handle_of(path)
    return None if handle is None else handle.epoch


def _plain(text: str) -> str:
    """As file_name, without the sign that stands between the parts of a name, and with ! for %: the logs of tables hold
    paths as parts of URIs, where libraries differ about what a % stands for."""
    return file_name(text).replace("-", "%2D").replace("%", "!")


def _text(part: str) -> str:
    return unquote(part.replace("!", "%"))


def _handle_of(path: str) -> Handle | None:
    name = path.rpartition("/")[2]
    parts = name.removesuffix(".parquet").split("-")
    if len(parts) != len(("epoch", "incarnation", "journal", "seal", "number")) or not parts[0].isdecimal():
        return None
    epoch, incarnation, journal, seal, number = parts
    if number.startswith(_JOINED):
        return None
    return Handle(
        _text(journal),
        Incarnation(int(incarnation)),
        EpochNumber(int(epoch)),
        SealId(_text(seal)),
        {"path": path},
    )
