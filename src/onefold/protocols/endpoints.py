"""What users name: `kafka.topic(t)`, `of.files(…)`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from onefold.protocols.formats import Format
from onefold.protocols.sinks import Sink
from onefold.protocols.sources import Source
from onefold.types import (
    JsonValue,
    Mode,
)

__all__ = ["Endpoint", "describe"]


@runtime_checkable
class Endpoint(Protocol):
    """What connections make (`kafka.topic(t)`, `of.files(…)`): knows how to become a source or a sink, or refuses."""

    @property
    def label(self) -> str:
        """How it is shown to people, for instance files(payments/*.jsonl). ${NAME} stays unexpanded; no secrets."""
        ...

    @property
    def default_name(self) -> str:
        """A name for the read or the sink when the user gave none, for instance `payments`."""
        ...

    def as_source(self, format: Format | None) -> Source:  # noqa: A002
        """Raises NotSupported when it cannot be read."""
        ...

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> Sink:
        """Raises NotSupported when it cannot be written, or not in this mode."""
        ...


def describe(part: object) -> JsonValue:
    """A part's own name, for error texts and `explain`."""
    return getattr(part, "label", None) or type(part).__name__
