"""Bytes flipped, cut, emptied or gone in every kind of file of ours: an error that names the file, or a right result.

Not damaged: what a sink's own system keeps (a database, the committed files of a data set), and the lock.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onefold.testing.harness import ForkServer, Life, Schedule, Stage, Subject
from tests.crash import controls
from tests.crash.subjects import RUNNING, SPOOLED

pytestmark = pytest.mark.crash

BASES: dict[str, tuple[Subject, Life]] = {
    "running, killed": (RUNNING, Life("kill", "journal.settle", 4, "before")),
    "running, at rest": (RUNNING, Life("stop", "journal.seal", 1000, "after")),
    "spooled, killed": (SPOOLED, Life("kill", "files.commit", 4, "before")),
    "spooled, sealed only": (SPOOLED, Life("kill", "journal.seal", 3, "after")),
}

REFUSALS = frozenset({"file-corrupt", "sink-forked", "sink-restored", "state-unknown", "disk-failed"})
"""Damage may look like an older backup: then it is refused as one."""


def damaged(path: Path, luck: random.Random) -> str:
    """Damage a file; what was done."""
    body = bytearray(path.read_bytes())
    how = luck.choice(["flip", "flip", "flip", "cut", "empty", "gone"]) if body else "gone"
    place = luck.randrange(len(body)) if body else 0
    if how == "flip":
        body[place] ^= 1 << luck.randrange(8)
        path.write_bytes(body)
    elif how == "gone":
        path.unlink()
    else:
        path.write_bytes(body[: place if how == "cut" else 0])
    return f"{how} at {place}"


def kinds(folder: Path) -> dict[str, list[Path]]:
    """The files of ours by kind: a kind with many files is not damaged more often than another."""
    found: dict[str, list[Path]] = {}
    for path in ours(folder):
        kind = path.name if path.parent.name == "state" else path.parent.name
        found.setdefault(kind, []).append(path.relative_to(folder))
    return found


def ours(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        is_state = "state" in path.parts and path.name != "lock" and not path.name.startswith("dead-letters")
        if path.is_file() and (is_state or "_onefold" in path.parts):
            yield path


@pytest.mark.parametrize("name", BASES)
def test_damage_is_named_or_harmless(
    name: str, tmp_path: Path, server: ForkServer, schedules: Callable[[int], int], seed: int
) -> None:
    subject, life = BASES[name]
    stage = Stage(Schedule((life,)), subject, tmp_path / "flow", server)
    stage.live(life)
    shutil.copytree(stage.folder, tmp_path / "pristine")
    luck = random.Random(f"{name} {seed}")
    files = kinds(stage.folder)
    refused = 0
    for number in range(schedules(14)):
        shutil.rmtree(stage.folder)
        shutil.copytree(tmp_path / "pristine", stage.folder)
        file = luck.choice(files[sorted(files)[number % len(files)]])
        what = f"{name}, seed {seed}, number {number}: {file} {damaged(stage.folder / file, luck)}"
        end = stage.live(None, may_fail=REFUSALS, seconds=20.0)
        if end["end"] == "failed":
            refused += 1
            assert end["code"] in REFUSALS, f"{what}: {end['text']}"
            assert end["error"]["next_step"], what
            if end["code"] == "file-corrupt":
                assert str(stage.folder) in end["error"]["where"]["file"], what
        else:
            stage.finish()
            stage.judge()
        assert not stage.result.complaints, f"{what}: {stage.result.complaints}"
    assert refused, "some damage matters"


def test_without_checksums_damage_shows(tmp_path: Path, server: ForkServer) -> None:
    """A wrong row, or an error that names no file."""
    subject, life = BASES["spooled, sealed only"]
    stage = Stage(
        Schedule((life,)),
        replace(subject, arrange=(*subject.arrange, controls.checksums_not_compared)),
        tmp_path / "flow",
        server,
    )
    stage.live(life)
    shutil.copytree(stage.folder, tmp_path / "pristine")
    for number in range(1, 9):
        shutil.rmtree(stage.folder)
        shutil.copytree(tmp_path / "pristine", stage.folder)
        for path in (stage.state / "spool").iterdir():
            body = bytearray(path.read_bytes())
            body[len(body) * number // 9] ^= 1
            path.write_bytes(body)
        stage.finish()
        if stage.judge().complaints:
            return
    raise AssertionError("nothing depends on the checksums")
