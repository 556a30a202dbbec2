"""Rows -> Parquet files as pyiceberg writes them: with field ids, one partition a file, and what manifests say of them.

Files that were staged are described anew from their footers, so a receipt holds little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes, to_bytes
from pyiceberg.io.fileformat import FileFormatFactory
from pyiceberg.io.pyarrow import (
    _determine_partitions,
    _to_requested_schema,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    pyarrow_to_schema,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import sanitize_column_names
from pyiceberg.typedef import Record

from onefold.errors import RowsRefused

__all__ = ["Part", "described", "encoded_parts", "partition_json", "partition_of", "parts_of", "write_parts"]


class Part:
    """Rows of one partition. partition: its values as pyiceberg keeps them."""

    def __init__(self, rows: pa.Table, partition: Any) -> None:
        self.rows = rows
        self.partition = partition


def parts_of(metadata: Any, rows: pa.Table) -> Iterator[Part]:
    """Rows by partition, in their order. metadata: pyiceberg's, of the table."""
    if not rows.num_rows:
        return
    if metadata.spec().is_unpartitioned():
        yield Part(rows, Record())
        return
    for found in _determine_partitions(spec=metadata.spec(), schema=metadata.schema(), arrow_table=rows):
        yield Part(found.arrow_table_partition, found.partition_key.partition)


def encode(metadata: Any, rows: pa.Table, output: Any) -> Any:
    """Write rows of one partition into pyiceberg's output file; gives what it found of them."""
    wanted = metadata.schema()
    named = wanted.name_mapping
    model = FileFormatFactory.get(FileFormat.PARQUET)
    file_schema = sanitize_column_names(wanted)
    given = pyarrow_to_schema(rows.schema, name_mapping=named, format_version=metadata.format_version)
    batches = [
        _to_requested_schema(
            requested_schema=file_schema,
            file_schema=given,
            batch=batch,
            include_field_ids=True,
            format_model=model,
        )
        for batch in rows.combine_chunks().to_batches()
    ]
    writer = model.create_writer(output, file_schema, metadata.properties)
    with writer:
        writer.write(pa.Table.from_batches(batches))
    return writer.result()


def write_parts(table: Any, rows: pa.Table, name: Callable[[int], str], numbers: Iterator[int]) -> list[Any]:
    """Write rows below the table, durably where that is on this machine; gives pyiceberg's data files.

    name: a number -> the path of a new file below the table's folder.
    """
    refuse_nulls(table.metadata, rows)
    made = []
    for part in parts_of(table.metadata, rows):
        path = f"{table.location().rstrip('/')}/{name(next(numbers))}"
        output = table.io.new_output(path)
        statistics = encode(table.metadata, part.rows, output)
        made.append(_described(table.metadata, path, len(output), part.partition, statistics))
    return made


def encoded_parts(metadata: Any, rows: pa.Table) -> Iterator[tuple[Part, pa.Buffer, pq.FileMetaData]]:
    """Rows of each partition as the bytes of a file."""
    refuse_nulls(metadata, rows)
    for part in parts_of(metadata, rows):
        output = _Memory()
        encode(metadata, part.rows, output)
        body = output.stream.getvalue()
        yield part, body, pq.read_metadata(pa.BufferReader(body))


def described(metadata: Any, path: str, size_bytes: int, partition: Any, footer: pq.FileMetaData) -> Any:
    """pyiceberg's data file of a file that is there."""
    file_schema = sanitize_column_names(metadata.schema())
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=footer,
        stats_columns=compute_statistics_plan(file_schema, metadata.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(file_schema),
    )
    return _described(metadata, path, size_bytes, partition, statistics)


def partition_json(metadata: Any, partition: Any) -> list[str | None]:
    """A partition's values as a receipt keeps them."""
    kinds = [field.field_type for field in metadata.spec().partition_type(metadata.schema()).fields]
    return [
        None if value is None else to_bytes(kind, value).hex()
        for kind, value in zip(kinds, partition._data if kinds else (), strict=True)
    ]


def partition_of(metadata: Any, spec: int, kept: Sequence[str | None]) -> Any:
    """The inverse of partition_json. spec: the partitioning under which it was kept."""
    kinds = [field.field_type for field in metadata.specs()[spec].partition_type(metadata.schema()).fields]
    values = [
        None if text is None else from_bytes(kind, bytes.fromhex(text)) for kind, text in zip(kinds, kept, strict=True)
    ]
    return Record(*values)


def refuse_nulls(metadata: Any, rows: pa.Table) -> None:
    """Raise RowsRefused for a NULL where the table takes none."""
    for field in metadata.schema().fields:
        if field.required and field.name in rows.column_names and rows.column(field.name).null_count:
            raise RowsRefused(
                "The table takes no NULL in a column.",
                found=f"{rows.column(field.name).null_count} rows without {field.name}",
                column=field.name,
            )


def _described(metadata: Any, path: str, size_bytes: int, partition: Any, statistics: Any) -> Any:
    known: Mapping[str, Any] = statistics.to_serialized_dict()
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=size_bytes,
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **known,
    )


class _Memory:
    """An output file of pyiceberg that is no file."""

    def __init__(self) -> None:
        self.stream = pa.BufferOutputStream()

    def create(self, overwrite: bool = False) -> Any:
        """What is written to."""
        return self.stream
