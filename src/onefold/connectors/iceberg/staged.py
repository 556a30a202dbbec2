"""Rows that lie in the table's folder before a commit names them, and what a receipt says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import PyArrowFileIO

from onefold.connectors.iceberg.reading import rows_of_file
from onefold.connectors.iceberg.syncing import LOCAL, local_folder
from onefold.connectors.iceberg.writing import described, encoded_parts, partition_json, partition_of
from onefold.connectors.staging import StagingArea
from onefold.errors import SinkRefused
from onefold.types import Binding, EpochHead, Receipt

__all__ = ["area_of", "stage", "staged_files", "staged_rows"]


def area_of(table: Any, binding: Binding) -> StagingArea:
    """The sink's staged files. Raises SinkRefused where files are not read by pyarrow."""
    files, root = folder_of(table, binding)
    return StagingArea(files, root, binding, system="iceberg", local=local_folder(table.io, table.location()))


def folder_of(table: Any, binding: Binding) -> tuple[fs.FileSystem, str]:
    """The table's folder: its file system, and its path there."""
    if not isinstance(table.io, PyArrowFileIO):
        raise SinkRefused(
            "The files of a table are written by pyarrow only.",
            found=f"py-io-impl {type(table.io).__name__}",
            next_step="Leave py-io-impl out of the catalog's and the table's properties.",
            sink=binding.sink,
        )
    scheme, netloc, path = table.io.parse_location(table.location(), table.io.properties)
    return table.io.fs_by_scheme(scheme, "" if scheme == LOCAL else netloc), path.rstrip("/")


def stage(table: Any, binding: Binding, epoch: EpochHead, rows: pa.Table) -> Receipt:
    """Write rows of an epoch, one file a partition. Raises RowsRefused, DiskError, OSError."""
    area = area_of(table, binding)
    files = []
    size = 0
    for number, (part, body, footer) in enumerate(encoded_parts(table.metadata, rows)):
        made = area.stage(epoch.number, epoch.seal, number, body, footer)
        size += made.size_bytes
        partition = partition_json(table.metadata, part.partition)
        files.append({"path": made.path, "size": made.size_bytes, "partition": partition})
    detail = {"files": files, "spec": table.metadata.default_spec_id}
    return Receipt(epoch.number, "native", rows.num_rows, size, detail)


def staged_files(table: Any, binding: Binding, receipt: Receipt) -> list[Any] | None:
    """pyiceberg's data files of a receipt. None: the table is partitioned otherwise by now.

    Raises FileCorrupt when one is not there as it was written.
    """
    if receipt.detail["spec"] != table.metadata.default_spec_id:
        return None
    return [_described(table, binding, receipt, file) for file in receipt.detail["files"]]


def staged_rows(table: Any, binding: Binding, receipt: Receipt) -> pa.Table:
    """The rows of a receipt, to be written anew."""
    return pa.concat_tables(
        [rows_of_file(table, _described(table, binding, receipt, file)) for file in receipt.detail["files"]]
    )


def _described(table: Any, binding: Binding, receipt: Receipt, file: Mapping[str, Any]) -> Any:
    # A file that is gone would show below, at its footer, and to the core, which asks what is prepared when a sink is
    # opened again. One that was replaced shows by its size alone.
    area_of(table, binding).demand(file["path"], file["size"], receipt.epoch)
    whole = f"{table.location().rstrip('/')}/{file['path']}"
    with table.io.new_input(whole).open() as stream:
        footer = pq.read_metadata(stream)
    spec = receipt.detail["spec"]
    made = described(table.metadata, whole, file["size"], partition_of(table.metadata, spec, file["partition"]), footer)
    made.spec_id = spec
    return made
