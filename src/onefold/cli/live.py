"""How a run shows where it is: a live line on a terminal, a line now and then elsewhere, JSON for programs."""

from __future__ import annotations

import resource
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from onefold.cli.command import print_json
from onefold.engines.embedded.runner import Progress

__all__ = ["ProgressLine", "counted", "resident_bytes", "size_text"]

RATE_OVER_SECONDS = 3.0
LOOK_SECONDS = 0.1
"""How often a live line is drawn anew."""


@dataclass(frozen=True)
class Moment:
    """What is shown of one moment."""

    seconds: float
    events: int
    rate: float
    epoch: int
    lag_bytes: int
    is_caught_up: bool
    memory_bytes: int
    waiting_sinks: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "event": "progress",
            "seconds": round(self.seconds, 3),
            "events": self.events,
            "events_per_second": round(self.rate),
            "epoch": self.epoch,
            "lag_bytes": self.lag_bytes,
            "is_caught_up": self.is_caught_up,
            "memory_bytes": self.memory_bytes,
            "waiting_sinks": self.waiting_sinks,
        }

    def as_text(self) -> Text:
        """For people."""
        lag = size_text(self.lag_bytes) if self.lag_bytes else "none"
        parts = [
            f"{self.events:,} events",
            f"{self.rate:,.0f}/s",
            f"epoch {self.epoch}",
            f"lag {lag}" + (", caught up" if self.is_caught_up else ""),
            f"memory {size_text(self.memory_bytes)}",
        ]
        line = Text(" · ").join(Text(part) for part in parts)
        for sink, reason in self.waiting_sinks.items():
            line.append(f" · {sink} waits: {reason}", "yellow")
        return line


class ProgressLine:
    """Told of every progress; shows it as often as fits where it is shown."""

    def __init__(self, console: Console, flow: str, *, every_seconds: float, as_json: bool) -> None:
        self._console = console
        self._flow = flow
        self._every = every_seconds
        self._as_json = as_json
        self._shown_at = 0.0
        self._recent: deque[tuple[float, int]] = deque([(0.0, 0)])
        is_live = console.is_terminal and not as_json
        self._live = Live(console=console, transient=True, auto_refresh=False) if is_live else None

    @property
    def look_seconds(self) -> float:
        """How often `show` should be called."""
        return min(LOOK_SECONDS, self._every)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, sentence: str) -> None:
        """Print a line above the live one; nothing for programs."""
        if not self._as_json:
            self._console.print(Text.assemble((f"{self._flow} ", "bold"), sentence))

    def show(self, progress: Progress) -> None:
        """Draw, print, or keep quiet."""
        is_due = progress.seconds - self._shown_at >= self._every
        if self._live is None and not is_due:
            return
        moment = self._moment(progress)
        if self._live is not None:
            self._live.update(Text.assemble((f"{self._flow} ", "bold"), moment.as_text()), refresh=True)
        elif self._as_json:
            print_json({"flow": self._flow, **moment.as_json()})
        else:
            self._console.print(Text.assemble(f"{self._flow} ", moment.as_text()))
        self._shown_at = progress.seconds

    def _moment(self, progress: Progress) -> Moment:
        self._recent.append((progress.seconds, progress.events))
        while len(self._recent) > 2 and progress.seconds - self._recent[1][0] > RATE_OVER_SECONDS:
            self._recent.popleft()
        (began, before), (now, events) = self._recent[0], self._recent[-1]
        rate = (events - before) / (now - began) if now > began else 0.0
        return Moment(
            progress.seconds,
            progress.events,
            rate,
            progress.epoch,
            progress.undelivered_bytes,
            progress.is_caught_up,
            resident_bytes(),
            dict(progress.waiting_sinks),
        )


def size_text(size_bytes: float) -> str:
    """12.3 MiB.

    >>> size_text(12_900_000)
    '12.3 MiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024 or unit == "GiB":
            break
        size_bytes /= 1024
    return f"{size_bytes:,.0f} {unit}" if unit == "B" else f"{size_bytes:,.1f} {unit}"


def counted(count: int, what: str) -> str:
    """1 epoch, 2 epochs.

    >>> counted(1_200, "event")
    '1,200 events'
    """
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def resident_bytes() -> int:
    """The memory of this process now; its peak where the system does not tell."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text("ascii").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
