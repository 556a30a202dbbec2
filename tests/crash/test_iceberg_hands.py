"""What hands do between processes of an Iceberg sink: a backup of the journal is adopted while the original sleeps, a
staged file is taken away or replaced. Nothing is lost, and each safeguard is missed.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from onefold.testing.harness import OVERTAKEN, ForkServer, Life, Schedule, Subject
from onefold.testing.harness_stage import LIFE_SECONDS, Stage
from tests.crash import iceberg_controls as controls
from tests.crash import iceberg_flows as flows
from tests.crash import iceberg_oracle

pytestmark = pytest.mark.crash

WITHOUT_ITS_SNAPSHOT = replace(flows.STAGED, arrange=(*flows.STAGED.arrange, controls.opening_leaves_no_snapshot))
NOT_DEMANDED = replace(flows.STAGED, arrange=(*flows.STAGED.arrange, controls.staged_files_not_demanded))


# ---------------------------------------------------------------------------------------------------- a backup adopted

BEFORE_A_SEAL = Life("kill", "journal.seal")
ASLEEP = Life("freeze", "iceberg.commit", 2)
ABORTED = Life("kill", "iceberg.abort", 1, "after")


def adopted_beside_a_sleeper(subject: Subject, folder: Path, server: ForkServer) -> Stage:
    """A machine stands still with a commit of staged files in hand, and is taken for dead. A backup of its journal from
    before the epoch is adopted: that process removes the files, dies in turn, and the machine wakes.
    """
    stage = Stage(Schedule((BEFORE_A_SEAL, ASLEEP, ABORTED)), subject, folder, server)
    stage.live(BEFORE_A_SEAL)
    backup = stage.folder / "copy-1"
    shutil.copytree(stage.state, backup)
    sleeper = stage._start(ASLEEP)
    assert server.wait(sleeper, LIFE_SECONDS)["state"] == "stopped"
    stage.state, stage._is_adopted = backup, True
    stage.live(ABORTED)
    server.send(sleeper, signal.SIGCONT)
    stage._await(sleeper, ASLEEP, LIFE_SECONDS, OVERTAKEN)
    assert len(stage.result.met) == 3, stage.result.met
    return stage


def test_a_sleeper_commits_no_file_that_its_successor_has_removed(tmp_path: Path, server: ForkServer) -> None:
    stage = adopted_beside_a_sleeper(flows.STAGED, tmp_path / "flow", server)
    assert stage.result.ends[-1].get("code") == "token-refused"
    stage.finish()
    assert not stage.judge().complaints


def test_without_the_snapshot_of_an_opening_it_does(tmp_path: Path, server: ForkServer) -> None:
    """Nobody has moved the token, so nothing else keeps it from committing."""
    stage = adopted_beside_a_sleeper(WITHOUT_ITS_SNAPSHOT, tmp_path / "flow", server)
    assert stage.result.ends[-1]["end"] == "done"
    with pytest.raises(duckdb.IOException, match="No files found"):
        flows.judge_ledger(stage.folder)


# ------------------------------------------------------------------------------------------------------- staged files

SEALED = Life("kill", "journal.seal", 1, "after")


def taken_away(file: Path) -> None:
    """Told when the sink is opened: what is sealed is not among what is prepared."""
    file.unlink()


def replaced(file: Path) -> None:
    """By one with its first row, which every reader takes."""
    pq.write_table(pq.read_table(file).slice(0, 1), file)


@pytest.mark.parametrize(("change", "code"), [(taken_away, "state-unknown"), (replaced, "file-corrupt")])
def test_a_staged_file_that_is_not_as_it_was_written_is_told_and_the_right_one_goes_on(
    change: Callable[[Path], None], code: str, tmp_path: Path, server: ForkServer
) -> None:
    stage = Stage(Schedule((SEALED,)), flows.STAGED, tmp_path / "flow", server)
    stage.live(SEALED)
    file = staged_file(stage.folder)
    shutil.copy(file, tmp_path / "backup")
    change(file)
    assert stage.live(None, may_fail=frozenset({code})).get("code") == code
    assert not iceberg_oracle.data_files(stage.folder, "ledger")
    shutil.copy(tmp_path / "backup", file)
    stage.finish()
    assert not stage.judge().complaints


def test_without_demanding_its_size_rows_are_lost(tmp_path: Path, server: ForkServer) -> None:
    stage = Stage(Schedule((SEALED,)), NOT_DEMANDED, tmp_path / "flow", server)
    stage.live(SEALED)
    replaced(staged_file(stage.folder))
    stage.finish()
    judgement = stage.judge().judgement
    assert judgement is not None
    assert judgement.lost > 0


@pytest.mark.parametrize(("subject", "code"), [(flows.STAGED, "file-corrupt"), (NOT_DEMANDED, "state-unknown")])
def test_a_staged_file_that_goes_while_its_process_stands_still_is_told_by_either_safeguard(
    subject: Subject, code: str, tmp_path: Path, server: ForkServer
) -> None:
    """Not demanded, its footer cannot be read, so the sink is opened again and lists what is prepared."""
    still = Life("freeze", "journal.seal", 1, "after")
    stage = Stage(Schedule((still,)), subject, tmp_path / "flow", server)
    process = stage._start(still)
    assert server.wait(process, LIFE_SECONDS)["state"] == "stopped"
    file = staged_file(stage.folder)
    shutil.copy(file, tmp_path / "backup")
    taken_away(file)
    server.send(process, signal.SIGCONT)
    assert stage._await(process, still, LIFE_SECONDS, frozenset({code})).get("code") == code
    shutil.copy(tmp_path / "backup", file)
    stage.finish()
    assert not stage.judge().complaints


def staged_file(folder: Path) -> Path:
    """Of the first epoch."""
    return min((folder / "warehouse").glob("**/onefold/**/*.parquet"), key=lambda path: path.name)
