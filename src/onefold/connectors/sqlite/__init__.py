"""SQLite files: a transactional sink, and an append-only table as a source."""

from onefold.connectors.sqlite.endpoint import SqliteFile, SqliteTable
from onefold.connectors.sqlite.sink import SqliteSink
from onefold.connectors.sqlite.source import SqliteSource

__all__ = ["SqliteFile", "SqliteSink", "SqliteSource", "SqliteTable"]
