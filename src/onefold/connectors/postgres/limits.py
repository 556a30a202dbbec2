"""What no PostgreSQL keeps: told before an epoch is sealed, for afterwards the sink would have to stop.

Source: PostgreSQL's documentation, page Character Types: a text has no character with code zero.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.postgres.moments import demand_moments
from onefold.errors import RowsRefused

__all__ = ["storable"]


def storable(rows: pa.RecordBatch, label: str, sink: str | None) -> pa.RecordBatch:
    """The rows. Raises RowsRefused for a moment or a text that the server does not have."""
    demand_moments(rows, label, sink)
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        _demand_text(column, name, label, sink)
    return rows


def _demand_text(column: pa.Array, name: str, label: str, sink: str | None) -> None:
    texts, parents = column, None
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        texts, parents = pc.list_flatten(column), pc.list_parent_indices(column)
    if not _is_text(texts.type):
        return
    if pa.types.is_string_view(texts.type):
        texts = texts.cast(pa.large_string())
    if not _holds_zero(texts):
        return
    place = pc.index(pc.fill_null(pc.match_substring(texts, "\0"), False), True).as_py()
    if place < 0:  # it belonged to a NULL
        return
    raise RowsRefused(
        f"{label} cannot keep a text.",
        found=f"{texts[place].as_py()!r}, with a character of code zero",
        expected="texts without it",
        next_step="Take it out with select(…), as in replace(text, chr(0), ''), or leave such rows out with where(…).",
        sink=sink,
        column=name,
        row=place if parents is None else parents[place].as_py(),
    )


def _holds_zero(texts: pa.Array) -> bool:
    """Whether there is a zero among its bytes: much faster to tell than where."""
    _, offsets, body = texts.buffers()
    if not len(texts) or body is None:
        return False
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    ends = np.frombuffer(offsets, kind)[[texts.offset, texts.offset + len(texts)]]
    taken = np.frombuffer(body, np.uint8)[ends[0] : ends[1]]
    return bool(len(taken)) and not taken.min()


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
