"""`recover --skip-lost` killed at every durable step: accepted or not, and nothing else is lost or doubled."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path

import pytest

from tests.crash.forked_commands import Commands

pytestmark = pytest.mark.crash

FLOW = """import onefold as of
flow = of.Flow("flow", epoch_rows=1)
rows = flow.read(of.files("in/*.jsonl"), schema={"n": "BIGINT"}, name="in")
rows.append(of.sqlite("out.sqlite").table("out"))
"""


def rows(folder: Path) -> list[int]:
    with sqlite3.connect(folder / "out.sqlite") as connection:
        return [row[0] for row in connection.execute("SELECT n FROM out ORDER BY n")]


def half_lost(folder: Path, commands: Commands) -> None:
    """The first of two rows of a file is processed, then the file vanishes."""
    (folder / "in").mkdir(parents=True)
    (folder / "flow.py").write_text(FLOW)
    (folder / "in" / "a.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    assert commands.one_epoch(folder) == 0
    assert rows(folder) == [1]
    (folder / "in" / "a.jsonl").unlink()
    (folder / "in" / "b.jsonl").write_text('{"n": 20}\n{"n": 21}\n')
    assert commands.onefold(folder, "run", "flow.py", "--once") == 1


def test_killed_at_every_step_it_is_accepted_or_not(tmp_path: Path) -> None:
    recover = ("recover", "flow.py", "--skip-lost", "--yes")
    killed = 0
    with Commands() as commands:
        for step in range(1, 200):
            folder = tmp_path / str(step)
            half_lost(folder, commands)
            code = commands.onefold(folder, *recover, killed_at=step)
            killed += code == -signal.SIGKILL
            if code == -signal.SIGKILL:
                assert commands.onefold(folder, *recover) == 0
            assert commands.onefold(folder, "run", "flow.py", "--once") == 0
            assert rows(folder) == [1, 20, 21]
            if code == 0:
                break
    assert code == 0
    assert killed > 5
