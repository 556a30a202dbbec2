"""The commit log of a folder: which files belong to the data set, and the token, in one numbered entry a commit.

    folder/_onefold/<owner>/log/00000000000000000042.json     entry 42: old token, new token, files
    folder/_onefold/<owner>/staged/…                          files that are no part of the data set yet
    folder/<owner>-00000000000000000042-0000-<seal>.parquet   a committed file

Entry n is created exclusively: of two instances that found entry n-1, one gets it. That is the compare-and-set; names
of data files alone are none. Old entries are removed, so an instance that slept may find number n free long after it
was used: it looks again after it wrote, and the entry counts only as the largest (INV-4). Then the staged files
get their names; who opens the log next finishes what a killed instance left of that.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from onefold.disk import durable_step, make_folder, publish_exclusive, remove, sync_folder, write_synced
from onefold.errors import FileCorrupt
from onefold.types import Token, canonical_json

__all__ = ["CommitLog", "Entry", "LoggedFile", "checksum_of", "damaged"]

KEPT_ENTRIES = 16
_REMOVED_AT_A_TIME = 64
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class LoggedFile:
    """A file of the data set: its name while staged, its final name, its size and rows; checksum: XXH3-128, hex."""

    staged: str
    final: str
    size_bytes: int
    rows: int
    checksum: str


@dataclass(frozen=True)
class Entry:
    """One commit. columns: [name, type as text] of the rows written."""

    number: int
    old: Token | None
    new: Token
    files: tuple[LoggedFile, ...]
    columns: tuple[tuple[str, str], ...]

    def to_json(self) -> bytes:
        """One line."""
        body: dict[str, Any] = {
            "number": self.number,
            "old": self.old and self.old.to_json(),
            "new": self.new.to_json(),
            "files": [vars(file) for file in self.files],
            "columns": [list(column) for column in self.columns],
        }
        return canonical_json({**body, "checksum": _digest(body)}).encode() + b"\n"

    @staticmethod
    def from_json(text: bytes) -> Entry:
        """The inverse. Raises ValueError, KeyError or TypeError on anything else."""
        body = json.loads(text)
        if body.pop("checksum") != _digest(body):
            raise ValueError("another checksum than was written")
        return Entry(
            body["number"],
            None if body["old"] is None else Token.from_json(body["old"]),
            Token.from_json(body["new"]),
            tuple(LoggedFile(**file) for file in body["files"]),
            tuple((name, kind) for name, kind in body["columns"]),
        )


def _digest(body: dict[str, Any]) -> str:
    return str(xxhash.xxh3_128_hexdigest(canonical_json(body).encode()))


def checksum_of(path: Path) -> str:
    """XXH3-128 of a file's bytes. Raises OSError."""
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return str(found.hexdigest())


def damaged(path: Path, checksum: str, **where: object) -> FileCorrupt:
    """The error of a staged file that is gone, or is not what was prepared."""
    return FileCorrupt(
        "A staged file is not what was prepared.",
        file=path,
        found="another checksum" if path.exists() else "no such file",
        expected=f"xxh3 {checksum}",
        next_step="Put the file back; nothing else holds its rows.",
        **where,
    )


class CommitLog:
    """The log of one sink in one folder."""

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder = folder
        self._owner = owner
        self.staged = folder / "_onefold" / owner / "staged"
        self._log = folder / "_onefold" / owner / "log"

    def make(self) -> None:
        """Make the folders. Raises OSError."""
        make_folder(self.staged)
        make_folder(self._log)

    def others(self) -> list[str]:
        """The other owners with an entry in this folder. Raises OSError."""
        logs = (self.folder / "_onefold").glob("*/log/*.json")
        return sorted({path.parts[-3] for path in logs if path.stem.isdecimal()} - {self._owner})

    def last(self) -> Entry | None:
        """The newest entry; None before the first commit. Raises FileCorrupt, OSError."""
        number = self._last_number()
        return None if number == 0 else self._read(number)

    def append(self, entry: Entry) -> bool:
        """Add the entry if its number is free; durable when it returns. Raises DiskError."""
        if self._last_number() >= entry.number:
            return False
        temporary = self._log / f".{entry.number}.{entry.new.seal}"
        remove(temporary, step="files.clean")
        write_synced(temporary, [entry.to_json()], step="files.entry")
        return publish_exclusive(temporary, self._path(entry.number), step="files.commit")

    def is_newest(self, entry: Entry) -> bool:
        """Whether nothing came after it. If something did, the number may have been free because it was compacted."""
        return self._last_number() == entry.number

    def verify(self, entry: Entry) -> None:
        """Refuse staged files that changed since the entry was made. Raises FileCorrupt, OSError."""
        for file in entry.files:
            path = self.staged / file.staged
            try:
                found = checksum_of(path)
            except FileNotFoundError:
                continue  # it has its name already
            if found != file.checksum:
                raise damaged(path, file.checksum)

    def finish(self, entry: Entry) -> None:
        """Give the staged files of the newest entry their names. Idempotent. Raises DiskError."""
        waiting = [file for file in entry.files if (self.staged / file.staged).exists()]
        for file in waiting:
            # An instance that opened the log since may have finished it before us.
            with durable_step("files.publish"), contextlib.suppress(FileNotFoundError):
                (self.staged / file.staged).replace(self.folder / file.final)
        if waiting:
            with durable_step("files.sync"):
                sync_folder(self.folder)
                sync_folder(self.staged)

    def compact(self, last: Entry) -> None:
        """Remove entries that nobody reads any more, a bounded number at a time."""
        for number in sorted(self._numbers())[:_REMOVED_AT_A_TIME]:
            if number <= last.number - KEPT_ENTRIES:
                remove(self._path(number), step="files.compact")

    def clean(self, last: Entry | None, leftovers: Iterable[str]) -> None:
        """Remove these staged files, and entries that were never published."""
        named = {file.staged for file in last.files} if last else set()
        for name in leftovers:
            if name not in named:
                remove(self.staged / name, step="files.clean")
        for path in self._log.glob(".*"):
            number = path.name[1:].partition(".")[0]
            if last is not None and number.isdecimal() and int(number) <= last.number:
                remove(path, step="files.clean")

    def stage(self, name: str, chunks: Sequence[bytes | memoryview]) -> int:
        """Write a staged file, durably. Returns its size. Raises DiskError."""
        remove(self.staged / name, step="files.clean")
        size = write_synced(self.staged / name, chunks, step="files.stage")
        with durable_step("files.sync"):
            sync_folder(self.staged)
        return size

    def _path(self, number: int) -> Path:
        return self._log / f"{number:020d}.json"

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self._log.glob("*.json") if path.stem.isdecimal()]

    def _last_number(self) -> int:
        return max(self._numbers(), default=0)

    def _read(self, number: int) -> Entry:
        path = self._path(number)
        try:
            return Entry.from_json(path.read_bytes())
        except (ValueError, KeyError, TypeError) as error:
            raise FileCorrupt("An entry of a commit log is not what was written.", file=path, found=error) from error
