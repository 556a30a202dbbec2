"""Files that pyiceberg writes, durable when they are closed. pyiceberg finds this by name: see catalog.FILES."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from onefold.disk import durable_step, make_folder, sync_folder, sync_path

__all__ = ["SyncingFileIO", "local_folder"]

LOCAL = "file"


class SyncingFileIO(PyArrowFileIO):  # type: ignore[misc]
    """pyiceberg's files by pyarrow. On this machine's disks a file and its name last when it is closed."""

    def new_output(self, location: str) -> Any:
        """A file to be written."""
        scheme, _, path = self.parse_location(location, self.properties)
        if scheme != LOCAL:
            return super().new_output(location)
        return _LocalOutput(location=location, path=path, fs=self.fs_by_scheme(scheme, ""))


class _LocalOutput(PyArrowFile):  # type: ignore[misc]
    def create(self, overwrite: bool = False) -> Any:
        """Raises FileExistsError, DiskError."""
        path = Path(self._path)
        make_folder(path.parent)
        if not overwrite and path.exists():
            raise FileExistsError(f"There is a file already: {path}")
        return _Synced(path)


class _Synced(pa.OSFile):  # type: ignore[misc]
    """Closing it makes it durable; if killed before, nobody names it yet."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._place = path

    def __new__(cls, path: Path) -> Self:
        made: Self = pa.OSFile.__new__(cls, str(path), "wb")
        return made

    def close(self) -> None:
        """Raises DiskFull, DiskFailed."""
        if self.closed:
            return
        with durable_step(f"iceberg.{_kind_of(self._place)}"):
            super().close()
            sync_path(self._place)
            sync_folder(self._place.parent)


def local_folder(io: Any, location: str) -> Path | None:
    """Where that is on this machine, if it is."""
    scheme, _, path = io.parse_location(location, io.properties)
    return Path(path) if scheme == LOCAL else None


def _kind_of(path: Path) -> str:
    if path.name.endswith(".metadata.json") or path.suffix == ".json":
        return "metadata"
    return "manifest" if path.suffix == ".avro" else "rows"
