"""Prepared transactions of a MySQL sink: for commit="together".

They are XA transactions. The server keeps one that is prepared over the end of its session and its own, until XA COMMIT
or XA ROLLBACK names it. The session that prepared it holds it as long as it lives: nobody else can decide it then. A
branch is never committed in one phase, which would ask nobody.
Source: MySQL's reference manual, chapters XA Transaction SQL Statements, XA Transaction States, and Restrictions on XA
Transactions; MariaDB's documentation, page XA Transactions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from onefold.connectors.databases import session_name
from onefold.connectors.mysql.session import Session, pymysql
from onefold.connectors.mysql.tables import TableName
from onefold.connectors.spooling import file_name
from onefold.errors import SinkRefused, SinkUnavailable, check
from onefold.types import Binding, EpochHead, EpochNumber, Handle, Incarnation, SealId

__all__ = [
    "abort_prepared",
    "begin",
    "commit_prepared",
    "demand_preparing",
    "end",
    "forget",
    "handle_name",
    "listed",
    "prepare",
]

_IS_GONE = 1397
"""The error of a name that no prepared transaction has, and of one that another session holds."""

OLDEST_MYSQL = (8, 0, 30)
"""From here on a server that dies between its log and its tables comes back with both the same."""

_MAY_NOT = frozenset({1227, 1401})
"""Errors of XA RECOVER for a user who may not ask: MySQL says no more than that something is wrong."""

_IMPOSSIBLE = frozenset({1047, 1235, 1289, 1398, 1400})
"""Errors of XA START where XA is switched off, on a cluster for instance, or unknown to a proxy."""

_PART_BYTES = 64
"""Of each of the two parts of a name."""

_ID_CHARACTERS = 32
"""Of a seal's id, and at most of a journal's: the second part of a name is both."""

_FORGETS_ON_HANGING_UP = "legacy_xa_rollback_at_disconnect"
"""A variable of some versions of MariaDB: prepared transactions are rolled back with their session."""


def handle_name(table: TableName, binding: Binding, epoch: EpochHead) -> str:
    """The name under which the rows of an epoch are prepared, as XA statements take it.

    First owner, incarnation, epoch, and what is for people, as far as there is room; then journal and seal.
    """
    label = file_name(f"{binding.flow} {binding.sink}")
    first = f"{_owner(table, binding)}{binding.incarnation}:{epoch.number}:{label}"[:_PART_BYTES]
    second = f"{binding.journal}{epoch.seal}"
    check(
        len(epoch.seal) == _ID_CHARACTERS and len(second) <= _PART_BYTES and second.isalnum() and second.isascii(),
        "ids of seals have 32 digits, of journals at most as many",
        found=second,
    )
    return f"'{first}','{second}'"


def demand_preparing(session: Session, table: TableName, binding: Binding) -> None:
    """Have what is prepared here outlive its session, and its server. Raises SinkRefused where it would not.

    Tries a transaction without rows, which is not prepared. Raises the client's errors.
    """
    if not session.is_mariadb and session.version < OLDEST_MYSQL:
        raise _refusal(
            table,
            binding,
            ".".join(map(str, session.version)),
            "MySQL 8.0.30 or later, or MariaDB",
            "Use a newer server.",
        )
    if session.execute(f"SHOW VARIABLES LIKE '{_FORGETS_ON_HANGING_UP}'").fetchone() is not None:
        session.execute(f"SET SESSION {_FORGETS_ON_HANGING_UP} = 0")
    name = f"'{_owner(table, binding)}{session.number()}'"
    try:
        begin(session, name)
        end(session, name)
        forget(session, name)
    except pymysql().Error as error:
        if error.args[0] not in _IMPOSSIBLE:
            raise
        next_step = "Use a server that has XA transactions, or commit separately."
        raise _refusal(table, binding, _said(error), "XA transactions", next_step) from None


def begin(session: Session, name: str) -> None:
    """Begin a transaction that is to be prepared. Until `end` nothing may be done that commits by itself."""
    session.execute(f"XA START {name}")


def end(session: Session, name: str) -> None:
    """Nothing more is written. Raises the client's errors: then it was rolled back, or is to be."""
    session.execute(f"XA END {name}")


def forget(session: Session, name: str) -> None:
    """Roll back the transaction under way in this session, ended or not. Raises the client's errors."""
    with contextlib.suppress(pymysql().Error):
        end(session, name)
    session.execute(f"XA ROLLBACK {name}")


def prepare(session: Session, name: str) -> None:
    """From now on it survives the session and the server. Raises the client's errors."""
    session.execute(f"XA PREPARE {name}")


def commit_prepared(session: Session, name: str) -> None:
    """Make it visible. Raises the client's errors, also when it is decided already."""
    session.execute(f"XA COMMIT {name}")


def abort_prepared(session: Session, table: TableName, binding: Binding, name: str) -> None:
    """Forget it; one that is decided stays so. Raises SinkUnavailable while another session holds it, the client's
    errors."""
    try:
        session.execute(f"XA ROLLBACK {name}")
    except pymysql().Error as error:
        if error.args[0] != _IS_GONE:
            raise
        if any(handle.detail["name"] == name for handle in listed(session, table, binding)):
            found = f"another session has prepared {name} and still lives"
            raise SinkUnavailable(f"{table.label} cannot forget a transaction.", found=found) from None


def listed(session: Session, table: TableName, binding: Binding) -> Sequence[Handle]:
    """Every undecided handle of this flow's sink, of any journal and incarnation.

    The server lists those of all its databases and users. One who may not ask has prepared nothing: none are listed,
    unless the flow commits together, for then it is refused. Raises SinkRefused, the client's errors.
    """
    owner = _owner(table, binding).encode()
    try:
        # Of a stranger's name every byte may be anything: not as text.
        rows = session.execute("XA RECOVER" if session.is_mariadb else "XA RECOVER CONVERT XID").fetchall()
    except pymysql().Error as error:
        if error.args[0] not in _MAY_NOT:
            raise
        if not binding.is_together:
            return []
        next_step = "GRANT XA_RECOVER_ADMIN ON *.* to the user."
        raise _refusal(table, binding, _said(error), "the right to list prepared transactions", next_step) from None
    names = [(_bytes(name)[:length], _bytes(name)[length:]) for _, length, _, name in rows]
    return sorted(
        (_handle(first.decode(), second.decode()) for first, second in names if first.startswith(owner)),
        key=lambda handle: (handle.incarnation, handle.epoch),
    )


def _owner(table: TableName, binding: Binding) -> str:
    return f"onefold:{session_name(table, binding).rpartition(' ')[2]}:"


def _handle(first: str, second: str) -> Handle:
    _, _, incarnation, epoch, _ = first.split(":", 4)
    journal, seal = second[:-_ID_CHARACTERS], second[-_ID_CHARACTERS:]
    name = f"'{first}','{second}'"
    return Handle(journal, Incarnation(int(incarnation)), EpochNumber(int(epoch)), SealId(seal), {"name": name})


def _bytes(name: bytes | str) -> bytes:
    """MySQL was asked for hexadecimal digits after 0x."""
    return name if isinstance(name, bytes) else bytes.fromhex(name[2:])


def _said(error: Exception) -> str:
    return f"{error.args[1]} ({error.args[0]})"


def _refusal(table: TableName, binding: Binding, found: str, expected: str, next_step: str) -> SinkRefused:
    return SinkRefused(
        f'{table.label} cannot join commit="together".',
        found=found,
        expected=expected,
        next_step=next_step,
        sink=binding.sink,
    )
