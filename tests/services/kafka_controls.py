"""Negative controls: each takes one safeguard of the Kafka sink out of a child. The chaos schedules must see it."""

from __future__ import annotations

from onefold.connectors.kafka.producing import Producing
from onefold.connectors.kafka.sink import KafkaSink
from onefold.types import Token


def producer_reused() -> None:
    """A producer goes on although its requests may still be on their way."""
    Producing.is_spent = lambda self: False  # type: ignore[method-assign]


def token_not_read_back() -> None:
    """After an unknown outcome the sink believes what it knew before."""
    read = KafkaSink._read_token

    def remember(self: KafkaSink) -> Token | None:
        return self._token if hasattr(self, "was_open") else read(self)

    def read_once(self: KafkaSink) -> Token | None:
        found = remember(self)
        self.was_open = True  # type: ignore[attr-defined]
        return found

    KafkaSink._read_token = read_once  # type: ignore[method-assign]
