"""PostgreSQL's messages by name, for a chaos proxy.

    with Proxy(server_port, PostgresFramer) as proxy:
        proxy.order(faults_of("cut answer Commit#2 and strand request CommitPrepared#1"))

Clients must come with sslmode=disable and gssencmode=disable: what is asked before the first message is no message.
Source: PostgreSQL's documentation, chapter Frontend/Backend Protocol.
"""

from __future__ import annotations

import struct

from onefold.testing.chaos_faults import Message, Side, verb_of

__all__ = ["PostgresFramer"]

_SIZE = struct.Struct(">i")
_SQL = {b"Q": 0, b"P": 1}
"""Messages that hold SQL, and how many texts stand before it."""

_NAMES = {b"B": "Bind", b"E": "Execute", b"S": "Sync", b"d": "CopyData", b"c": "CopyDone", b"X": "Terminate"}


class PostgresFramer:
    """A statement, and the answer that it is done, have the name of its verb: Commit, CommitPrepared, Update, Copy."""

    def __init__(self) -> None:
        self._rest: dict[Side, bytes] = {"request": b"", "answer": b""}
        self._has_begun = False

    def cut(self, side: Side, received: bytes) -> list[Message]:
        """See Framer."""
        rest = self._rest[side] + received
        found = []
        while True:
            head = 0 if side == "request" and not self._has_begun else 1  # the first message has no letter
            if len(rest) < head + _SIZE.size or len(rest) < (end := head + _SIZE.unpack_from(rest, head)[0]):
                break
            found.append(Message(self._kind(side, rest[:head], rest[head + _SIZE.size : end]), rest[:end]))
            rest = rest[end:]
            self._has_begun = True
        self._rest[side] = rest
        return found

    @staticmethod
    def _kind(side: Side, letter: bytes, body: bytes) -> str:
        if side == "answer":
            return verb_of(body.split(b"\0")[0]) if letter == b"C" else "Error" if letter == b"E" else "Answer"
        if letter in _SQL:
            return verb_of(body.split(b"\0")[_SQL[letter]])
        return _NAMES.get(letter, "Other") if letter else "Startup"
