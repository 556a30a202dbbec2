"""Running a flow in a child process and killing it, again and again, at moments that a seed chooses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onefold
from onefold.engines.embedded.status import history_of
from onefold.errors import OnefoldError

__all__ = ["Crash", "CrashingRun", "Finish"]

PROGRESS_SECONDS = 0.02
LOG_FILE = "children.log"


@dataclass(frozen=True)
class Crash:
    """A child that was killed. seconds: how long its flow had run; events: what it had read, sealed or not.

    is_in_progress: it had work in hand; sealed: events sealed since the flow began.
    """

    seconds: float
    events: int
    epoch: int
    sealed: int
    is_in_progress: bool


@dataclass(frozen=True)
class Finish:
    """The child that was left to end. totals: onefold's own books."""

    seconds: float
    events: int
    totals: dict[str, Any]


class CrashingRun:
    """The flow of revenue.py in `folder`. events: lines of the whole input, from which the moments are chosen."""

    def __init__(self, folder: Path, flow: str, events: int, draw: Callable[[], float]) -> None:
        self._folder = folder
        self._flow = flow
        self._events = events
        self._draw = draw

    def crash(self, runs_left: int) -> Crash:
        """Start a child and kill it once it has read a random share of what is left for it and the runs after it."""
        left = self._events - self._sealed()[1]
        target = left * (0.4 + 0.9 * self._draw()) / (runs_left + 1)
        seen: dict[str, Any] = {"seconds": 0.0, "events": 0, "is_caught_up": False, "lag_bytes": 0}
        with self._child("--every", str(PROGRESS_SECONDS)) as child:
            for seen in _progress(child):
                if seen["events"] >= target or seen["is_caught_up"]:
                    break
            try:
                child.wait(timeout=0.05 * self._draw())  # so that it is hit anywhere, not just after a look
            except subprocess.TimeoutExpired:
                child.kill()
            status = child.wait()
        if status != -9:
            raise OnefoldError("The flow ended before it could be killed.", found=f"exit {status}", file=self._log)
        epoch, sealed = self._sealed()
        is_in_progress = not seen["is_caught_up"] or seen["lag_bytes"] > 0
        return Crash(seen["seconds"], seen["events"], epoch, sealed, is_in_progress)

    def finish(self) -> Finish:
        """Run until drained."""
        with self._child("--once") as child:
            last = [{}, *_progress(child)][-1]
            status = child.wait()
        if status != 0 or last.get("event") != "summary":
            raise OnefoldError("The flow did not end well.", found=f"exit {status}", file=self._log)
        return Finish(last["seconds"], last["events"], last["totals"])

    @property
    def _log(self) -> Path:
        return self._folder / LOG_FILE

    def _sealed(self) -> tuple[int, int]:
        """The newest sealed epoch, and how many events were sealed since the flow began."""
        state = self._folder / "state" / self._flow
        if not state.exists():
            return 0, 0
        newest = history_of(self._flow, state)[0].newest
        if newest is None:
            return 0, 0
        return newest.epoch, sum(
            one.get("read", 0) for one in newest.totals["operators"].values() if one["kind"] == "read"
        )

    @contextmanager
    def _child(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "onefold", "run", f"{self._flow}.py", "--state", "state", "--json", *options]
        package = str(Path(onefold.__file__).resolve().parents[1])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        with self._log.open("a", encoding="utf-8") as log:
            child = subprocess.Popen(  # noqa: S603 - our own command
                command, cwd=self._folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
            try:
                yield child
            finally:
                child.kill()
                child.wait()
                if child.stdout is not None:
                    child.stdout.close()


def _progress(child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    for line in child.stdout or ():
        yield json.loads(line)
