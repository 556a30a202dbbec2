"""What a Hudi table looks like: the user's wishes, a new table's settings, and whether one that is there fits."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from onefold.connectors.hudi.place import Address
from onefold.connectors.hudi.rows import Layout, avro_schema, columns_of
from onefold.errors import SchemaError, SinkRefused
from onefold.types import Binding

__all__ = ["DEFAULTS", "WITHOUT_KEY", "Target", "agreed", "new_settings"]

DEFAULTS: Mapping[str, str] = {
    "hoodie.index.type": "SIMPLE",
    "hoodie.index.bloom.num_entries": "1000",  # filters of small files are small; they grow with their rows
    "hoodie.parquet.small.file.limit": str(16 << 20),
    "hoodie.parquet.compression.codec": "zstd",
    "hoodie.merge.allow.duplicate.on.inserts": "true",
    "hoodie.combine.before.upsert": "false",
    "hoodie.combine.before.insert": "false",
    "hoodie.write.record.merge.mode": "COMMIT_TIME_ORDERING",
    "hoodie.write.auto.upgrade": "false",
    "hoodie.write.markers.type": "DIRECT",
    "hoodie.embed.timeline.server": "false",
    "hoodie.time.generator.max_expected_clock_skew.ms": "1",  # an instant of a clock that is behind is refused
    "hoodie.clean.automatic": "false",
    "hoodie.archive.automatic": "false",
    "hoodie.write.lock.provider": "org.apache.hudi.client.transaction.lock.InProcessLockProvider",
}
"""Of Hudi's writer. Cleaning and archiving are what `maintain` does."""

WITHOUT_KEY: Mapping[str, str] = {"hoodie.parquet.bloom.filter.enabled": "false"}
"""Of tables that have no record key: nobody looks a row up, and the filters take a third of an append's time."""


@dataclass(frozen=True)
class Target:
    """A table, as the user names it.

    Args:
        address: where it lies. partition_by: columns that name the folders of a new table. options: of Hudi's writer.
        jars, java_options: see jvm. commit_every_seconds, maintain_every_seconds: see Paced and Maintain.
    """

    address: Address
    partition_by: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    jars: str | None = None
    java_options: tuple[str, ...] = ()
    commit_every_seconds: float = 10.0
    maintain_every_seconds: float | None = None
    may_add_columns: bool = False

    @property
    def label(self) -> str:
        """How it is shown."""
        return self.address.label

    @property
    def table_name(self) -> str:
        """The last part of its address. Raises SettingMissing."""
        return self.address.place().for_java.rstrip("/").rpartition("/")[2]


def new_settings(binding: Binding, target: Target, columns: pa.Schema) -> dict[str, str]:
    """What a new table keeps in hoodie.properties."""
    folders = target.partition_by
    found = {
        "hoodie.table.type": "COPY_ON_WRITE",
        "hoodie.table.create.schema": avro_schema(columns, target.table_name),
        "hoodie.record.merge.mode": "COMMIT_TIME_ORDERING",
        "hoodie.table.partition.fields": ",".join(folders),
        "hoodie.datasource.write.hive_style_partitioning": "true",
        "hoodie.datasource.write.partitionpath.urlencode": "true",
    }
    if binding.mode == "upsert":
        found["hoodie.table.recordkey.fields"] = ",".join(binding.key)
    keys = "NonpartitionedKeyGenerator" if not folders else "ComplexKeyGenerator"
    if len(folders) == 1 and len(binding.key) <= 1:
        keys = "SimpleKeyGenerator"
    found["hoodie.table.keygenerator.class"] = f"org.apache.hudi.keygen.{keys}"
    return found


def agreed(binding: Binding, target: Target, settings: Mapping[str, str], told: str, wanted: pa.Schema) -> Layout:
    """How rows lie in the table that is there. settings: its own. told: its columns as an Avro schema, "" for none.

    Raises SchemaError, SinkRefused.
    """
    other = functools.partial(_other, binding, target)
    found = settings.get("hoodie.table.type", "COPY_ON_WRITE")
    if found != "COPY_ON_WRITE":
        raise other("It is not a copy-on-write table.", found, "COPY_ON_WRITE")
    keys = tuple(filter(None, settings.get("hoodie.table.recordkey.fields", "").split(",")))
    if keys != binding.key:
        raise other("Its record key is another.", list(keys) or "none", list(binding.key) or "none")
    folders = tuple(filter(None, settings.get("hoodie.table.partition.fields", "").split(",")))
    folders = tuple(name.partition(":")[0] for name in folders)
    if target.partition_by and folders != target.partition_by:
        raise other("It is partitioned otherwise.", list(folders), list(target.partition_by))
    _check_partitions(binding, folders)
    return Layout(binding, _merged(binding, target, columns_of(told) if told else wanted, wanted), folders)


def _check_partitions(binding: Binding, folders: Sequence[str]) -> None:
    for name in folders:
        if name not in binding.schema.names:
            raise SchemaError("A table is partitioned by a column that the flow does not write.", column=name)
        kind = binding.schema.field(name).type
        plain = (pa.types.is_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_date32)
        if not any(holds(kind) for holds in plain):
            raise SchemaError(
                "A table cannot be partitioned by a column of this type.",
                column=name,
                found=str(kind),
                expected="VARCHAR, an integer, BOOLEAN or DATE",
            )
        if binding.mode == "upsert" and name not in binding.key:
            raise SchemaError(
                "Upserts need every column that names partitions in their key: else a key could stand in two.",
                column=name,
                found=list(binding.key),
                next_step=f'Add "{name}" to key=, or do not partition by it.',
            )


def _merged(binding: Binding, target: Target, there: pa.Schema, wanted: pa.Schema) -> pa.Schema:
    for column in wanted:
        if column.name not in there.names:
            if target.may_add_columns:
                there = there.append(column)
                continue
            raise SchemaError(
                f"{target.label} has no column {column.name}.",
                sink=binding.sink,
                column=column.name,
                expected=str(column.type),
                next_step="Say add_columns=True to have it added, or leave it out of the flow's select.",
            )
        found = there.field(column.name).type
        if found != column.type:
            raise SchemaError(
                f"Column {column.name} of {target.label} is not what the flow writes.",
                sink=binding.sink,
                column=column.name,
                found=str(found),
                expected=str(column.type),
                next_step="Cast it in the flow's select, or write to another table.",
            )
    return there


def _other(binding: Binding, target: Target, why: str, found: object, expected: object) -> SinkRefused:
    return SinkRefused(
        f"{target.label} cannot be written by this flow. {why}",
        found=found,
        expected=expected,
        next_step="Name another table, or change the flow.",
        sink=binding.sink,
    )
