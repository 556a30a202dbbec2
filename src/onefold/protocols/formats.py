"""What is asked of a format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import pyarrow as pa

__all__ = ["Decoded", "Encoder", "Format", "KnowsColumns", "Misfits", "WritingFormat"]


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

    rows: a pyarrow.Table of exactly the declared schema. kept: int64 array, the row of each in the input,
    ascending; None: all.
    """

    rows: pa.Table
    kept: pa.Array | None
    misfits: Misfits


@runtime_checkable
class Format(Protocol):
    """Bytes to Arrow. Thread-safe; every input row ends in `rows` or in `misfits`, never in neither."""

    @property
    def name(self) -> str:
        """json, csv, …"""
        ...

    def decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
        """Decode one binary (or large_binary) value per row. Never raises for bad bytes: those are misfits.

        May block where schemas are kept elsewhere; raises SourceUnavailable when they cannot be had now.
        """
        ...


@runtime_checkable
class KnowsColumns(Protocol):
    """A format that can find out what it decodes."""

    def infer_schema(self, topics: Sequence[str]) -> pa.Schema:
        """The columns of values in these topics. May block. Raises SourceUnavailable, SchemaError."""
        ...


Encoder: TypeAlias = Callable[[pa.Table], pa.LargeBinaryArray]
"""One value a row, in order. Pure and thread-safe. Raises RowsRefused."""


@runtime_checkable
class WritingFormat(Format, Protocol):
    """Arrow to bytes as well, such that `decode` gives the same rows back."""

    def encoder(self, schema: pa.Schema, topic: str) -> Encoder:
        """For rows of this schema, before the first of them is sealed. May block; may be called again.

        Raises SchemaError when they cannot be written so, SinkUnavailable, SinkRefused. If killed inside: what is
        registered elsewhere may be registered, which is harmless.
        """
        ...
