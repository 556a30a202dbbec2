"""What users make: `of.postgres(url).table(name)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onefold.connectors.postgres.changes import PostgresChanges, wanted_of
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
    """A database of PostgreSQL 15 or later. Under commit="together" its tables show an epoch at the same instant.

    Args:
        url: postgresql://user:password@host:port/database, as libpq knows it (sslmode=, sslrootcert=, … as well); may
            hold ${NAME}: write passwords so.
        tokens: the schema for the table of tokens; it is made when it is missing. Tables with tokens in different
            schemas, or written as different users, share no transaction.
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

    def changes(
        self,
        table: str | Sequence[str],
        *,
        schema: str = "public",
        slot: str | None = None,
        publication: str | None = None,
        snapshot: bool = True,
        unchanged: Literal["refuse", "stop"] = "refuse",
        truncate: Literal["stop", "ignore"] = "stop",
    ) -> PostgresChanges:
        """The rows of tables, and then every insert, update and delete, as a change stream by logical decoding.

        Rows are the columns of the table with `_op`: "upsert" with the row as it is now, or "delete" with the key of
        the row that is gone (and its other columns under REPLICA IDENTITY FULL, else NULL). An update that changes the
        key is a delete and an upsert. Of several tables: all their columns together, those of others NULL; say
        meta="_table" to tell them apart. Also as meta: _lsn, _offset, _xid, _committed_at, _before (the old row as
        JSON, under REPLICA IDENTITY FULL). Upsert by the table's own key. numeric without a precision, intervals,
        enums and other types that Arrow lacks come as text; generated columns do not come.

        Of every key the states come in their true order and nothing committed is left out, with one exception: while
        the tables are read for the first time, states that are gone by then may be passed over, and one may come twice
        in a row.

        The server needs wal_level = logical and, when a flow is new, two free replication slots for a moment; reading
        begins when every transaction that was open has ended. The user needs REPLICATION, SELECT on the tables and,
        unless a publication is named, CREATE on the database and ownership of the tables. When a flow is given up, drop
        its slot: it keeps the server's log for ever.

        Args:
            slot: the replication slot; it is made when a new flow is run and it is missing. Default: one named after
                flow and read.
            publication: one that is there, of whole tables. Default: one named like the slot, which is made.
            snapshot: a new flow first gives every row that is there, as an upsert; False: only what changes from the
                slot's beginning on.
            unchanged: an update's log lacks large values (over 2 kB a row) that it does not change. "refuse": tables
                that can have them must have REPLICA IDENTITY FULL; "stop": they may come, and when one lacks, the flow
                stops there.
            truncate: the log does not tell which rows a TRUNCATE deletes. "stop": the flow stops there; "ignore": it
                goes on, and sinks keep those rows.
        """
        return PostgresChanges(
            self.server,
            wanted_of(table, schema, slot, publication, snapshot=snapshot, unchanged=unchanged, truncate=truncate),
        )

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
