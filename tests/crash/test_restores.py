"""A journal or a sink that is put back to an earlier backup: detected, or made whole; never a wrong result."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from onefold.testing.harness import ForkServer, Life, Schedule, Stage, Subject
from tests.crash import controls
from tests.crash.subjects import LEDGERS, REVENUE, RUNNING

pytestmark = pytest.mark.crash

HALF_WAY = Life("stop", "journal.seal", 3, "after")


def put(source: Path, target: Path) -> None:
    """The file or folder, in place of what is there."""
    remove(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def played(subject: Subject, folder: Path, server: ForkServer, backup: list[str]) -> Stage:
    """A drained flow, and backups of some of its parts from half way, in folder/backup."""
    stage = Stage(Schedule((HALF_WAY,)), subject, folder / "flow", server)
    stage.live(HALF_WAY)
    (folder / "backup").mkdir()
    for name in backup:
        put(stage.folder / name, folder / "backup" / name)
    stage.finish()
    assert not stage.judge().complaints
    return stage


@pytest.mark.parametrize("subject", [REVENUE, LEDGERS, RUNNING], ids=["revenue", "ledgers", "running"])
def test_an_older_journal_is_refused_before_anything_is_written(
    subject: Subject, tmp_path: Path, server: ForkServer
) -> None:
    stage = played(subject, tmp_path, server, ["state"])
    put(stage.state, tmp_path / "newest")
    put(tmp_path / "backup" / "state", stage.state)
    end = stage.live(None, may_fail=frozenset({"sink-forked"}))
    assert end.get("code") == "sink-forked", end
    assert "onefold recover" in end["error"]["next_step"]
    put(tmp_path / "newest", stage.state)  # its dead letters are judged as well
    assert not stage.judge().complaints
    assert stage.live(None)["end"] == "done", "the newest journal goes on"
    assert not stage.judge().complaints


def test_without_a_comparison_of_seals_an_older_journal_doubles_rows(tmp_path: Path, server: ForkServer) -> None:
    stage = played(replace(REVENUE, arrange=(controls.seals_not_compared,)), tmp_path, server, ["state"])
    put(tmp_path / "backup" / "state", stage.state)
    assert stage.live(None)["end"] == "done"
    judgement = stage.judge().judgement
    assert judgement is not None
    assert judgement.duplicated > 0


SINKS = ["ledger", "lines", "ledger.duckdb", "ledger.sqlite"]


@pytest.mark.parametrize("name", SINKS)
@pytest.mark.parametrize("is_gone", [False, True], ids=["an older backup", "gone"])
def test_a_sink_that_went_back_gets_its_rows_again(
    name: str, tmp_path: Path, server: ForkServer, *, is_gone: bool
) -> None:
    stage = played(LEDGERS, tmp_path, server, SINKS)
    if is_gone:
        remove(stage.folder / name)
    else:
        put(tmp_path / "backup" / name, stage.folder / name)
    assert stage.live(None)["end"] == "done"
    assert not stage.judge().complaints, stage.result.complaints


def test_a_sink_that_went_back_further_than_rows_are_kept_is_refused(tmp_path: Path, server: ForkServer) -> None:
    stage = played(RUNNING, tmp_path, server, ["totals.sqlite"])
    put(stage.folder / "totals.sqlite", tmp_path / "newest")
    put(tmp_path / "backup" / "totals.sqlite", stage.folder / "totals.sqlite")
    end = stage.live(None, may_fail=frozenset({"sink-restored"}))
    assert end.get("code") == "sink-restored", end
    assert end["error"]["where"]["sink"] == "totals"
    put(tmp_path / "newest", stage.folder / "totals.sqlite")
    assert stage.live(None)["end"] == "done"
    assert not stage.judge().complaints
