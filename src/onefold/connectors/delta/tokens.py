"""A sink's token as transaction identifiers of the table (`txn` actions).

An identifier has a name and a 64-bit version, and is written in the commit that adds the rows. A token has a number
and 32 digits, so it takes several of them, all moved in one commit:

    onefold/FLOW/LANE/SINK           the epoch
    onefold/FLOW/LANE/SINK#seal-1…3  the seal's 32 digits, read as one number of base 36
    onefold/FLOW/LANE/SINK#since     the table's version that the commit follows: the commit is found from there on
    onefold/FLOW/LANE/SINK#opened    how often the sink was opened: every commit writes it, so one that was begun before
                                     another instance opened is a conflict

The positions are in the commit's own metadata, which log clean-up removes.
Source: Delta Transaction Log Protocol, Transaction Identifiers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from onefold.errors import check
from onefold.types import Binding, EpochNumber, SealId, Token, TokenMove

__all__ = ["METADATA", "Held", "app_of", "held_by", "moves", "opening", "owners_in"]

PREFIX = "onefold/"
METADATA = "onefold"
"""Under this name a commit's metadata holds the positions."""

_SEALS = ("#seal-1", "#seal-2", "#seal-3")
_SINCE = "#since"
_OPENED = "#opened"

_BASE = 36
_SEAL_DIGITS = 32
_WORD = 1 << 63


@dataclass(frozen=True)
class Held:
    """What a table holds of a sink. token: without its positions. since: see above. opened: 0 for never."""

    token: Token | None
    since: int
    opened: int


def app_of(binding: Binding) -> str:
    """The name of the identifier that holds the epoch."""
    return PREFIX + "/".join(quote(name, safe="") for name in (binding.flow, binding.lane, binding.sink))


def held_by(table: Any, binding: Binding) -> Held:
    """What this snapshot of the table holds. table: a deltalake.DeltaTable."""
    app = app_of(binding)
    opened = table.transaction_version(app + _OPENED) or 0
    epoch = table.transaction_version(app)
    if not epoch:
        return Held(None, 0, opened)
    words = [table.transaction_version(app + name) for name in _SEALS]
    check(None not in words, "a table holds all of a token", sink=binding.sink, found=words)
    return Held(Token(EpochNumber(epoch), _joined(words)), table.transaction_version(app + _SINCE) or 0, opened)


def moves(library: Any, binding: Binding, move: TokenMove, *, since: int, opened: int) -> list[Any]:
    """The identifiers that a commit writes to move the token."""
    app = app_of(binding)
    values = {"": move.new.epoch, **dict(zip(_SEALS, _split(move.new.seal), strict=True)), _SINCE: since}
    return [*(library.Transaction(app + name, value) for name, value in values.items()), opening(library, app, opened)]


def opening(library: Any, app: str, opened: int) -> Any:
    """The identifier that says how often the sink was opened."""
    return library.Transaction(app + _OPENED, opened)


def owners_in(apps: Iterable[str]) -> list[tuple[str, ...]]:
    """(flow, lane, sink) of every token among the names of identifiers."""
    found = []
    for app in apps:
        parts = app.removeprefix(PREFIX).split("/")
        if app.startswith(PREFIX) and "#" not in app and len(parts) == len(("flow", "lane", "sink")):
            found.append(tuple(map(unquote, parts)))
    return found


def metadata_of(move: TokenMove) -> Mapping[str, Any]:
    """What a commit's metadata holds besides. As text: writers of JSON differ in large numbers."""
    return {METADATA: move.new.to_json()}


def _split(seal: SealId) -> list[int]:
    check(len(seal) == _SEAL_DIGITS, "a seal has 32 digits", found=seal)
    number, words = int(seal, _BASE), []
    for _ in _SEALS:
        number, word = divmod(number, _WORD)
        words.append(word)
    return words


def _joined(words: list[int]) -> SealId:
    number = sum(word * _WORD**place for place, word in enumerate(words))
    digits = ""
    while number:
        number, digit = divmod(number, _BASE)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return SealId(digits.rjust(_SEAL_DIGITS, "0"))
