"""DuckDB files: a transactional sink."""

from onefold.connectors.duckdb.endpoint import DuckdbFile, DuckdbTable
from onefold.connectors.duckdb.sink import DuckdbSink

__all__ = ["DuckdbFile", "DuckdbSink", "DuckdbTable"]
