"""A sink's token as the offset of a consumer group that only it uses, committed inside the transaction of the rows.

A group's offset cannot hide behind another producer's open transaction, as a record in a shared partition would. The
offset is the epoch; seal and end positions are in its metadata. Brokers forget offsets of idle groups
(offsets.retention.minutes, 7 days unless changed), so the token is written again in time.
Source: KIP-447, and the broker's configuration reference for offsets.retention.minutes and offset.metadata.max.bytes.
"""

from __future__ import annotations

import base64
import zlib

from onefold.types import EpochNumber, Positions, SealId, Token, canonical_json

__all__ = ["MOST_METADATA_BYTES", "from_metadata", "group_of", "to_metadata"]

MOST_METADATA_BYTES = 4096
"""What brokers take unless offset.metadata.max.bytes says otherwise."""

_PACKED = "z"
_PLAIN = "j"


def group_of(flow: str, lane: str, sink: str) -> str:
    """The consumer group that keeps this sink's token."""
    return f"onefold.token.{flow}.{lane}.{sink}"


def to_metadata(token: Token) -> bytes:
    """The token in at most MOST_METADATA_BYTES. End positions that do not fit even when packed are left out."""
    text = token.to_json()
    if len(text) < MOST_METADATA_BYTES:
        return f"{_PLAIN}{text}".encode()
    packed = base64.b85encode(zlib.compress(text.encode(), 9))
    if len(packed) < MOST_METADATA_BYTES:
        return _PACKED.encode() + packed
    return f"{_PLAIN}{canonical_json({'epoch': token.epoch, 'seal': token.seal, 'ends': {}})}".encode()


def from_metadata(epoch: int, metadata: bytes) -> Token:
    """The inverse. Raises ValueError when it is none of ours."""
    kind, text = metadata[:1].decode(), metadata[1:].decode()
    if kind == _PACKED:
        text = zlib.decompress(base64.b85decode(text)).decode()
    elif kind != _PLAIN:
        raise ValueError("no token of ours")
    found = Token.from_json(text)
    if found.epoch != epoch:
        raise ValueError("the offset is not the token's epoch")
    ends: Positions = found.ends
    return Token(EpochNumber(epoch), SealId(found.seal), ends)
