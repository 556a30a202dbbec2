"""The sessions of PostgreSQL sinks: each sink has its own, or those of one database that commit together share one.

Sinks that share a session write an epoch in one transaction. Each leaves its share, and the one that comes last writes
them all: a session that is lost meanwhile takes nothing along, and no transaction ever holds a part of the shares.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from onefold.connectors.databases import session_name
from onefold.connectors.postgres.connection import Server, psycopg
from onefold.connectors.postgres.tables import TableName
from onefold.errors import SinkUnavailable, check
from onefold.types import Binding, EpochHead, SealId, canonical_json

__all__ = ["Session", "Share", "begin_all", "session_of", "shared_name"]


@dataclass(frozen=True)
class Share:
    """What one sink has in a transaction: its token's move and its rows.

    begin_again: after a lost session, see that nobody else has gone on. move, write: in the transaction under way.
    failure: what to raise for an error of the client's. owns: whether its diagnosis names this sink's table.
    """

    begin_again: Callable[[], None]
    move: Callable[[], None]
    write: Callable[[], None]
    failure: Callable[[Any], Exception]
    owns: Callable[[Any], bool]


class Session:
    """A connection, and the sinks that use it: one at a time, who holds `lock`.

    A failure hangs up for all of them. The core opens each again, and the first to be opened connects.

    connection: None while there is none. members: every sink that was ever opened here, by name. decided: the prepared
    transaction that was committed here last.
    """

    def __init__(self, name: str = "", instance: object = None) -> None:
        """name: see Server.connect. instance: kept, for it tells this session from those of other instances."""
        self.lock = threading.RLock()
        self.connection: Any = None
        self.members: set[str] = set()
        self.decided = ""
        self._name = name
        self._instance = instance
        self._users: set[str] = set()
        self._seal: SealId | None = None
        self._due: Sequence[str] = ()
        self._shares: dict[str, Share] = {}

    def join(self, server: Server, sink: str) -> Any:
        """The connection, made unless there is one. Raises what Server.connect raises."""
        with self.lock:
            self.members.add(sink)
            if self.connection is not None and self.connection.closed:
                self.hang_up()
            if self.connection is None:
                self.connection = server.connect(SinkUnavailable, name=self._name)
            self._users.add(sink)
            return self.connection

    def leave(self, sink: str) -> None:
        """Hang up when nobody else uses it. Never raises."""
        with self.lock:
            self._users.discard(sink)
            if not self._users:
                self.hang_up()

    def hang_up(self) -> None:
        """For all. What was under way is forgotten, or nobody knows. Never raises."""
        with self.lock:
            connection, self.connection = self.connection, None
            if connection is not None:
                with contextlib.suppress(psycopg().Error):
                    connection.close()

    def roll_back(self) -> None:
        """Or hang up, which comes to the same."""
        with self.lock:
            try:
                if self.connection is not None:
                    self.connection.execute("ROLLBACK")
            except psycopg().Error:
                self.hang_up()

    def due(self, epoch: EpochHead, sink: str) -> Sequence[str]:
        """The sinks whose shares of an epoch are one transaction, in the flow's order; the same for each of them."""
        with self.lock:
            if self._seal != epoch.seal:
                self._due = [name for name in epoch.sinks if name in self.members] or [sink]
                self._seal, self._shares = epoch.seal, {}
            check(sink in self._due, "a sink that prepares is one of those that the epoch names", sink=sink)
            return self._due

    def gather(self, epoch: EpochHead, sink: str, share: Share) -> Sequence[Share]:
        """Keep a sink's share. All of the epoch's in their order when it is the last, else none."""
        with self.lock:
            due = self.due(epoch, sink)
            self._shares[sink] = share
            if len(self._shares) < len(due):
                return ()
            shares, self._shares = [self._shares[name] for name in due], {}
            return shares


_SHARED: weakref.WeakValueDictionary[tuple[int, str], Session] = weakref.WeakValueDictionary()
_SHARING = threading.Lock()


def session_of(server: Server, table: TableName, binding: Binding) -> Session:
    """Where a sink works: with those of its instance in the same database that commit together, else alone.

    The spool tells instances apart: a copied journal may give two of them one number, and in one process.
    """
    if not binding.is_together:
        return Session(session_name(table, binding))
    name = shared_name(server, binding)
    with _SHARING:
        key = (id(binding.spool), name)
        session = _SHARED.get(key)
        if session is None:
            _SHARED[key] = session = Session(name, binding.spool)
        return session


def shared_name(server: Server, binding: Binding) -> str:
    """Names the sessions that a flow's sinks in a database share, whichever sinks it has, and no others."""
    owner = [server.tokens, server.target, server.user, binding.flow, binding.lane]
    return f"onefold {hashlib.sha256(canonical_json(owner).encode()).hexdigest()[:24]}"


def begin_all(shares: Sequence[Share]) -> None:
    """After a lost session, for each of them. Raises what Share.begin_again raises."""
    for share in shares:
        share.begin_again()
