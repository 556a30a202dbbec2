"""What a chaos proxy does to which message, as values and as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["Act", "Fault", "Framer", "Message", "Passing", "Side", "Stream", "verb_of"]

Act = Literal["drop", "hold", "strand", "delay", "cut", "close"]
"""drop: swallowed; the connection stays open and what follows passes. hold: it and all that follows in its direction
wait. strand: the client is reset at once, and the message waits on its way to the server. delay: hold for some seconds.
cut: both ends are reset instead. close: both ends are closed in order instead.

What is held reaches the server even if the client has long gone: a request that the network kept."""

TWO_WORDS = (
    "COMMIT PREPARED", "ROLLBACK PREPARED", "PREPARE TRANSACTION", "START TRANSACTION",
    "XA START", "XA END", "XA PREPARE", "XA COMMIT", "XA ROLLBACK", "XA RECOVER",
)  # fmt: skip
"""Verbs of SQL that are two words."""

Side = Literal["request", "answer"]
"""request: from the client to the server. answer: the other way."""


@dataclass(frozen=True)
class Message:
    """One whole message of a protocol. kind: the name that schedules use. body: all its bytes."""

    kind: str
    body: bytes


class Framer(Protocol):
    """Cuts the bytes of one connection into messages; one is made for each connection."""

    def cut(self, side: Side, received: bytes) -> list[Message]:
        """The messages that are whole now. The rest is kept for the next call."""
        ...


class Stream:
    """A framer that knows no protocol: what comes at once is one message, of the kind "bytes"."""

    def cut(self, side: Side, received: bytes) -> list[Message]:
        """See Framer."""
        return [Message("bytes", received)]


def verb_of(sql: bytes) -> str:
    """The name of a statement: Commit, CommitPrepared, XaPrepare; Other without a verb."""
    words = re.findall(r"[A-Z]+", sql[:80].decode("latin-1").upper())
    verb = words[:2] if " ".join(words[:2]) in TWO_WORDS else words[:1]
    return "".join(word.title() for word in verb) or "Other"


@dataclass(frozen=True)
class Passing:
    """The moment before a message is passed on. count: which one of its kind and side, from 1."""

    side: Side
    kind: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.side} {self.kind}#{self.count}"


@dataclass(frozen=True)
class Fault:
    """One act on one message. str() and `parse` are each other's inverse.

    Args:
        act: see Act.
        at: the message, counted from the schedule's beginning.
        until: hold and strand: what is held goes on when this message is about to pass, counted from the hold; it is
            answered before that message passes. None: only when the proxy is told to.
        seconds: of a delay.
    """

    act: Act
    at: Passing
    until: Passing | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        until = f" until {self.until}" if self.until else ""
        return f"{self.act} {self.at}{until}" + (f" for {self.seconds}s" if self.act == "delay" else "")

    @staticmethod
    def parse(text: str) -> Fault:
        """From text, such as "strand request EndTxn#1 until answer InitProducerId#1". Raises ValueError."""
        match = re.fullmatch(
            r"(\w+) (request|answer) (\w+)#(\d+)(?: until (request|answer) (\w+)#(\d+))?(?: for ([\d.]+)s)?", text
        )
        if match is None:
            raise ValueError(f"{text!r} is no fault; for instance: drop answer EndTxn#2")
        act: Any = match[1]
        side: Any = match[2]
        until_side: Any = match[5]
        until = Passing(until_side, match[6], int(match[7])) if until_side else None
        return Fault(act, Passing(side, match[3], int(match[4])), until, float(match[8] or 0))


def faults_of(text: str) -> tuple[Fault, ...]:
    """Several, with " and " between. Raises ValueError."""
    return tuple(map(Fault.parse, text.split(" and "))) if text else ()


def text_of(faults: Iterable[Fault]) -> str:
    """The inverse of `faults_of`."""
    return " and ".join(map(str, faults))
