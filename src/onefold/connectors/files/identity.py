"""What makes a file the one that was admitted, whatever its path names later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import xxhash

from onefold.connectors.files.admission import Segment
from onefold.connectors.files.bytesin import TAIL_BYTES

__all__ = ["Head", "head_of", "is_same_file", "tail_sum"]

_HEAD_BYTES = 1024


@dataclass(frozen=True)
class Head:
    """A digest of a file's first size_bytes."""

    size_bytes: int
    digest: str


def head_of(path: Path, size_bytes: int = _HEAD_BYTES) -> Head:
    """The digest of as many first bytes as there are, at most size_bytes. Raises OSError."""
    with path.open("rb") as file:
        first = file.read(min(size_bytes, _HEAD_BYTES))
    return Head(len(first), xxhash.xxh3_128_hexdigest(first))


def is_same_file(path: Path, segment: Segment) -> bool:
    """Whether the file begins as it did when it was admitted. Raises OSError."""
    return head_of(path, segment.head_bytes).digest == segment.head


def tail_sum(path: Path, at: int) -> str:
    """Records.sum() of a plain file at an offset. Raises OSError."""
    first = max(at - TAIL_BYTES, 0)
    with path.open("rb") as file:
        file.seek(first)
        return xxhash.xxh3_64_hexdigest(file.read(at - first))
