"""A disk that is really full, and files that really cannot grow: a clear error, and all is there after more room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onefold.testing.harness import ForkServer, Schedule, Stage
from tests.crash import inputs, limits
from tests.crash.subjects import REVENUE, RUNNING

pytestmark = pytest.mark.crash

DISK = frozenset({"disk-full", "disk-failed"})
SMALL_DISK_BYTES = 4 << 20
EVENTS = 4 * inputs.EVENTS
"""Enough for the state to outgrow every disk below, however often it was settled meanwhile."""


def arrive(folder: Path, life: int) -> bool:
    return inputs.arrive(folder, life, events=EVENTS)


LONG = replace(RUNNING, arrive=arrive)


def mounted(folder: Path) -> bool:
    """Whether a small disk of its own could be mounted there; only root can."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        return False
    command = [mount, "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def stage(tmp_path: Path, server: ForkServer) -> Iterator[Stage]:
    stage = Stage(Schedule(()), LONG, tmp_path / "flow", server)
    stage.state.mkdir()
    is_mounted = mounted(stage.state)
    yield stage
    if is_mounted:
        subprocess.run(["umount", "--lazy", str(stage.state)], check=True)


@pytest.mark.parametrize("free_bytes", [50_000, 150_000, 300_000])
def test_a_full_disk_stops_the_flow_and_room_lets_it_go_on(stage: Stage, free_bytes: int) -> None:
    """Where nothing can be mounted, the same with files that cannot grow."""
    if os.path.ismount(stage.state):
        (stage.state / "filler").write_bytes(b"x" * (SMALL_DISK_BYTES - free_bytes))
    else:
        stage.subject = replace(stage.subject, arrange=(*stage.subject.arrange, limits.files_of_64_kib))
    end = stage.live(None, may_fail=DISK)
    assert end.get("code") in DISK, end
    assert end["error"]["next_step"]
    assert end["error"]["where"]
    (stage.state / "filler").unlink(missing_ok=True)
    stage.subject = LONG
    stage.finish()
    assert not stage.judge().complaints, stage.result.complaints


def test_files_that_cannot_grow_stop_the_flow_and_room_lets_it_go_on(tmp_path: Path, server: ForkServer) -> None:
    stage = Stage(Schedule(()), replace(REVENUE, arrange=(limits.files_of_64_kib,)), tmp_path / "flow", server)
    end = stage.live(None, may_fail=DISK)
    assert end.get("code") in DISK, end
    assert str(stage.folder) in end["error"]["where"]["where"]
    stage.subject = REVENUE
    stage.finish()
    assert not stage.judge().complaints, stage.result.complaints
