"""A table's log, read and made durable by ourselves: what deltalake does not tell, and does not do.

It does not list the names of transaction identifiers, and on local paths it syncs nothing.
Source: Delta Transaction Log Protocol, Delta Log Entries and Checkpoints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from onefold.disk import durable_step, publish, remove, sync_folder, sync_path
from onefold.errors import FileCorrupt

__all__ = ["LOG", "Log", "LocalLog", "entry_name"]

LOG = "_delta_log"
TORN = ".torn"
"""Ends the names of what a power cut left half written, and that was set aside."""

_NUMBERED = re.compile(r"(\d{20})\.(.*)")
_LAST_CHECKPOINT = "_last_checkpoint"


def entry_name(version: int) -> str:
    """The file of a version."""
    return f"{version:020d}.json"


class Log:
    """Reads the log of a table. files, root: as of Location.files."""

    def __init__(self, files: fs.FileSystem, root: str) -> None:
        self._files = files
        self._root = root

    def actions(self, version: int) -> list[Mapping[str, Any]] | None:
        """Of one version; None when its entry is gone. Raises OSError, ValueError."""
        body = self._read(entry_name(version))
        return None if body is None else [json.loads(line) for line in body.splitlines() if line.strip()]

    def apps(self, through: int) -> set[str]:
        """The names of all transaction identifiers up to this version. Raises OSError, FileCorrupt."""
        found: set[str] = set()
        version, names = self._checkpoint(through)
        for name in names:
            found |= self._apps_in(name)
        for number in range(version + 1, through + 1):
            actions = self.actions(number)
            if actions is None:
                raise FileCorrupt(
                    "An entry of a table's log is gone that no checkpoint covers.",
                    file=f"{self._root}/{LOG}/{entry_name(number)}",
                    found="no such file",
                    next_step="Restore it from a backup, or make a checkpoint of the table with another engine.",
                )
            found |= {action["txn"]["appId"] for action in actions if "txn" in action}
        return found

    def positions(self, app: str, epoch: int, *, since: int, through: int, metadata: str) -> str | None:
        """The text that the commit which wrote this epoch has under `metadata`; None when its entry is gone."""
        for version in range(since, through + 1):
            actions = self.actions(version)
            if actions is None:
                return None
            if any(_is_of(action, app, epoch) for action in actions):
                told = (action["commitInfo"].get(metadata) for action in actions if "commitInfo" in action)
                return next((text for text in told if isinstance(text, str)), None)
        return None

    def last_checkpoint(self) -> int:
        """The version that the table says its newest checkpoint is of; -1 for none. Raises OSError, ValueError."""
        told = self._read(_LAST_CHECKPOINT)
        return -1 if told is None else int(json.loads(told)["version"])

    def _checkpoint(self, through: int) -> tuple[int, list[str]]:
        """The newest checkpoint at or before a version, and its files; (-1, []) for none."""
        told = self._read(_LAST_CHECKPOINT)
        if told is not None:
            newest = json.loads(told)
            name = f"{newest['version']:020d}.checkpoint.parquet"
            if newest["version"] <= through and "parts" not in newest and self._size(name) is not None:
                return int(newest["version"]), [name]
        found: dict[int, dict[str, list[str]]] = {}
        for entry in self._files.get_file_info(fs.FileSelector(self._path(""), allow_not_found=True)):
            match = _NUMBERED.fullmatch(entry.base_name)
            if match and "checkpoint" in match[2] and int(match[1]) <= through:
                group, is_whole = _group(match[2])
                if is_whole:
                    found.setdefault(int(match[1]), {}).setdefault(group, []).append(entry.base_name)
        for version in sorted(found, reverse=True):
            for group, names in found[version].items():
                if not group.isdecimal() or len(names) == int(group):
                    return version, names
        return -1, []

    def _apps_in(self, name: str) -> set[str]:
        body = self._read(name)
        if name.endswith(".json"):
            actions = [json.loads(line) for line in (body or b"").splitlines() if line.strip()]
            return {action["txn"]["appId"] for action in actions if "txn" in action}
        table = pq.ParquetFile(pa.BufferReader(body or b"")).read(columns=["txn"])
        if "txn" not in table.schema.names:
            return set()
        return {row["appId"] for row in table.column("txn").to_pylist() if row is not None and row["appId"]}

    def _read(self, name: str) -> bytes | None:
        try:
            with self._files.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def _size(self, name: str) -> int | None:
        found = self._files.get_file_info(self._path(name))
        return None if found.type is not fs.FileType.File else int(found.size)

    def _path(self, name: str) -> str:
        return f"{self._root}/{LOG}/{name}" if self._root else f"{LOG}/{name}"


class LocalLog:
    """Makes the log of a table on this machine durable, and mends what a power cut left of it.

    folder: the table's. An entry is written in place of its name at once (a link), but its bytes reach the disk when we
    sync them: until then nobody was told that it was written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / LOG
        self._synced = -1

    def sync(self) -> None:
        """Force everything that the log says to stable storage: files, then entries, then the folder.

        Also what others have written meanwhile, on which our own commits stand. Raises DiskFailed, DiskFull.
        """
        with durable_step("delta.sync"):
            last = self._synced
            for version in count(self._first()):
                entry = self._log / entry_name(version)
                if not entry.exists():
                    break
                self._sync_files_of(entry)
                sync_path(entry)
                last = version
            sync_folder(self._log)
            self._synced = last

    def sync_checkpoints(self) -> None:
        """Force the newest checkpoint to stable storage, and the name that leads to it."""
        with durable_step("delta.sync-checkpoint"):
            for name in sorted(path.name for path in self._log.glob("*.checkpoint*.parquet"))[-1:]:
                sync_path(self._log / name)
            if (self._log / _LAST_CHECKPOINT).exists():
                sync_path(self._log / _LAST_CHECKPOINT)
            sync_folder(self._log)

    def mend(self) -> list[str]:
        """Set aside what a power cut left half written: the newest entry, or a checkpoint. Returns the names.

        Nobody was told of either: a commit returns when its entry is on the disk, and what a checkpoint repeats stays.
        """
        if not self._log.is_dir():
            return []
        mended = []
        for path in sorted(self._log.glob("*.checkpoint*.parquet"))[-1:]:
            if not _is_whole_parquet(path):
                remove(self._log / _LAST_CHECKPOINT, step="delta.mend")
                mended.append(path)
        newest = self._newest()
        if newest is not None and not _is_whole_entry(newest):
            mended.append(newest)
        for path in mended:
            publish(path, path.with_name(path.name + TORN), step="delta.mend")
        return [path.name for path in mended]

    def _first(self) -> int:
        """Where syncing begins: behind what this object has synced; at first, with the newest checkpoint."""
        if self._synced >= 0:
            return self._synced + 1
        found = sorted(path.name for path in self._log.glob("*.checkpoint*.parquet"))
        entries = sorted(path.name for path in self._log.glob("*.json") if _NUMBERED.fullmatch(path.name))
        newest = int(found[-1][:20]) if found else -1
        return max(newest, int(entries[0][:20]) if entries else 0)

    def _newest(self) -> Path | None:
        entries = [path for path in self._log.glob("*.json") if re.fullmatch(r"\d{20}\.json", path.name)]
        return max(entries, default=None)

    def _sync_files_of(self, entry: Path) -> None:
        folders = set()
        for line in entry.read_bytes().splitlines():
            added = json.loads(line).get("add") if line.startswith((b'{"add"', b'{"cdc"')) else None
            if added is None:
                continue
            path = self._folder / unquote(added["path"])
            if path.exists():  # or it was removed again by a later entry, and vacuumed
                sync_path(path)
                folders.add(path.parent)
        for folder in folders:
            sync_folder(folder)
            for parent in folder.parents:
                if parent == self._folder.parent:
                    break
                sync_folder(parent)


def _is_of(action: Mapping[str, Any], app: str, epoch: int) -> bool:
    return "txn" in action and (action["txn"]["appId"], action["txn"]["version"]) == (app, epoch)


def _group(rest: str) -> tuple[str, bool]:
    """Which files of one version make one checkpoint: the number of its parts, or its own name."""
    parts = rest.split(".")
    if re.fullmatch(r"checkpoint\.\d{10}\.\d{10}\.parquet", rest):
        return str(int(parts[2])), True
    return rest, rest == "checkpoint.parquet" or bool(re.fullmatch(r"checkpoint\.[0-9a-f-]{36}\.(json|parquet)", rest))


def _is_whole_entry(path: Path) -> bool:
    body = path.read_bytes()
    try:
        return bool(body.strip()) and all(isinstance(json.loads(line), dict) for line in body.splitlines() if line)
    except ValueError:
        return False


def _is_whole_parquet(path: Path) -> bool:
    try:
        pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return True
