"""A process that has imported everything and started no thread, and forks a child for each life: milliseconds, not
seconds. Orders come as lines of JSON on its standard input, answers go to its standard output; when the input ends,
it kills its children and ends.

    {"do": "start", "order": {…}}                -> {"pid": 123}
    {"do": "await", "pid": 123, "seconds": 1.5}  -> {"state": "running" | "stopped" | "ended", "signal": 9, "told": […]}
    {"do": "signal", "pid": 123, "signal": 18}   -> {}
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onefold.clock import SystemClock
from onefold.errors import check
from onefold.testing import harness_child

__all__ = ["main"]

CHUNK_BYTES = 1 << 16


@dataclass
class _Child:
    pid: int
    report: int
    rest: bytes = b""
    told: list[Any] = field(default_factory=list)


class Server:
    """Starts, awaits and signals children. Single-threaded for its whole life."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._children: dict[int, _Child] = {}
        self._imported: list[str] = []
        self._wakes, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._wakes, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def start(self, order: dict[str, Any]) -> dict[str, Any]:
        """Fork a child that lives as ordered."""
        for name in (order["build"], *order["arrange"]):
            importlib.import_module(name.partition(":")[0])
        self._import_as_children_did()
        tasks = Path("/proc/self/task")
        if tasks.is_dir():
            names = [(task / "comm").read_text().strip() for task in tasks.iterdir()]
            check(len(names) == 1, "the fork server has one thread; flows are built in functions", found=names)
        reads, writes = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become(order, writes)
        os.close(writes)
        os.set_blocking(reads, False)
        self._children[pid] = _Child(pid, reads)
        return {"pid": pid}

    def _import_as_children_did(self) -> None:
        """So that later children need not: half of a short life would be imports."""
        wanted, self._imported = self._imported, []
        for name in wanted:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)

    def _become(self, order: dict[str, Any], report: int) -> None:
        try:
            harness_child.settle_in(order)
            harness_child.live(order, report)
        except BaseException as error:  # noqa: BLE001 - told, then the process ends
            harness_child.tell(report, {"end": "failed", "code": "harness", "text": repr(error)})
        finally:
            os._exit(0)

    def wait(self, pid: int, seconds: float) -> dict[str, Any]:
        """Until it has ended or stopped, or so many seconds have passed. told: what it said since the last time."""
        child = self._children[pid]
        until = self._clock.monotonic() + seconds
        while True:
            self._listen(child)
            found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if found:
                return self._changed(child, status)
            rest = until - self._clock.monotonic()
            if rest <= 0:
                return {"state": "running", "signal": 0, "told": child.told}
            select.select([self._wakes, child.report], [], [], rest)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakes, CHUNK_BYTES)

    def _changed(self, child: _Child, status: int) -> dict[str, Any]:
        self._listen(child)
        if os.WIFSTOPPED(status):
            return {"state": "stopped", "signal": os.WSTOPSIG(status), "told": child.told}
        os.close(child.report)
        del self._children[child.pid]
        self._imported += [name for told in child.told for name in told.pop("modules", ())]
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        return {"state": "ended", "signal": ended_by, "told": child.told}

    def _listen(self, child: _Child) -> None:
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(child.report, CHUNK_BYTES):
                *lines, child.rest = (child.rest + chunk).split(b"\n")
                child.told += [json.loads(line) for line in lines]

    def send(self, pid: int, number: int) -> dict[str, Any]:
        """Signal a child of ours that has not been awaited to its end."""
        check(pid in self._children, "only children are signalled", found=pid)
        os.kill(pid, number)
        return {}

    def end(self) -> None:
        """Kill all children."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def main() -> None:
    """Serve until the input ends."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what a flow's module prints while it is imported must not mix with answers
    server = Server()
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            match asked["do"]:
                case "start":
                    answer = server.start(asked["order"])
                case "await":
                    answer = server.wait(asked["pid"], asked["seconds"])
                case _:
                    answer = server.send(asked["pid"], asked["signal"])
            harness_child.tell(answers, answer)
    finally:
        server.end()


if __name__ == "__main__":
    main()
