"""A sink's token as the offset of a consumer group that only it uses, committed inside the transaction of the rows.

A group's offset cannot hide behind another producer's open transaction, as a record in a shared partition would. The
offset is the epoch; seal and end positions are in its metadata. Brokers forget offsets of idle groups
(offsets.retention.minutes, 7 days unless changed), so the token is written again in time.
Source: KIP-447, and the broker's configuration reference for offsets.retention.minutes and offset.metadata.max.bytes.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from onefold.errors import SchemaError
from onefold.types import Binding, EpochNumber, SealId, Token, canonical_json

__all__ = [
    "MOST_METADATA_BYTES", "from_metadata", "group_of", "owners_from_metadata", "owners_group", "owners_to_metadata",
    "refuse_changes", "to_metadata",
]  # fmt: skip

MOST_METADATA_BYTES = 4096
"""What brokers take unless offset.metadata.max.bytes says otherwise."""

_PACKED = b"z"
_PLAIN = b"j"


def group_of(flow: str, lane: str, sink: str) -> str:
    """The consumer group that keeps this sink's token."""
    return f"onefold.token.{flow}.{lane}.{sink}"


def owners_group(topic: str) -> str:
    """The consumer group that keeps who writes to a topic."""
    return f"onefold.owners.{topic}"


def to_metadata(token: Token, columns: Sequence[tuple[str, str]]) -> bytes:
    """Token and columns in at most MOST_METADATA_BYTES. What does not fit even when packed is left out: the columns
    first, then the end positions."""
    whole: dict[str, Any] = {"epoch": token.epoch, "seal": token.seal, "ends": token.ends, "columns": list(columns)}
    return _fitting(whole, {**whole, "columns": []}, {**whole, "columns": [], "ends": {}})


def from_metadata(epoch: int, metadata: bytes) -> tuple[Token, dict[str, str]]:
    """The token, and the type of each column as text. Raises ValueError when it is none of ours."""
    body = _unpacked(metadata)
    if body.get("epoch") != epoch:
        raise ValueError("the offset is not the token's epoch")
    return Token(EpochNumber(epoch), SealId(str(body["seal"])), body["ends"]), dict(body["columns"])


def refuse_changes(binding: Binding, label: str, written: Mapping[str, str]) -> None:
    """Raise SchemaError when the sink wrote a column with another type before. written: types by column."""
    for column in binding.schema:
        if written.get(column.name, str(column.type)) != str(column.type):
            raise SchemaError(
                f"{label} already holds column {column.name} with another type.",
                found=written[column.name],
                expected=str(column.type),
                next_step="Write to another topic, or cast the column in select(…).",
                sink=binding.sink,
                column=column.name,
            )


def owners_to_metadata(owners: Sequence[Sequence[str]]) -> bytes:
    """Flow, lane and sink of each owner; the latest ones, if not all fit."""
    return _fitting(*({"owners": list(owners)[first:]} for first in range(len(owners))))


def owners_from_metadata(metadata: bytes) -> list[Sequence[str]]:
    """The inverse; none when there is none."""
    return list(_unpacked(metadata)["owners"]) if metadata else []


def _fitting(*bodies: dict[str, Any]) -> bytes:
    """The first that fits, as it is or packed."""
    for body in bodies:
        text = canonical_json(body).encode()
        for found in (_PLAIN + text, _PACKED + base64.b85encode(zlib.compress(text, 9))):
            if len(found) <= MOST_METADATA_BYTES:
                return found
    raise ValueError("the token does not fit")


def _unpacked(metadata: bytes) -> dict[str, Any]:
    kind, text = metadata[:1], metadata[1:]
    if kind == _PACKED:
        try:
            text = zlib.decompress(base64.b85decode(text))
        except zlib.error as error:
            raise ValueError("no token of ours") from error
    elif kind != _PLAIN:
        raise ValueError("no token of ours")
    body = json.loads(text)
    if not isinstance(body, dict):
        raise ValueError("no token of ours")
    return body
