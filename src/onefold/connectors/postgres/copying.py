"""Rows into a table by binary COPY."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from onefold.connectors.postgres.limits import storable
from onefold.connectors.postgres.moments import as_numbers
from onefold.connectors.postgres.types import quoted, sendable
from onefold.errors import ExtraMissing, RowsRefused

__all__ = ["copy_in"]

BATCH_ROWS = 10_000
"""Rows that are encoded at once: their bytes are in memory twice."""


def copy_in(connection: Any, table: str, rows: pa.Table) -> None:
    """Append the rows to a table whose columns have exactly the declared types. Raises the client's errors, and
    RowsRefused for a value that cannot be sent."""
    for batch in rows.to_batches():
        storable(batch, table, None)
    sent = sendable(as_numbers(rows))
    encoder = _encoder(sent.schema)
    columns = ", ".join(quoted(name) for name in sent.schema.names)
    with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN (FORMAT binary)") as copy:
        copy.write(encoder.write_header())
        for batch in sent.to_batches(max_chunksize=BATCH_ROWS):
            try:
                encoded = encoder.write_batch(batch)
            except ValueError as error:
                raise RowsRefused(f"{table} cannot be sent a value.", found=str(error)) from error
            copy.write(encoded)
        copy.write(encoder.finish())


def _encoder(schema: pa.Schema) -> Any:
    try:
        from pgpq import ArrowToPostgresBinaryEncoder
    except ImportError as error:
        raise ExtraMissing("PostgreSQL needs pgpq.", next_step="pip install 'onefold[postgres]'") from error
    return ArrowToPostgresBinaryEncoder(schema)
