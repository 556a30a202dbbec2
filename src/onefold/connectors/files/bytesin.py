"""Bytes of one file in order: plain, gzip or zstd. Offsets count uncompressed bytes."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path
from typing import Any, Protocol

from onefold.errors import ExtraMissing, SourceError

__all__ = ["TAIL_BYTES", "ByteStream", "open_bytes"]

TAIL_BYTES = 64

_CHUNK = 64 << 10
"""Compressed bytes taken at a time: what they expand to stays bounded by the format's largest ratio."""


class ByteStream(Protocol):
    """Reads forward from a position."""

    before: bytes
    """The last TAIL_BYTES before the offset it was opened at, or fewer."""

    def read_into(self, room: memoryview) -> int:
        """Fill as much of the room as there are bytes now; 0 at the present end."""
        ...

    def waiting(self, at: int) -> int | None:
        """How many bytes lie beyond offset `at` now; None where only reading tells."""
        ...

    def inode(self) -> int:
        """Which file this is, whatever its path names by now."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


def open_bytes(path: Path, compression: str, at: int) -> ByteStream:
    """The file from uncompressed offset `at` on. Raises OSError; SourceError when it ends before `at`."""
    return _Inflated(path, compression, at) if compression else _Plain(path, at)


class _Plain:
    def __init__(self, path: Path, at: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._at = at
        first = max(at - TAIL_BYTES, 0)
        self.before = os.pread(self._file.fileno(), at - first, first)

    def read_into(self, room: memoryview) -> int:
        total = 0
        while total < len(room):
            count = os.preadv(self._file.fileno(), [room[total:]], self._at)
            if count == 0:
                break
            total += count
            self._at += count
        return total

    def waiting(self, at: int) -> int | None:
        return os.fstat(self._file.fileno()).st_size - at

    def inode(self) -> int:
        return os.fstat(self._file.fileno()).st_ino

    def close(self) -> None:
        self._file.close()


class _Inflated:
    """Members (gzip) or frames (zstd) one after the other; a truncated last one is an error, never an early end."""

    def __init__(self, path: Path, compression: str, at: int) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._compression = compression
        self._inflater: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")
        self.before = b""
        self._skip(at)

    def read_into(self, room: memoryview) -> int:
        total = 0
        while total < len(room):
            if not self._ready and not self._more():
                break
            count = min(len(self._ready), len(room) - total)
            room[total : total + count] = self._ready[:count]
            self._ready = self._ready[count:]
            total += count
        return total

    def waiting(self, at: int) -> int | None:
        return None

    def inode(self) -> int:
        return os.fstat(self._file.fileno()).st_ino

    def close(self) -> None:
        self._file.close()

    def _skip(self, at: int) -> None:
        left = at
        while left:
            if not self._ready and not self._more():
                raise SourceError(f"{self._path} ends before offset {at}.", file=self._path)
            count = min(left, len(self._ready))
            self.before = (self.before + bytes(self._ready[max(count - TAIL_BYTES, 0) : count]))[-TAIL_BYTES:]
            self._ready = self._ready[count:]
            left -= count

    def _more(self) -> bool:
        """Inflate until something is ready. False at the end."""
        while not self._ready:
            if not self._compressed:
                self._compressed = self._file.read(_CHUNK) or b""
                if not self._compressed:
                    if self._inflater is not None:
                        raise self._broken("it ends in the middle of a member")
                    return False
            if self._inflater is None:
                self._inflater = _inflater(self._compression)
            try:
                self._ready = memoryview(self._inflater.decompress(self._compressed))
            except Exception as error:
                raise self._broken(str(error)) from error
            self._compressed = b""
            if self._inflater.eof:
                self._compressed = self._inflater.unused_data
                self._inflater = None
        return True

    def _broken(self, why: str) -> SourceError:
        return SourceError(
            f"{self._path.name} is not a whole {self._compression} file.",
            found=why,
            next_step="Write it anew, or say with complete= when files are finished.",
            file=self._path,
        )


def _inflater(compression: str) -> Any:
    if compression == "gz":
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    if sys.version_info >= (3, 14):
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]

        return zstd.ZstdDecompressor()
    try:
        import zstandard
    except ImportError as error:
        raise ExtraMissing("Reading .zst files needs zstandard.", next_step="pip install zstandard") from error
    return zstandard.ZstdDecompressor().decompressobj()
