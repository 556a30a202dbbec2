"""Rows for benchmarks of sinks, and a sink as the engine uses it: into the spool, then one commit a delivery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from onefold.spool import FolderSpool
from onefold.types import (
    Binding,
    EpochHead,
    EpochNumber,
    Guarantee,
    Incarnation,
    Mode,
    SealId,
    Token,
    TokenMove,
)

__all__ = ["Ours", "deliveries", "events"]


def events(first: int, count: int) -> pa.Table:
    """Payments with these ids."""
    ids = pa.array(range(first, first + count), pa.int64())
    merchants = pc.binary_join_element_wise("merchant-", pc.cast(pc.bit_wise_and(ids, 4095), pa.string()), "")
    amounts = pc.cast(pc.cast(pc.bit_wise_and(ids, 65535), pa.decimal128(19, 0)), pa.decimal128(18, 2))
    return pa.table(
        {
            "id": ids,
            "merchant": merchants,
            "amount": amounts,
            "paid_at": pc.cast(pc.add(ids, 1_700_000_000_000_000), pa.timestamp("us")),
        }
    )


def deliveries(first: int, count: int, rows_each: int) -> Iterator[pa.Table]:
    """All rows, in tables of one delivery."""
    for start in range(first, first + count, rows_each):
        yield events(start, min(rows_each, first + count - start))


class Ours:
    """The sink itself: rows prepared, then one commit a delivery, with the token's move."""

    def __init__(self, sink: Any, folder: Path, name: str, mode: Mode) -> None:
        self._sink = sink
        binding = Binding(
            "0" * 32, "benchmark", "0", name, Incarnation(1), events(0, 1).schema, mode,
            ("id",) if mode == "upsert" else (), Guarantee.EXACTLY_ONCE, FolderSpool(folder),
        )  # fmt: skip
        self._token = self._sink.open(binding)
        self._epoch = self._token.epoch if self._token else 0

    def write(self, rows: pa.Table) -> None:
        """One delivery."""
        self._epoch += 1
        number, seal = EpochNumber(self._epoch), SealId(f"{self._epoch:032d}")
        receipt = self._sink.prepare(EpochHead(number, seal), rows.to_batches())
        token = Token(number, seal)
        self._sink.commit([receipt], TokenMove(self._token, token))
        self._token = token

    def close(self) -> None:
        """Hang up."""
        self._sink.close()
