"""Tokens as properties of a table: whose they are, and who opened the table last.

`onefold.token.OWNER` is the token as JSON. `onefold.opened.OWNER` names the snapshot that the last opening made; who
made it by an earlier opening commits no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from onefold.connectors.spooling import file_name
from onefold.errors import FileCorrupt
from onefold.types import Binding, Token

__all__ = ["opened_by", "opening", "others", "owner_of", "token_in", "token_properties"]

TOKEN = "onefold.token."  # noqa: S105 - the name of a property
OPENED = "onefold.opened."


def owner_of(binding: Binding) -> str:
    """Flow, lane and sink as a part of a property's name."""
    return ".".join(file_name(name) for name in (binding.flow, binding.lane, binding.sink))


def token_in(table: Any, binding: Binding) -> Token | None:
    """The sink's token. Raises FileCorrupt for a property that is none."""
    text = table.metadata.properties.get(f"{TOKEN}{owner_of(binding)}")
    if text is None:
        return None
    try:
        return Token.from_json(text)
    except (ValueError, KeyError, TypeError) as error:
        raise FileCorrupt(
            "A table's property is not the token that was written there.",
            found=text,
            file=f"{TOKEN}{owner_of(binding)} of {'.'.join(table.name())}",
            next_step="Somebody changed it. Set it back to what an earlier metadata file of the table says.",
            sink=binding.sink,
        ) from error


def token_properties(binding: Binding, token: Token) -> dict[str, str]:
    """What a commit that moves the token sets."""
    return {f"{TOKEN}{owner_of(binding)}": token.to_json()}


def opening(binding: Binding, snapshot: int) -> dict[str, str]:
    """What a commit that opens the table sets. snapshot: the one that it makes."""
    body = {"incarnation": binding.incarnation, "journal": binding.journal, "snapshot": snapshot}
    return {f"{OPENED}{owner_of(binding)}": json.dumps(body)}


def opened_by(table: Any, binding: Binding) -> int | None:
    """The snapshot that the last opening made."""
    text = table.metadata.properties.get(f"{OPENED}{owner_of(binding)}")
    try:
        return None if text is None else int(json.loads(text)["snapshot"])
    except (ValueError, KeyError, TypeError):
        return None


def others(table: Any, binding: Binding) -> Iterator[tuple[str, str, str]]:
    """(flow, lane, sink) of every other token of this table."""
    mine = owner_of(binding)
    for name in table.metadata.properties:
        owner = name.removeprefix(TOKEN)
        if name.startswith(TOKEN) and owner != mine:
            flow, lane, sink = (unquote(part) for part in [*owner.split("."), "", ""][:3])
            yield flow, lane, sink
