"""The fork server's other end."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from onefold.errors import check

__all__ = ["ForkServer"]


class ForkServer:
    """A process that forks children in milliseconds; a context manager. Nothing it started outlives it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        quiet |= dict.fromkeys(("JE_ARROW_MALLOC_CONF", "_RJEM_MALLOC_CONF"), "background_thread:false")
        if sys.platform == "darwin":  # a forked child may neither start Objective-C classes nor wait for Accelerate
            quiet |= {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES", "VECLIB_MAXIMUM_THREADS": "1"}
        environment = {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
        command = [sys.executable, "-m", "onefold.testing.harness_server"]
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, no shell
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None or process.stdout is None:
            return
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def start(self, order: Mapping[str, Any]) -> int:
        """Fork a child. Returns its process id."""
        return int(self._ask({"do": "start", "order": order}, 60.0)["pid"])

    def wait(self, pid: int, seconds: float) -> Mapping[str, Any]:
        """Await its end or its being stopped, at most so long."""
        return self._ask({"do": "await", "pid": pid, "seconds": seconds}, seconds + 30.0)

    def send(self, pid: int, number: int) -> None:
        """Send it a signal."""
        self._ask({"do": "signal", "pid": pid, "signal": number}, 30.0)

    def _ask(self, asked: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        process = self._process
        check(process is not None, "the fork server is used inside its with block")
        channel: Any = process
        channel.stdin.write(json.dumps(asked).encode() + b"\n")
        answer: Mapping[str, Any] = json.loads(b"".join(_line(channel.stdout, seconds)))
        return answer


def _line(stream: Any, seconds: float) -> Iterator[bytes]:
    """The pieces of one line."""
    while True:
        ready, _, _ = select.select([stream], [], [], seconds)
        check(bool(ready), "the fork server answers", found=f"nothing for {seconds} seconds")
        piece = os.read(stream.fileno(), 1 << 16)
        check(bool(piece), "the fork server runs")
        yield piece
        if piece.endswith(b"\n"):
            return
