"""Tables that are made, or found and held against what the flow needs."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError

from onefold.connectors.iceberg.catalog import sync_catalog
from onefold.connectors.iceberg.endpoint import IcebergTable, Making
from onefold.connectors.iceberg.failure import step_before
from onefold.connectors.iceberg.syncing import local_folder
from onefold.connectors.iceberg.types import check_columns, missing_columns
from onefold.connectors.spooling import RESERVED_PREFIX, check_names
from onefold.disk import make_folder
from onefold.errors import SchemaError, SinkRefused
from onefold.settings import resolve
from onefold.types import Binding

__all__ = ["find_or_make", "fit"]

PROPERTIES = {
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "50",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "50",
}
"""Of tables that are made: with a commit every few seconds, manifests and metadata files must not pile up."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")


def find_or_make(catalog: Any, endpoint: IcebergTable, binding: Binding, stored: pa.Schema) -> Any:
    """The table. Raises SinkRefused when there is none and none is to be made; what pyiceberg raises."""
    try:
        return catalog.load_table(endpoint.names)
    except NoSuchTableError:
        if not endpoint.making.creates:
            raise SinkRefused(
                f"{endpoint.label} is not there.",
                next_step="Make it, or say create=True.",
                sink=binding.sink,
            ) from None
    check_names(binding, endpoint.label)
    _check_partitions(endpoint.making, stored, endpoint.label, binding)
    with step_before("iceberg.create", endpoint.label, binding.sink):
        _make(catalog, endpoint, stored)
        sync_catalog(catalog)
    table = catalog.load_table(endpoint.names)
    folder = local_folder(table.io, table.location())
    if folder is not None:
        make_folder(folder / "data")
    return table


def fit(table: Any, endpoint: IcebergTable, binding: Binding, stored: pa.Schema) -> Any:
    """The table, when it takes the flow's rows; with the columns added that it lacked, if that is wanted.

    Raises SchemaError; what pyiceberg raises.
    """
    making = endpoint.making
    lacking = missing_columns(table.schema(), stored)
    if lacking and making.evolves:
        with step_before("iceberg.evolve", endpoint.label, binding.sink), table.update_schema() as update:
            update.union_by_name(pa.schema([stored.field(name) for name in lacking]))
        table = table.catalog.load_table(endpoint.names)
    check_columns(table.schema(), binding, stored, endpoint.label)
    found = _partitions_in(table)
    wanted = [(part.column, part.iceberg_text) for part in making.partitions]
    if wanted and sorted(found) != sorted(wanted):
        raise SchemaError(
            f"{endpoint.label} is not partitioned as the flow says.",
            found=", ".join(f"{transform} of {column}" for column, transform in found) or "no partitions",
            expected=", ".join(map(str, making.partitions)),
            next_step="Leave partition_by out to write to it as it is, or change the table.",
            sink=binding.sink,
        )
    return table


def _make(catalog: Any, endpoint: IcebergTable, stored: pa.Schema) -> None:
    """If killed inside, or beside another who does the same: one table is there, or none."""
    for depth in range(1, len(endpoint.names)):
        catalog.create_namespace_if_not_exists(endpoint.names[:depth])
    try:
        staged = catalog.create_table_transaction(
            endpoint.names, schema=stored, location=_location(catalog, endpoint), properties=PROPERTIES
        )
        with staged as transaction:
            if endpoint.making.partitions:
                with transaction.update_spec() as spec:
                    for part in endpoint.making.partitions:
                        spec.add_field(part.column, part.as_transform(), part.field_name)
    except (TableAlreadyExistsError, CommitFailedException):
        return  # whoever was faster; it is loaded and checked like any other


def _location(catalog: Any, endpoint: IcebergTable) -> str | None:
    """Where the files of a new table are; None: where the catalog says. Names that no path can hold are replaced."""
    if endpoint.making.location is not None:
        return resolve(endpoint.making.location)
    warehouse = catalog.properties.get("warehouse")
    if warehouse is None or "://" not in warehouse or all(map(_PLAIN_NAME.fullmatch, endpoint.names)):
        return None
    return "/".join([warehouse.rstrip("/"), *map(_path_name, endpoint.names)])


def _path_name(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _check_partitions(making: Making, stored: pa.Schema, label: str, binding: Binding) -> None:
    for part in making.partitions:
        if part.column not in stored.names or part.column.startswith(RESERVED_PREFIX):
            raise SchemaError(
                f"{label} cannot be partitioned by {part}.",
                found=f"no column {part.column}",
                expected=f"one of {', '.join(stored.names)}",
                sink=binding.sink,
                column=part.column,
            )


def _partitions_in(table: Any) -> list[tuple[str, str]]:
    schema = table.schema()
    return [(schema.find_column_name(field.source_id), str(field.transform)) for field in table.spec().fields]
