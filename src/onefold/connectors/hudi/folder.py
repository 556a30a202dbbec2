"""A Hudi table in a folder of this machine: laid out whole, and synced, which Hudi does not do."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from onefold import disk
from onefold.connectors.hudi.naming import META, PROPERTIES, hudi_rs
from onefold.disk import durable_step, make_folder, publish, sync_folder, sync_path
from onefold.errors import DiskError, FileCorrupt
from onefold.protocols import CheckResult
from onefold.types import Binding

__all__ = ["Folder"]

_NEW = ".onefold-new-"


class Folder:
    """On a local file system. See Place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._synced: set[tuple[str, int, int]] = set()

    @property
    def for_java(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def hadoop(self) -> Mapping[str, str]:
        """None are needed."""
        return {}

    def builder(self) -> Any:
        """Of the folder."""
        return hudi_rs().HudiTableBuilder.from_base_uri(self.path.as_uri())

    def has(self, name: str) -> bool:
        """As the file system says."""
        return (self.path / name).is_file()

    def names(self, under: str = "") -> list[str]:
        """In no order."""
        found = (self.path / under).rglob("*")
        return [path.relative_to(self.path).as_posix() for path in found if path.is_file()]

    def strangers(self) -> list[str]:
        """Files and folders."""
        found = self.path.iterdir() if self.path.is_dir() else ()
        return [path.name for path in found if not path.name.startswith(".")]

    def parquet(self, name: str) -> pq.ParquetFile:
        """Read as far as is asked."""
        return pq.ParquetFile(self.path / name)

    def remove(self, name: str, *, step: str) -> None:
        """And its folder is synced."""
        disk.remove(self.path / name, step=step)

    def lay_out(self, create: Callable[[str], None], mark: str) -> None:
        """Beside, then renamed: whole or not at all, and by one of many."""
        make_folder(self.path)
        scratch = self.path / f"{_NEW}{mark}"
        shutil.rmtree(scratch, ignore_errors=True)
        create(str(scratch))
        with durable_step("hudi.create"):
            _sync_tree(scratch)
        try:
            publish(scratch / META, self.path / META, step="hudi.create-publish")
        except DiskError:
            if not self.has(PROPERTIES):
                raise  # it was not that somebody else was faster
        shutil.rmtree(scratch, ignore_errors=True)

    def refuse_torn(self, binding: Binding) -> None:
        """A commit that was being made when the power failed: Hudi would take it for one that is complete, with its
        rows and without our token. Raises FileCorrupt."""
        for path in (self.path / META / "timeline").glob("*_*.*commit"):
            if path.stat().st_size == 0:
                raise FileCorrupt(
                    "A commit of a Hudi table is empty: the power failed while it was made, and it was never "
                    "acknowledged.",
                    file=path,
                    found="0 bytes",
                    next_step="Remove this file, then run again: what it was to show is rolled back and delivered "
                    "again.",
                    sink=binding.sink,
                )

    def sync(self, files: Sequence[str]) -> None:
        """With their folders; what is as it was the last time is left out."""
        changed = [self.path / name for name in files]
        changed += [path.parent / ".hoodie_partition_metadata" for path in changed]
        changed += [path for path in (self.path / META).rglob("*") if ".temp" not in path.parts]
        folders = set()
        for path in dict.fromkeys(changed):
            try:
                known = path.stat()
                mark = (str(path), known.st_mtime_ns, known.st_size)
                if mark in self._synced or not path.is_file():
                    continue
                sync_path(path)
            except FileNotFoundError:
                continue  # Hudi removed it meanwhile
            self._synced.add(mark)
            folders |= {parent for parent in path.parents if parent.is_relative_to(self.path)}
        for place in sorted(folders, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                sync_folder(place)

    def checked(self) -> CheckResult:
        """Whether it can be a table."""
        nearest = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not nearest.is_dir():
            return CheckResult(f"folder {self.path}", "failed", f"{nearest} is a file", "Name another folder.")
        return CheckResult(f"Hudi table {self.path}", "ok", "exists" if self.has(PROPERTIES) else "will be made")


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_path(Path(place) / name)
        sync_folder(Path(place))
