"""What sources share that read a table file by file: how much of a file one read gives, and where each row stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from onefold.protocols import Limit

__all__ = ["placed", "sliced"]


def sliced(rows: pa.Table, start: int, limit: Limit, last: int | None = None) -> pa.Table:
    """The rows from `start` on, before `last`, that one read may give: at least one where there is one."""
    end = rows.num_rows if last is None else min(last, rows.num_rows)
    part = rows.slice(start, max(0, min(limit.rows, end - start)))
    if not part.num_rows or part.nbytes <= limit.size_bytes:
        return part
    return part.slice(0, max(1, int(part.num_rows * limit.size_bytes / part.nbytes)))


def placed(rows: pa.Table, wanted: Iterable[str], start: int, **places: pa.Scalar) -> Sequence[pa.RecordBatch]:
    """Batches with the wanted of these columns: places, the same for every row, and `_offset`, its row in the file."""
    count = rows.num_rows
    for name in wanted:
        if name == "_offset":
            column = pa.array(range(start, start + count), pa.int64())
        else:
            column = pa.repeat(places[name], count)
        rows = rows.append_column(name, column)
    batches: Sequence[pa.RecordBatch] = rows.combine_chunks().to_batches()
    return batches
