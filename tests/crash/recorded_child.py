"""A run that records itself for the model and kills itself: FOLDER STEP COUNT MOMENT.

A process that is killed may have done what it could not record any more. So what it asks for is recorded first, with
the result "asked", by wrapping the two places that change something: the journal's lane and the sinks' lanes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onefold as of
from onefold import disk
from onefold.engines.embedded.deliveries import SinkLanes, _short
from onefold.engines.embedded.runner import Run
from onefold.engines.embedded.sealing import SealingLane
from onefold.protocols import JournalRecord
from onefold.steps import CommitSink
from onefold.types import Receipt

TRACE = "trace.jsonl"


def flow_in(folder: Path) -> of.Flow:
    """Numbers from files into two databases, an epoch for every two."""
    flow = of.Flow("recorded", epoch_rows=2)
    rows = flow.read(of.files(f"{folder}/in/*.jsonl", complete="rename"), schema={"n": "BIGINT"}, name="in")
    for name in "ab":
        rows.append(of.sqlite(f"{folder}/{name}.db").table("numbers"), name=name)
    return flow


class Recorder:
    """Writes a line at once and whole, from any thread; only the power could take it back."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __call__(self, line: Mapping[str, Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


def record_what_is_asked(recorder: Recorder) -> None:
    """From now on."""
    append, commit = SealingLane._append, SinkLanes.commit

    def asked_append(self: SealingLane, record: JournalRecord, **told: Any) -> bool:
        recorder({"do": "append", "kind": record.kind, "number": self.number + 1, **told, "result": "asked"})
        return append(self, record, **told)

    def asked_commit(self: SinkLanes, step: CommitSink, receipts: Sequence[Receipt]) -> None:
        moves = {
            "expected": _short(step.move.expected) if step.move else None,
            "new": _short(step.move.new) if step.move else None,
        }
        about = {"sink": step.sink, "first": step.first, "last": step.last, **moves}
        recorder({"do": "commit", **about, "result": "asked"})
        commit(self, step, receipts)

    SealingLane._append = asked_append  # type: ignore[method-assign]
    SinkLanes.commit = asked_commit  # type: ignore[method-assign]


def die_at(step: str, count: int, moment: str) -> None:
    """At the count-th step of that name; no other thread passes a step meanwhile."""
    lock, seen = threading.Lock(), Counter[str]()

    def observe(name: str, when: disk.Moment) -> None:
        with lock:
            seen[name] += (name, when) == (step, moment)
            if seen[name] == count and name == step:
                os.kill(os.getpid(), signal.SIGKILL)

    disk.observer = observe


def main(folder: Path, step: str, count: int, moment: str) -> None:
    """Until drained, or killed."""
    recorder = Recorder(folder / TRACE)
    record_what_is_asked(recorder)
    die_at(step, count, moment)
    with Run(flow_in(folder).plan, folder / "state", until="drained", trace=recorder) as running:
        running.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
