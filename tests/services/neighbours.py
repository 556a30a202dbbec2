"""A flow beside others who disturb it, and its judge; which server, the tests say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.engines.embedded import conductor

FILES = 40
KEYS = 60
SLOWER = 1.02
SOON_SECONDS = 0.5
"""A sink that fails ten times in a row would wait half a minute for its next try, and be disturbed again."""


def fill(folder: Path) -> None:
    """Every file has every key once, with the file's number."""
    (folder / "in").mkdir()
    for number in range(FILES):
        lines = "".join(json.dumps({"id": key, "seen": number}) + "\n" for key in range(KEYS))
        (folder / "in" / f"{number:03d}.jsonl").write_text(lines)


def flow_of(flows: Any, folder: Path, commit: Any = "separately") -> of.Flow:
    """Appends every row and upserts a sum a key. flows: the module of the server's flows."""
    flow = of.Flow("neighbours", commit=commit, epoch_rows=KEYS, deliver_bytes=1)
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl")), schema={"id": "BIGINT", "seen": "BIGINT"}, name="in")
    rows.append(flows.table(folder, "every"), name="every")
    sums = rows.group_by("id").agg(times="count(*)", total="sum(seen)")
    sums.upsert(flows.table(folder, "sums"), key="id", name="sums")
    return flow


def judge(flows: Any, folder: Path) -> None:
    """Every row once, every sum right."""
    every = flows.rows(folder, "SELECT id, seen FROM every ORDER BY seen, id")
    assert every == [(key, number) for number in range(FILES) for key in range(KEYS)]
    sums = flows.rows(folder, "SELECT id, times, total FROM sums ORDER BY id")
    assert sums == [(key, FILES, sum(range(FILES))) for key in range(KEYS)]


@contextmanager
def beside(work: Callable[[], None], pause: float) -> Iterator[None]:
    """Done again and again while the block runs; more and more rarely, so that a slow machine gets through as well."""
    ended = threading.Event()

    def loop() -> None:
        seconds = pause
        while not ended.wait(seconds):
            work()
            seconds *= SLOWER

    thread = threading.Thread(target=loop, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conductor, "LONGEST_PAUSE_SECONDS", SOON_SECONDS)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
