"""What users make: `of.postgres(url).table(name)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onefold.connectors.postgres.connection import Server
from onefold.connectors.postgres.outbox_endpoint import PostgresOutbox
from onefold.connectors.postgres.outbox_table import Outbox
from onefold.connectors.postgres.sink import PostgresSink
from onefold.connectors.postgres.tables import TableName
from onefold.connectors.spooling import check_key
from onefold.errors import BuildError
from onefold.types import Mode

__all__ = ["PostgresDatabase", "PostgresTable", "postgres"]


def postgres(url: str, *, tokens: str = "_onefold") -> PostgresDatabase:
    """A database of PostgreSQL 15 or later.

    Args:
        url: postgresql://user:password@host:port/database, as libpq knows it (sslmode=, sslrootcert=, … as well); may
            hold ${NAME}: write passwords so.
        tokens: the schema for the table of tokens; it is made when it is missing.
    Raises BuildError. Nothing is connected before the flow runs.
    """
    return PostgresDatabase(Server(url, tokens))


@dataclass(frozen=True)
class PostgresDatabase:
    """What `of.postgres(url)` gives."""

    server: Server

    def table(self, name: str, *, schema: str = "public", create: bool = False) -> PostgresTable:
        """A table; both names are taken as they are, capitals and all.

        create: make it from the stream's schema when it is not there, an upsert's with a unique index over its key.
        """
        return PostgresTable(self.server, name, schema, create)

    def outbox(
        self,
        name: str,
        *,
        schema: str = "public",
        id: str = "id",  # noqa: A002 - the word everyone uses
        transaction: str = "transaction_id",
        start: Literal["earliest", "latest"] = "earliest",
        delete_settled: bool = False,
    ) -> PostgresOutbox:
        """A table that is only inserted into, to be read: an outbox, a log of events.

        Args:
            name, schema: taken as they are, capitals and all.
            id: a unique column, bigint or uuid, say, that tells rows of one transaction apart.
            transaction: the column xid8 NOT NULL DEFAULT pg_current_xact_id(), which nobody writes, with an index over
                it and id. What is missing is told when the flow runs, with the statements that mend it.
            start: where a new flow begins. Later runs do not ask.
            delete_settled: delete rows for which every sink has all that follows from them. Nothing else may read the
                table then.
        Raises BuildError.
        """
        if start not in ("earliest", "latest"):
            raise BuildError("An outbox is not read from there.", found=repr(start), expected="earliest or latest")
        return PostgresOutbox(Outbox(self.server, schema, name, id, transaction, start, delete_settled))


@dataclass(frozen=True)
class PostgresTable:
    """What `of.postgres(url).table(name)` gives."""

    server: Server
    name: str
    schema: str = "public"
    create: bool = False

    @property
    def label(self) -> str:
        """postgres(url).name, or with the schema when it is not public."""
        return f"{self.server.label}.{self.name if self.schema == 'public' else f'{self.schema}.{self.name}'}"

    @property
    def default_name(self) -> str:
        """The table's name."""
        return self.name

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> PostgresSink:
        """A transactional sink. Raises NotSupported for an upsert without a key."""
        check_key(mode, key, self.label)
        table = TableName(self.schema, self.name, self.server.tokens, self.label)
        return PostgresSink(self.server, table, is_made=self.create)
