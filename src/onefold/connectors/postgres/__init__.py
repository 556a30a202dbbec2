"""PostgreSQL: tables as transactional sinks, and outboxes as sources."""

from onefold.connectors.postgres.endpoint import PostgresDatabase, PostgresTable, postgres
from onefold.connectors.postgres.outbox import OutboxSource
from onefold.connectors.postgres.outbox_endpoint import PostgresOutbox
from onefold.connectors.postgres.sink import PostgresSink

__all__ = ["OutboxSource", "PostgresDatabase", "PostgresOutbox", "PostgresSink", "PostgresTable", "postgres"]
