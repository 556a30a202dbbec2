"""Kafka's requests and answers by name, for a chaos proxy. Source: Kafka's protocol guide, api keys and headers."""

from __future__ import annotations

import struct

from onefold.testing.chaos_faults import Message, Side

__all__ = ["KafkaFramer"]

NAMES = {
    0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch",
    10: "FindCoordinator", 18: "ApiVersions", 22: "InitProducerId", 24: "AddPartitionsToTxn", 25: "AddOffsetsToTxn",
    26: "EndTxn", 28: "TxnOffsetCommit", 75: "DescribeTopicPartitions",
}  # fmt: skip
"""Names by api key. Others are called api and their key."""

_SIZE = struct.Struct(">i")
_REQUEST = struct.Struct(">ihhi")
_ANSWER = struct.Struct(">ii")


class KafkaFramer:
    """An answer has the name of the request whose correlation id it carries."""

    def __init__(self) -> None:
        self._rest: dict[Side, bytes] = {"request": b"", "answer": b""}
        self._asked: dict[int, str] = {}

    def cut(self, side: Side, received: bytes) -> list[Message]:
        """See Framer."""
        rest = self._rest[side] + received
        found = []
        while len(rest) >= _SIZE.size and len(rest) >= (end := _SIZE.size + _SIZE.unpack_from(rest)[0]):
            found.append(Message(self._kind(side, rest), rest[:end]))
            rest = rest[end:]
        self._rest[side] = rest
        return found

    def _kind(self, side: Side, body: bytes) -> str:
        if side == "answer":
            return self._asked.pop(_ANSWER.unpack_from(body)[1], "unasked")
        _, key, _, correlation = _REQUEST.unpack_from(body)
        return self._asked.setdefault(correlation, NAMES.get(key, f"api{key}"))
