"""What killed processes recorded is a path of the model: the real engine, real databases, real kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import onefold
from spec.replay import check
from tests.crash.recorded_child import TRACE

pytestmark = pytest.mark.crash

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = 24
SECONDS = 120
NEVER = 1_000_000
BEGIN = {"do": "begin", "sinks": {"a": "exactly-once", "b": "exactly-once"}, "together": False}

DEATHS = (
    ("journal.seal", 3, "before"),
    ("journal.seal", 4, "after"),
    ("sqlite.commit", 3, "before"),
    ("sqlite.commit", 4, "after"),
    ("journal.settle", 1, "before"),
    ("journal.settle", 1, "after"),
)


def live(folder: Path, step: str, count: int, moment: str) -> int:
    """A process; how it ended."""
    paths = os.pathsep.join([str(Path(onefold.__file__).resolve().parents[1]), str(ROOT)])
    command = [sys.executable, "-m", "tests.crash.recorded_child", str(folder), step, str(count), moment]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, timeout=SECONDS, check=False).returncode


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / TRACE).read_text().splitlines()]


def numbers(file: Path) -> list[int]:
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]


@pytest.mark.parametrize(("step", "count", "moment"), DEATHS)
def test_what_killed_processes_did_is_a_path_of_the_model(tmp_path: Path, step: str, count: int, moment: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(f'{{"n": {number}}}\n' for number in range(NUMBERS)))
    trace: list[dict[str, Any]] = []
    for death in (count, count, NEVER):
        ended = live(tmp_path, step, death, moment)
        assert ended in ((-signal.SIGKILL, 0) if trace else (-signal.SIGKILL,))
        trace = [*trace, *lines_of(tmp_path), {"do": "kill"}]
        (tmp_path / TRACE).unlink()
    assert ended == 0
    assert numbers(tmp_path / "a.db") == numbers(tmp_path / "b.db") == list(range(NUMBERS))
    assert check([BEGIN, *trace]) is None
    assert check([BEGIN, *without_last_ok_seal(trace)]) is not None


def without_last_ok_seal(trace: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Forged: what the last seal decided was delivered although it was never sealed."""
    last = max(at for at, line in enumerate(trace) if line.get("kind") == "seal" and line.get("result") != "asked")
    asked = max(at for at, line in enumerate(trace[:last]) if line.get("kind") == "seal")
    return [line for at, line in enumerate(trace) if at not in (last, asked)]
