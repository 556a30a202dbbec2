"""Apache Iceberg tables, by pyiceberg."""

from __future__ import annotations

from onefold.connectors.iceberg.endpoint import IcebergTable, iceberg

__all__ = ["IcebergTable", "iceberg"]
