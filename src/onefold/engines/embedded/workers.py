"""Who carries work out: threads with bounded queues in production, the calling thread itself in tests.

A lane does its jobs in order; lanes run side by side. A job never raises: it posts what happened as an event.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol

from onefold.errors import check

__all__ = ["InlineWorkers", "ThreadWorkers", "Workers"]

Job = Callable[[], None]

LANE_DEPTH = 1024
"""Jobs waiting in a lane; the core has at most a few under way, so a full lane is a bug and not a load."""


class Workers(Protocol):
    """Lanes by name."""

    def submit(self, lane: str, job: Job) -> None:
        """Have the job done after those before it in the lane."""
        ...

    def close(self) -> None:
        """Finish what was submitted, then end."""
        ...


class ThreadWorkers:
    """One thread a lane, made on first use."""

    def __init__(self) -> None:
        self._lanes: dict[str, queue.Queue[Job | None]] = {}
        self._threads: list[threading.Thread] = []

    def submit(self, lane: str, job: Job) -> None:
        """See Workers."""
        if lane not in self._lanes:
            jobs: queue.Queue[Job | None] = queue.Queue(LANE_DEPTH)
            thread = threading.Thread(target=_work, args=(jobs,), name=f"onefold-{lane}", daemon=True)
            self._lanes[lane] = jobs
            self._threads.append(thread)
            thread.start()
        jobs = self._lanes[lane]
        check(not jobs.full(), "a lane holds a bounded number of jobs", lane=lane)
        jobs.put(job)

    def close(self) -> None:
        """See Workers."""
        for jobs in self._lanes.values():
            jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._lanes.clear()
        self._threads.clear()


class InlineWorkers:
    """Everything at once, on the calling thread: deterministic."""

    def submit(self, lane: str, job: Job) -> None:
        """See Workers."""
        job()

    def close(self) -> None:
        """See Workers."""


def _work(jobs: queue.Queue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
