"""The messages of PostgreSQL's output plugin pgoutput, and those that carry them.

Source: PostgreSQL's documentation, chapters Streaming Replication Protocol and Logical Replication Message Formats
(protocol version 1: whole transactions, in the order of their commits).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, TypeAlias

__all__ = [
    "UNCHANGED", "Begin", "Change", "Column", "Commit", "Keepalive", "Message", "Relation", "Truncate", "parse",
    "status",
]  # fmt: skip

UNCHANGED: Any = object()
"""Stands for a value that is kept out of line and did not change: the log does not hold it."""

HEADER_BYTES = 25
"""Before a message of the plugin: its kind, where it begins, where the log ends, and the time."""

FLAGS_AND_PLACE_BYTES = 9

EPOCH_MICROS = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970: where PostgreSQL's time begins."""

_BEGIN = Struct(">QqI")
_COMMIT = Struct(">BQQq")
_KEEPALIVE = Struct(">QqB")
_COLUMN = Struct(">Ii")
_STATUS = Struct(">QQQqB")
_SHORT = Struct(">H")
_LONG = Struct(">I")


@dataclass(frozen=True)
class Keepalive:
    """The server has sent everything that was committed before `end`. asks: it wants an answer now."""

    end: int
    asks: bool


@dataclass(frozen=True)
class Begin:
    """A transaction follows. commit: where its commit record starts; micros: when, since 1970; xid: its low 32 bits."""

    commit: int
    micros: int
    xid: int


@dataclass(frozen=True)
class Commit:
    """It ends. end: behind its commit record."""

    commit: int
    end: int


@dataclass(frozen=True)
class Column:
    """type, modifier: the server's numbers. is_identity: an old row is known by it."""

    name: str
    type: int
    modifier: int
    is_identity: bool


@dataclass(frozen=True)
class Relation:
    """The table that later messages name by number, as it was then. identity: its replica identity, d, n, f or i."""

    number: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A row. kind: I, U, D. old: of the key alone, or of the whole row (is_whole); values are text, None is NULL."""

    kind: str
    relation: int
    old: list[Any] | None
    new: list[Any] | None
    is_whole: bool
    size: int


@dataclass(frozen=True)
class Truncate:
    """These tables were emptied."""

    relations: tuple[int, ...]


@dataclass(frozen=True)
class Message:
    """What somebody put into the log."""

    prefix: str
    content: bytes


Parsed: TypeAlias = Keepalive | Begin | Commit | Relation | Change | Truncate | Message


def parse(raw: bytes) -> Parsed | None:
    """One message of the stream; None: of a kind that changes no table."""
    if raw[:1] == b"k":
        end, _, asks = _KEEPALIVE.unpack_from(raw, 1)
        return Keepalive(end, bool(asks))
    kind = raw[HEADER_BYTES : HEADER_BYTES + 1]
    if kind in b"IUD" and kind:
        return _change(raw, chr(kind[0]), HEADER_BYTES + 1)
    reader = _OTHERS.get(kind)
    return None if reader is None else reader(raw, HEADER_BYTES + 1)


def status(settled: int) -> bytes:
    """A standby status update: everything before `settled` may be forgotten; 0: nothing is said of that."""
    return b"r" + _STATUS.pack(settled, settled, settled, 0, 0)


def _change(raw: bytes, kind: str, at: int) -> Change:
    relation = _LONG.unpack_from(raw, at)[0]
    at += 4
    old = new = None
    is_whole = False
    while at < len(raw):
        part = raw[at]
        values, at = _values(raw, at + 1)
        if part == 78:  # N
            new = values
        else:
            old, is_whole = values, part == 79  # O
    return Change(kind, relation, old, new, is_whole, len(raw))


def _values(raw: bytes, at: int) -> tuple[list[Any], int]:
    count = (raw[at] << 8) | raw[at + 1]
    at += 2
    values: list[Any] = []
    for _ in range(count):
        kind = raw[at]
        if kind == 116:  # t: text
            start = at + 5
            at = start + _LONG.unpack_from(raw, at + 1)[0]
            values.append(raw[start:at])
        else:
            values.append(None if kind == 110 else UNCHANGED)  # n, u
            at += 1
    return values, at


def _begin(raw: bytes, at: int) -> Begin:
    commit, micros, xid = _BEGIN.unpack_from(raw, at)
    return Begin(commit, micros + EPOCH_MICROS, xid)


def _commit(raw: bytes, at: int) -> Commit:
    _, commit, end, _ = _COMMIT.unpack_from(raw, at)
    return Commit(commit, end)


def _relation(raw: bytes, at: int) -> Relation:
    number = _LONG.unpack_from(raw, at)[0]
    schema, at = _text(raw, at + 4)
    name, at = _text(raw, at)
    identity = chr(raw[at])
    columns = []
    count = _SHORT.unpack_from(raw, at + 1)[0]
    at += 3
    for _ in range(count):
        flags = raw[at]
        column, at = _text(raw, at + 1)
        kind, modifier = _COLUMN.unpack_from(raw, at)
        columns.append(Column(column, kind, modifier, bool(flags & 1)))
        at += _COLUMN.size
    return Relation(number, schema or "pg_catalog", name, identity, tuple(columns))


def _truncate(raw: bytes, at: int) -> Truncate:
    count = _LONG.unpack_from(raw, at)[0]
    numbers: Sequence[int] = [_LONG.unpack_from(raw, at + 5 + 4 * each)[0] for each in range(count)]
    return Truncate(tuple(numbers))


def _message(raw: bytes, at: int) -> Message:
    prefix, at = _text(raw, at + FLAGS_AND_PLACE_BYTES)
    return Message(prefix, raw[at + 4 :])


def _text(raw: bytes, at: int) -> tuple[str, int]:
    end = raw.index(b"\0", at)
    return raw[at:end].decode("utf8", "surrogateescape"), end + 1


_OTHERS: dict[bytes, Callable[[bytes, int], Parsed]] = {
    b"B": _begin,
    b"C": _commit,
    b"R": _relation,
    b"T": _truncate,
    b"M": _message,
}
