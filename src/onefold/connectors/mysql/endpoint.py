"""What users make: `of.mysql(url).table(name)`."""

from __future__ import annotations

from dataclasses import dataclass

from onefold.connectors.mysql.connection import Server
from onefold.connectors.mysql.sink import MysqlSink
from onefold.connectors.spooling import check_key
from onefold.types import Mode

__all__ = ["MysqlDatabase", "MysqlTable", "mysql"]


def mysql(url: str, *, tokens: str | None = None) -> MysqlDatabase:
    """A database of MySQL 8.0.19 or later, or MariaDB 10.6 or later.

    Args:
        url: mysql://user:password@host:port/database; may hold ${NAME}: write passwords so. Options after a question
            mark: ssl_mode (as MySQL's clients take it: DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY),
            ssl_ca, ssl_cert, ssl_key, unix_socket.
        tokens: the database for the table of tokens, made when it is missing; None: the URL's, so that a backup of it
            holds rows and tokens together.
    Raises BuildError. Nothing is connected before the flow runs.
    """
    return MysqlDatabase(Server(url, tokens))


@dataclass(frozen=True)
class MysqlDatabase:
    """What `of.mysql(url)` gives."""

    server: Server

    def table(self, name: str, *, database: str | None = None, create: bool = False) -> MysqlTable:
        """A table; names are taken as they are.

        Args:
            database: another one of the same server; None: the URL's.
            create: make it from the stream's schema when it is not there, an upsert's with a unique index over its
                key. A text of a key is then VARCHAR(255), or shorter when several must fit into one index; where that
                is too short, make the table yourself: an index of InnoDB has room for 768 characters.
        """
        return MysqlTable(self.server, name, database, create)


@dataclass(frozen=True)
class MysqlTable:
    """What `of.mysql(url).table(name)` gives."""

    server: Server
    name: str
    database: str | None = None
    create: bool = False

    @property
    def label(self) -> str:
        """mysql(url).name, or with the database when it is not the URL's."""
        return self._sink.label

    @property
    def default_name(self) -> str:
        """The table's name."""
        return self.name

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> MysqlSink:
        """A transactional sink. Raises NotSupported for an upsert without a key."""
        check_key(mode, key, self.label)
        return self._sink

    @property
    def _sink(self) -> MysqlSink:
        return MysqlSink(self.server, self.name, database=self.database, is_made=self.create)
