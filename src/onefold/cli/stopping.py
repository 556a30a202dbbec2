"""Ctrl-C and SIGTERM: the first stops cleanly, the second at once. Neither loses anything."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopSignals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """A context in which the first signal asks for a stop, and the second ends the process. On the main thread."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._stop: Callable[[], None] | None = None
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._former[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def then(self, stop: Callable[[], None]) -> None:
        """What a first signal does; at once if it has come already."""
        self._stop = stop
        if self.received is not None:
            stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)  # the journal makes this as safe as any other crash
        self.received = signal.Signals(number)
        if self._stop is not None:
            self._stop()
