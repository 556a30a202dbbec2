"""PostgreSQL: tables as transactional sinks."""

from onefold.connectors.postgres.endpoint import PostgresDatabase, PostgresTable, postgres
from onefold.connectors.postgres.sink import PostgresSink

__all__ = ["PostgresDatabase", "PostgresSink", "PostgresTable", "postgres"]
