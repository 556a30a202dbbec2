"""MySQL's messages by name, for a chaos proxy. MariaDB's are the same.

    with Proxy(server_port, MysqlFramer) as proxy:
        proxy.order(faults_of("cut answer Commit#2 and strand request XaCommit#1"))

Clients must come without TLS (ssl_mode=DISABLED) and without compression.
Source: MySQL's documentation, chapter Client/Server Protocol (Protocol Basics, Command Phase).
"""

from __future__ import annotations

from onefold.testing.chaos_faults import Message, Side, verb_of

__all__ = ["MysqlFramer"]

_HEAD_BYTES = 4
"""Three of the packet's size, little-endian, and one of its number: commands begin with number 0."""

_COMMANDS = {0x01: "Quit", 0x02: "Use", 0x0E: "Ping"}
_QUERY = 0x03
_ERROR = 0xFF


class MysqlFramer:
    """A statement, and the first packet of its answer, have the name of its verb: Commit, StartTransaction, Update.

    What follows of an answer is Answer; what comes before the first command is Login.
    """

    def __init__(self) -> None:
        self._rest: dict[Side, bytes] = {"request": b"", "answer": b""}
        self._asked: str | None = "Login"

    def cut(self, side: Side, received: bytes) -> list[Message]:
        """See Framer."""
        rest = self._rest[side] + received
        found = []
        while len(rest) >= _HEAD_BYTES and len(rest) >= (end := _HEAD_BYTES + int.from_bytes(rest[:3], "little")):
            name = self._of_request if side == "request" else self._of_answer
            found.append(Message(name(rest[_HEAD_BYTES - 1], rest[_HEAD_BYTES:end]), rest[:end]))
            rest = rest[end:]
        self._rest[side] = rest
        return found

    def _of_request(self, number: int, body: bytes) -> str:
        if number != 0 or not body:  # of the login, or the second packet of a long statement
            return "Other"
        self._asked = verb_of(body[1:]) if body[0] == _QUERY else _COMMANDS.get(body[0], "Other")
        return self._asked

    def _of_answer(self, number: int, body: bytes) -> str:
        asked, self._asked = self._asked, None
        if body[:1] == bytes([_ERROR]):
            return "Error"
        return asked or "Answer"
