"""One process's life under the crash harness: build the flow, run it until drained, meet the fate that was ordered.

Runs in a child forked by harness_server, or in any process of its own.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onefold import disk
from onefold.clock import SystemClock
from onefold.engines.embedded.recovery import adopt
from onefold.engines.embedded.runner import Run
from onefold.engines.embedded.status import status
from onefold.errors import OnefoldError
from onefold.types import Guarantee

__all__ = ["STACK_FILE", "Fate", "live"]

STACK_FILE = "processes.txt"
"""What the processes of a schedule print, console sinks included, in the schedule's folder."""

ERRNO = {"full": errno.ENOSPC, "fail": errno.EIO}
PR_SET_PDEATHSIG = 1
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass
class Fate:
    """Counts durable steps and, at the one that was named, does what was ordered.

    Args:
        act: kill, freeze (SIGSTOP), stop (a clean stop is asked for), full (ENOSPC) or fail (EIO). "": nothing.
        step: the name of the step; "*" counts all steps.
        count: which one of that name, from 1.
        moment: before or after it.
        report: where lines of JSON go.
    """

    act: str
    step: str
    count: int
    moment: str
    report: int
    running: Run | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)
    is_done: bool = False
    wants_stop: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def __call__(self, step: str, moment: disk.Moment) -> None:
        """The observer of onefold.disk. Holding the lock, so that no other thread passes a step meanwhile."""
        with self._lock:
            self.seen.append((step, moment))
            if moment != self.moment:
                return
            self._counts[step] += 1
            self._counts["*"] += 1
            if self.is_done or self.step not in (step, "*") or self._counts[self.step] != self.count:
                return
            self.is_done = True
            self._meet(step)

    def _meet(self, step: str) -> None:
        tell(self.report, {"met": f"{self.act} {self.moment} {step}"})
        if self.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.act == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.act == "stop":
            self.wants_stop = True
            if self.running is not None:
                self.running.stop()
        elif self.act in ERRNO:
            code = ERRNO[self.act]
            raise OSError(code, os.strerror(code), step)


def live(order: Mapping[str, Any], report: int) -> None:
    """Run one life as ordered and report how it ended, in one line of JSON: {"end": "done" | "failed", …}."""
    clock = SystemClock()
    fate = Fate(order["act"], order["step"], order["count"], order["moment"], report)
    began = clock.monotonic()
    first_seal: list[float] = []
    before = set(sys.modules)

    def note(told: Mapping[str, Any]) -> None:
        if told.get("kind") == "seal" and not first_seal:
            first_seal.append(clock.monotonic())

    end: dict[str, Any]
    try:
        for name in order["arrange"]:
            _named(name)()
        plan = _named(order["build"])(Path(order["folder"])).plan
        disk.observer = fate
        began = clock.monotonic()
        state = Path(order["state"])
        if order["adopts"]:
            adopt(plan, state, clock)
        running = Run(plan, state, until="drained", close=order["close"], trace=note, is_locked=order["is_locked"])
        fate.running = running
        with running:
            if fate.wants_stop:
                running.stop()
            summary = running.wait()
        stopped = {name: error.code for name, error in summary.stopped_sinks.items()}
        end = {"end": "done", "behind": dict(summary.behind), "stopped": stopped, "events": summary.events}
        if any(output.guarantee is Guarantee.AT_MOST_ONCE for output in plan.outputs):
            end["given_up"] = {sink.name: sink.rows_given_up for sink in status(plan, state).sinks}
    except OnefoldError as error:
        end = {"end": "failed", "code": error.code, "text": str(error), "error": error.as_json()}
    except BaseException as error:  # noqa: BLE001 - reported, and judged by the harness
        end = {"end": "failed", "code": type(error).__name__, "text": "".join(traceback.format_exception(error))}
    disk.observer = None
    now = clock.monotonic()
    end["seconds"] = now - began
    end["most_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES
    end["recovery"] = (first_seal[0] if first_seal else now) - began
    end["modules"] = sorted(name for name in set(sys.modules) - before if sys.modules[name] is not None)
    end["steps"] = [f"{moment} {step}" for step, moment in fate.seen] if order["lists_steps"] else []
    tell(report, end)


def tell(report: int, line: Mapping[str, Any]) -> None:
    """Write one line of JSON, whole."""
    body = memoryview(json.dumps(line).encode() + b"\n")
    while body:
        body = body[os.write(report, body) :]


def settle_in(order: Mapping[str, Any]) -> None:
    """After the fork: die with the parent, print into the schedule's folder, take signals as any process does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    printed = os.open(Path(order["folder"]) / STACK_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
