"""Tables of Iceberg as sources: all rows of one snapshot first, then the files that each later snapshot appended.

A position is {} before anything was read, {"done": S} when everything through snapshot S was, and in between
{"in": S, "file": n, "row": n}, with "whole" where all of S is read and not only what it added.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyiceberg.exceptions import ForbiddenError, UnauthorizedError
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import FileScanTask

from onefold.connectors.iceberg.endpoint import IcebergTable
from onefold.connectors.iceberg.history import Step, files_of, next_step
from onefold.connectors.iceberg.reading import as_given, rows_of_task
from onefold.connectors.iceberg.types import plain_type
from onefold.connectors.slicing import placed, sliced
from onefold.errors import OnefoldError, SourceRefused, SourceUnavailable, check
from onefold.protocols import CheckResult, Limit, Read, Reading, SourcePromise
from onefold.types import Binding, PartitionId, Position

__all__ = ["IcebergSource"]

PARTITION = PartitionId("0")
_POLL_SECONDS = 1.0
_META = pa.schema([("_snapshot", pa.int64()), ("_file", pa.string()), ("_offset", pa.int64())])


class IcebergSource:
    """One partition, in the order of snapshots."""

    def __init__(self, endpoint: IcebergTable) -> None:
        self._endpoint = endpoint
        self._meta: tuple[str, ...] = ()
        self._closed = threading.Event()
        self._catalog: Any = None
        self._rows: tuple[str, pa.Table] | None = None
        self._files: tuple[tuple[int, bool], list[FileScanTask]] | None = None

    @property
    def promise(self) -> SourcePromise:
        """Replayable while the snapshots that were not read yet are kept."""
        return SourcePromise(
            is_replayable=True,
            is_ordered=True,
            payload="rows",
            meta=_META,
            gap="the snapshot of the position, or one after it, is no longer in the table's history",
            isolation="readers see committed snapshots only",
            conditions=(
                "rows are only appended; compactions are passed over, a snapshot that overwrites or deletes stops it",
                "snapshots are kept for longer than the flow is ever down",
            ),
        )

    @property
    def memory(self) -> None:
        """Nothing."""
        return

    def told(self, reading: Reading) -> None:
        """Which of the columns beside the table's are wanted."""
        self._meta = reading.meta

    def sees(self, target: str) -> bool:
        """Whether a sink of this target writes to the table."""
        return target == f"iceberg:{self._endpoint.catalog.target}:{'.'.join(self._endpoint.names)}"

    def open(self, remembered: pa.Table | None) -> None:
        """Raises SourceUnavailable, SourceRefused."""
        self.close()
        self._closed.clear()
        check(remembered is None or not len(remembered), "this source remembers nothing")
        self._load()

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        """One."""
        start = self._endpoint.from_snapshot
        table = self._load()
        current = table.metadata.current_snapshot_id
        return {PARTITION: ({} if start is None else {"done": start}, {} if current is None else {"done": current})}

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        """Rows of one snapshot from the position on. Raises InputLost, SourceUnavailable, SourceRefused."""
        check(partition == PARTITION, "a table has one partition", found=partition)
        step = self._next(start, limit.until)
        waited = 0.0
        while step is None and waited < wait_seconds and not self._closed.wait(_POLL_SECONDS):
            waited += _POLL_SECONDS
            step = self._next(start, limit.until)
        if step is None:
            return Read([], start, is_idle=True)
        with self._in_our_words():
            return self._take(step, limit)

    def settle(self, positions: Mapping[PartitionId, Position]) -> None:
        """Nothing: snapshots belong to their writer."""

    def close(self) -> None:
        """Forget what was loaded, and end a read that waits."""
        self._closed.set()
        self._catalog, self._rows, self._files = None, None, None

    def infer_schema(self) -> pa.Schema:
        """The table's columns. Raises SourceUnavailable, SourceRefused."""
        found = schema_to_pyarrow(self._load().schema(), include_field_ids=False)
        return pa.schema([(field.name, plain_type(field.type) or field.type) for field in found])

    def check(self, binding: Binding | None) -> list[CheckResult]:
        """Is the table there?"""
        try:
            self._load()
        except OnefoldError as error:
            return [CheckResult(self._endpoint.label, "failed", str(error.found or error.summary), error.next_step)]
        return [CheckResult(self._endpoint.label, "ok", "can be read")]

    # ------------------------------------------------------------------------------------------------------- inner

    def _next(self, start: Position, until: Position) -> Step | None:
        if start == until and until is not None:
            return None
        return next_step(self._load(), start, until, self._endpoint.label)

    def _load(self) -> Any:
        with self._in_our_words():
            if self._catalog is None:
                file = self._endpoint.catalog.file
                if file is not None and not file.exists():
                    raise SourceUnavailable(f"{self._endpoint.label} does not exist.", found=f"no file {file}")
                self._catalog = self._endpoint.catalog.connect(is_look=True)
            return self._catalog.load_table(self._endpoint.names)

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except OnefoldError:
            raise
        except (ForbiddenError, UnauthorizedError) as error:
            raise SourceRefused(f"{self._endpoint.label} may not be read.", found=error) from error
        except Exception as error:
            raise SourceUnavailable(f"{self._endpoint.label} cannot be read.", found=repr(error)) from error

    def _take(self, step: Step, limit: Limit) -> Read:
        """Rows of one file, or the end of a snapshot."""
        tasks = self._tasks(step)
        if step.file >= len(tasks):
            return Read([], step.done)
        task = tasks[step.file]
        rows = self._open_file(step.table, task)
        part = sliced(rows, step.row, limit, step.until_row if step.until_file == step.file else None)
        end = step.row + len(part)
        if end < len(rows) or step.until_file == step.file:
            following = step.at(step.file, end)
        else:
            following = step.at(step.file + 1, 0) if step.file + 1 < len(tasks) else step.done
        snapshot, path = pa.scalar(step.snapshot, pa.int64()), pa.scalar(task.file.file_path, pa.string())
        return Read(placed(part, self._meta, step.row, _snapshot=snapshot, _file=path), following)

    def _tasks(self, step: Step) -> list[FileScanTask]:
        known = (step.snapshot, step.is_whole)
        if self._files is None or self._files[0] != known:
            self._files = known, files_of(step)
        return self._files[1]

    def _open_file(self, table: Any, task: FileScanTask) -> pa.Table:
        """Its rows, which stay in memory until the next file is read."""
        path = task.file.file_path
        if self._rows is None or self._rows[0] != path:
            self._rows = None
            found = rows_of_task(table, task)
            kinds = [plain_type(field.type) or field.type for field in found.schema]
            columns = [as_given(column, kind) for column, kind in zip(found.columns, kinds, strict=True)]
            self._rows = path, pa.table(columns, names=found.column_names)
        return self._rows[1]
