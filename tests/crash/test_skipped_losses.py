"""`recover --skip-lost` killed at every durable step: accepted or not, and nothing else is lost or doubled."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import onefold as of

pytestmark = pytest.mark.crash

FLOW = """import onefold as of
flow = of.Flow("flow", epoch_rows=1)
rows = flow.read(of.files("in/*.jsonl"), schema={"n": "BIGINT"}, name="in")
rows.append(of.sqlite("out.sqlite").table("out"))
"""
ONE_EPOCH = """import time
from pathlib import Path
from onefold.engines.embedded.inline import InlineRun, ManualClock
from onefold.finding import find_flow

plan = find_flow("flow.py").flow.plan
run = InlineRun(plan, Path(".onefold/flow"), {o.name: o for o in plan.outputs}, clock=ManualClock(time.time()))
run.begin()
run.step()
run.stop()
"""
KILLED = """import os, signal, sys
from onefold import disk
from onefold.cli.group import main

left = int(sys.argv[1])

def observe(step, moment):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

disk.observer = observe
main(sys.argv[2:])
"""


def onefold(folder: Path, *words: str, killed_at: int = 0) -> int:
    command = [sys.executable, "-c", KILLED, str(killed_at), *words]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, check=False).returncode


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(of.__file__).resolve().parents[1])}


def rows(folder: Path) -> list[int]:
    with sqlite3.connect(folder / "out.sqlite") as connection:
        return [row[0] for row in connection.execute("SELECT n FROM out ORDER BY n")]


def half_lost(folder: Path) -> None:
    """The first of two rows of a file is processed, then the file vanishes."""
    (folder / "in").mkdir(parents=True)
    (folder / "flow.py").write_text(FLOW)
    (folder / "in" / "a.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    assert subprocess.run([sys.executable, "-c", ONE_EPOCH], cwd=folder, env=environment(), check=False).returncode == 0
    assert rows(folder) == [1]
    (folder / "in" / "a.jsonl").unlink()
    (folder / "in" / "b.jsonl").write_text('{"n": 20}\n{"n": 21}\n')
    assert onefold(folder, "run", "flow.py", "--once") == 1


def test_killed_at_every_step_it_is_accepted_or_not(tmp_path: Path) -> None:
    killed = 0
    for step in range(1, 200):
        folder = tmp_path / str(step)
        half_lost(folder)
        code = onefold(folder, "recover", "flow.py", "--skip-lost", "--yes", killed_at=step)
        killed += code == -signal.SIGKILL
        if code == -signal.SIGKILL:
            assert onefold(folder, "recover", "flow.py", "--skip-lost", "--yes") == 0
        assert onefold(folder, "run", "flow.py", "--once") == 0
        assert rows(folder) == [1, 20, 21]
        if code == 0:
            break
    assert code == 0
    assert killed > 5
