"""Formats that need no decoding: raw bytes, and rows that are typed already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from onefold.errors import NotSupported, SchemaError
from onefold.formats.casts import fit_part
from onefold.formats.lines import CUT_MARK, MAX_RECORD_BYTES, Records, split_records
from onefold.formats.rows import Refusals, gather
from onefold.protocols import Decoded, Encoder

__all__ = ["Parquet", "Raw"]


@dataclass(frozen=True)
class Raw:
    """Each value as it is, in the one declared column: BLOB, or VARCHAR when it is UTF-8."""

    has_header = False

    @property
    def name(self) -> str:
        """raw."""
        return "raw"

    def split(self, buffer: pa.Buffer, *, is_final: bool, max_record_bytes: int = MAX_RECORD_BYTES) -> Records:
        """The whole lines of a buffer, see `split_records`."""
        return split_records(buffer, is_final=is_final, max_record_bytes=max_record_bytes)

    def decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
        """No value stays NULL; a cut record is "malformed"; bytes that are not UTF-8 do not fit VARCHAR."""
        self._check(schema)
        column = payload if isinstance(payload, pa.ChunkedArray) else pa.chunked_array([payload])
        refusals = Refusals()
        is_cut = np.zeros(len(column), bool)
        for row in np.flatnonzero(pa.compute.ends_with(column, CUT_MARK).to_numpy().astype(bool)).tolist():
            is_cut[row] = True
            refusals.add(row, "malformed", "the record is too long")
        table = pa.table([column], names=schema.names).filter(pa.array(~is_cut))
        part = fit_part(table, np.flatnonzero(~is_cut), schema, refusals, is_lenient=is_lenient)
        return gather(schema, [part], refusals, total=len(column))

    def encoder(self, schema: pa.Schema, topic: str) -> Encoder:
        """The one column's bytes; NULL is no value (a tombstone). Raises SchemaError."""
        self._check(schema)

        def encode(rows: pa.Table) -> pa.LargeBinaryArray:
            column = rows.column(0).cast(pa.large_binary()).combine_chunks()
            return column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)

        return encode

    def _check(self, schema: pa.Schema) -> None:
        kind = schema.field(0).type if len(schema) == 1 else None
        if kind not in (pa.binary(), pa.large_binary(), pa.string()):
            raise SchemaError(
                "The raw format needs one column, BLOB or VARCHAR.",
                found=", ".join(str(field) for field in schema),
            )


@dataclass(frozen=True)
class Parquet:
    """Files whose rows are typed: a source reads them as rows and `onefold.formats.casts.fit` casts them."""

    @property
    def name(self) -> str:
        """parquet."""
        return "parquet"

    def decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
        """Raises NotSupported: a Parquet file is no sequence of byte values."""
        raise NotSupported(
            "Parquet is read from files, not from single values.",
            next_step='Read the files with of.files("….parquet"), or choose the format of the values.',
        )
