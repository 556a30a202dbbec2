"""The files of a table in an object store, as pyarrow sees them, through deltalake's own client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
from deltalake.fs import DeltaStorageHandler

__all__ = ["object_files"]


def object_files(address: str, options: Mapping[str, str] | None) -> fs.FileSystem:
    """A file system whose root is the table's folder."""
    return fs.PyFileSystem(_Objects(address, dict(options) if options else None))


class _Objects(DeltaStorageHandler):  # type: ignore[misc]
    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> Any:
        """The library's stream takes bytes only, where pyarrow gives it buffers."""
        return pa.PythonFile(_Bytes(self._handler.open_output_stream(path, None)), mode="w")


class _Bytes:
    """A stream that is given bytes, whatever buffer it gets."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def closed(self) -> bool:
        return bool(self._stream.closed)

    def write(self, body: Any) -> int:
        self._stream.write(bytes(body))
        return len(body)

    def flush(self) -> None:
        self._stream.flush()

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        self._stream.close()
