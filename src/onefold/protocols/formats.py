"""What is asked of a format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa

__all__ = ["Decoded", "Format", "Misfits"]


@dataclass(frozen=True)
class Misfits:
    """Rows of a batch that could not be decoded exactly. Columns of equal length.

    index: int64 row in the input batch. reason: string code ("malformed", "misfit", …). detail: string for people.
    """

    index: pa.Array
    reason: pa.Array
    detail: pa.Array

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Decoded:
    """What a format made of a batch.

    rows: a pyarrow.Table of exactly the declared schema. kept: int64 array, the input row of each; None: all, in order.
    """

    rows: pa.Table
    kept: pa.Array | None
    misfits: Misfits


@runtime_checkable
class Format(Protocol):
    """Bytes to Arrow. Pure and thread-safe; every input row ends in `rows` or in `misfits`, never in neither."""

    @property
    def name(self) -> str:
        """json, csv, …"""
        ...

    def decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
        """Decode one binary (or large_binary) value per row. Never raises for bad bytes: those are misfits."""
        ...
