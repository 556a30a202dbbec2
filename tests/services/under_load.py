"""A flow that runs while its servers are killed again and again, and come back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onefold as of
from onefold.engines.embedded.runner import Run

POLL_SECONDS = 0.05


@contextlib.contextmanager
def running(flow: of.Flow, state: Path) -> Iterator[Run]:
    """From its first settled epoch on: a server that is away before is an error at once, and no outage.

    Raises what ended it before it was stopped.
    """
    waiting = threading.Event()
    with flow.start(state=state) as run:
        while run.is_running and not run.progress().settled:
            waiting.wait(POLL_SECONDS)
        yield run
        if not run.is_running:
            run.wait()


def kill(servers: list[Any], *, up_seconds: float, down_seconds: float) -> None:
    """One after the other, each started again before the next."""
    waiting = threading.Event()
    for server in servers:
        waiting.wait(up_seconds)
        server.kill()
        waiting.wait(down_seconds)
        server.start()
