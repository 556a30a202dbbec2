"""A flow into a database server that is killed again and again under load, and comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onefold as of
from onefold.engines.embedded.runner import Run
from tests.services.under_load import kill, running

PAUSE_SECONDS = 0.7
BATCH = 200
AHEAD = 20 * BATCH
"""So many rows wait for the flow, or more: it is never idle, and soon done when the kills are over."""


def kill_under_load(server: Any, database: Any, folder: Path, kills: int, *, commit: Any = "separately") -> list[int]:
    """The numbers that were sent, in order. They are to be in `rows`; in `counts` how many leave 0, 1, 2 by 3."""
    (folder / "in").mkdir()
    stopping = threading.Event()
    sent: list[int] = []
    flow = of.Flow("under-load", commit=commit, epoch_rows=500, settle_every="100 milliseconds", fence_every="1 second")
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl"), complete="rename"), schema={"id": "BIGINT"}, name="in")
    rows.append(database.table("rows", create=True), name="rows")
    counted = rows.select(third="id % 3").group_by("third").agg(n="count(*)")
    counted.upsert(database.table("counts", create=True), key="third", name="counts")
    while len(sent) < AHEAD:
        _put(folder / "in", sent)
    try:
        with running(flow, folder / "state") as run:
            feeding = threading.Thread(target=_feed, args=(folder / "in", stopping, sent, run), daemon=True)
            feeding.start()
            kill([server] * kills, up_seconds=PAUSE_SECONDS, down_seconds=PAUSE_SECONDS / 2)
            stopping.set()
            feeding.join()
    finally:
        stopping.set()
    flow.run(until="drained", state=folder / "state")
    assert len(sent) > kills * BATCH, "there was load"
    return sent


def judge(sent: list[int], ask: Callable[[str], Any]) -> None:
    """Every number once, and counted once. ask: gives the rows of a query."""
    assert [row[0] for row in ask("SELECT id FROM `rows` ORDER BY id")] == sorted(sent)
    counts = {row[0]: row[1] for row in ask("SELECT third, n FROM counts")}
    assert counts == {third: sum(number % 3 == third for number in sent) for third in range(3)}


def _feed(folder: Path, stopping: threading.Event, sent: list[int], run: Run) -> None:
    while not stopping.wait(0.02):
        if len(sent) - run.progress().events < AHEAD:
            _put(folder, sent)


def _put(folder: Path, sent: list[int]) -> None:
    numbers = range(len(sent), len(sent) + BATCH)
    part = folder / f"{len(sent):09d}.part"
    part.write_text("".join(json.dumps({"id": each}) + "\n" for each in numbers))
    part.rename(part.with_suffix(".jsonl"))
    sent += numbers
