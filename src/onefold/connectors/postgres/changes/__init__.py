"""Change data capture: tables of PostgreSQL as a change stream, by logical decoding."""

from onefold.connectors.postgres.changes.endpoint import PostgresChanges, wanted_of
from onefold.connectors.postgres.changes.source import ChangesSource

__all__ = ["ChangesSource", "PostgresChanges", "wanted_of"]
