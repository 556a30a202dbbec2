"""Delta tables among other writers and under failures: what one process can show."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from onefold import disk
from onefold.connectors.delta import sink
from onefold.connectors.delta.log import LocalLog
from onefold.connectors.staging import StagingArea
from onefold.errors import (
    DiskFailed,
    FileCorrupt,
    OnefoldError,
    OutcomeUnknown,
    SinkUnavailable,
    TokenRefused,
)
from onefold.testing.contract_case import SinkBench, move, numbered, token
from tests.unit.delta_bench import CASE, Between, bench, foreign, place, staging, upserts

__all__ = ["bench", "staging", "upserts"]

# ------------------------------------------------------------------------------------------------------ other writers


def test_rows_of_others_that_come_between_check_and_commit_stay(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    with Between("delta.commit", lambda: foreign(bench, 7)):
        ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    assert (bench.ids(), bench.look()[1]) == ([1, 7], token(1))


def test_a_merge_that_loses_to_rows_of_others_is_made_again(upserts: SinkBench) -> None:
    ours, _ = upserts.instance()
    ours.commit([upserts.prepare(ours, 1, numbered(1))], move(0, 1))
    with Between("delta.commit", lambda: foreign(upserts, 7)):
        ours.commit([upserts.prepare(ours, 2, [{"id": 1, "name": "new"}])], move(1, 2))
    assert sorted((row["id"], row["name"]) for row in upserts.look()[0]) == [(1, "new"), (7, "n7")]
    assert upserts.look()[1] == token(2)


def test_a_merge_that_always_loses_says_so_and_writes_nothing(upserts: SinkBench) -> None:
    ours, _ = upserts.instance()
    ours.commit([upserts.prepare(ours, 1, numbered(1))], move(0, 1))
    ids = iter(range(100, 200))
    disk.observer = lambda step, moment: (
        foreign(upserts, next(ids))
        if (step, moment)
        == (
            "delta.commit",
            "before",
        )
        else None
    )
    try:
        with pytest.raises(SinkUnavailable):
            ours.commit([upserts.prepare(ours, 2, [{"id": 1, "name": "new"}])], move(1, 2))
    finally:
        disk.observer = None
    assert upserts.look()[1] == token(1)


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_compaction_by_others_between_check_and_commit_loses_nothing(mode: Any, tmp_path: Path) -> None:
    bench = SinkBench(CASE, tmp_path, mode, ("id",) if mode == "upsert" else ())
    ours, _ = bench.instance()
    for epoch in (1, 2, 3):
        ours.commit([bench.prepare(ours, epoch, numbered(epoch))], move(epoch - 1, epoch))
    with Between("delta.commit", lambda: deltalake.DeltaTable(place(bench)).optimize.compact()):
        ours.commit([bench.prepare(ours, 4, numbered(4))], move(3, 4))
    assert (bench.ids(), bench.look()[1]) == ([1, 2, 3, 4], token(4))


def test_a_changed_table_is_looked_at_again(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    field = deltalake.Field("more", deltalake.schema.PrimitiveType("long"))
    with (
        Between("delta.commit", lambda: deltalake.DeltaTable(place(bench)).alter.add_columns(field)),
        pytest.raises(SinkUnavailable),
    ):
        ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    assert ours.open(bench.binding()) is None
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    assert bench.ids() == [1]


def test_restore_takes_rows_back_and_leaves_the_token(bench: SinkBench) -> None:
    """So the books show it, and nothing else does: the condition says so."""
    ours, _ = bench.instance()
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    version = deltalake.DeltaTable(place(bench)).version()
    ours.commit([bench.prepare(ours, 2, numbered(2))], move(1, 2))
    deltalake.DeltaTable(place(bench)).restore(version)
    again, found = bench.instance(2)
    assert (bench.ids(), found) == ([1], token(2))
    assert any("RESTORE" in condition for condition in again.promise.conditions)


def test_a_token_outlives_checkpoints_and_a_log_that_was_cleaned(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    for epoch in range(1, 30):
        ours.commit([bench.prepare(ours, epoch, numbered(epoch))], move(epoch - 1, epoch))
    log = Path(place(bench)) / "_delta_log"
    checkpoints = sorted(log.glob("*.checkpoint.parquet"))
    assert checkpoints, "a checkpoint every so many versions"
    foreign(bench, 99)
    deltalake.DeltaTable(place(bench)).create_checkpoint()
    last = deltalake.DeltaTable(place(bench)).version()
    for version in range(last):
        (log / f"{version:020d}.json").unlink()
    _, found = bench.instance(2)
    assert found == token(29)
    assert found is not None
    assert found.ends == {}, "the positions went with the log"
    with pytest.raises(OnefoldError, match="Another flow"):
        bench.under(flow="other").instance()


# ------------------------------------------------------------------------------------------------------------ fencing


def test_a_commit_that_was_begun_before_an_opening_does_not_land(bench: SinkBench) -> None:
    """Although nobody has moved the token meanwhile."""
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    with Between("delta.commit", lambda: bench.instance(2)), pytest.raises(TokenRefused):
        ours.commit([receipt], move(0, 1))
    assert bench.ids() == []


def test_without_counting_openings_it_would_land(bench: SinkBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: this safeguard alone keeps it out."""
    from tests.crash import delta_controls

    for module, name in ((sink, "fence"), (delta_controls.committing, "moves")):
        monkeypatch.setattr(module, name, getattr(module, name))
    delta_controls.opening_not_counted()
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    with Between("delta.commit", lambda: bench.instance(2)):
        ours.commit([receipt], move(0, 1))
    assert bench.ids() == [1]


def test_a_commit_that_landed_although_it_was_refused_is_unknown(
    bench: SinkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that repeats a request whose answer was lost conflicts with itself."""
    ours, _ = bench.instance()
    append = sink.append

    def twice(*given: Any, **more: Any) -> None:
        append(*given, **more)
        append(*given, **more)

    monkeypatch.setattr(sink, "append", twice)
    with pytest.raises(OutcomeUnknown):
        ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    assert (bench.ids(), ours.open(bench.binding())) == ([1], token(1))


def test_openings_that_meet_take_turns(bench: SinkBench) -> None:
    bench.instance()
    with Between("delta.fence", lambda: bench.instance(2)):
        third, found = bench.instance(3)
    third.commit([bench.prepare(third, 1, numbered(1))], move(0, 1))
    assert (bench.ids(), found) == ([1], None)


# ------------------------------------------------------------------------------------------------------ staged files


@pytest.mark.usefixtures("staging")
def test_a_staged_file_that_is_gone_is_told_before_the_table_names_it(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    first, second = bench.prepare(ours, 1, numbered(1)), bench.prepare(ours, 2, numbered(2))
    (Path(place(bench)) / second.detail["files"][0][0]).unlink()
    with pytest.raises(FileCorrupt):
        ours.commit([first, second], move(0, 2))
    assert bench.look() == ([], None)


@pytest.mark.usefixtures("staging")
def test_without_demanding_staged_files_the_table_becomes_unreadable(
    bench: SinkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the library names a file that is not there."""
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    (Path(place(bench)) / receipt.detail["files"][0][0]).unlink()
    monkeypatch.setattr(type(ours._opened().area), "demand", lambda *_: None)
    ours.commit([receipt], move(0, 1))
    with pytest.raises(OnefoldError):
        bench.look()


@pytest.mark.usefixtures("staging")
def test_a_vacuum_by_others_spares_what_is_staged_unless_it_is_told_to_take_it(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    table = deltalake.DeltaTable(place(bench))
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    table.vacuum(dry_run=False, full=True)
    ours.commit([receipt], move(0, 1))
    assert bench.ids() == [1]


@pytest.mark.usefixtures("staging")
@pytest.mark.parametrize("act", ["stage", "stage-sync"])
def test_a_disk_that_is_full_while_staging_leaves_nothing_visible(act: str, bench: SinkBench) -> None:
    ours, _ = bench.instance()

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Between(f"delta.{act}", full), pytest.raises(OnefoldError) as caught:
        bench.prepare(ours, 1, numbered(1))
    assert caught.value.code == "disk-full"
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    assert bench.ids() == [1]


def test_a_disk_that_is_full_before_a_commit_is_waited_for(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Between("delta.stage", full), pytest.raises(SinkUnavailable):
        ours.commit([receipt], move(0, 1))
    ours.open(bench.binding())
    ours.commit([receipt], move(0, 1))
    assert bench.ids() == [1]


def test_a_large_epoch_becomes_several_files(bench: SinkBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", 100)
    monkeypatch.setattr(sink, "FILE_BYTES", 1000)
    ours, _ = bench.instance()
    from onefold.types import EpochHead, EpochNumber

    batches = [pa.RecordBatch.from_pylist(numbered(*range(n, n + 50)), bench.schema) for n in range(0, 500, 50)]
    receipt = ours.prepare(EpochHead(EpochNumber(1), token(1).seal), iter(batches))
    assert (receipt.kind, receipt.rows, len(receipt.detail["files"]) > 3) == ("native", 500, True)
    ours.commit([receipt], move(0, 1))
    assert bench.ids() == list(range(500))


@pytest.mark.usefixtures("staging")
def test_large_epochs_are_spooled_while_the_store_takes_no_files(
    bench: SinkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = bench.instance()

    def down(*_: Any, **__: Any) -> None:
        raise SinkUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(StagingArea, "stage", down)
        receipt = bench.prepare(ours, 1, numbered(*range(9)))
    assert (receipt.kind, receipt.rows) == ("spool", 9)
    ours.commit([receipt], move(0, 1))
    assert bench.ids() == list(range(9))


def test_rows_that_a_weaker_run_committed_are_no_leftovers(bench: SinkBench) -> None:
    from onefold.types import Guarantee

    weaker = bench.under(guarantee=Guarantee.AT_LEAST_ONCE)
    before, _ = weaker.instance()
    before.commit([weaker.prepare(before, 3, numbered(3))], None)
    ours, found = bench.instance(2)
    assert (found, ours.handles()) == (None, [])  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------------ durable


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is forced to the disk, in order."""
    found: list[str] = []
    sync = disk.sync_file

    def told(descriptor: int) -> None:
        found.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(disk, "sync_file", told)
    return found


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_commit_returns_when_rows_entry_and_folders_are_on_the_disk(
    mode: Any, tmp_path: Path, synced: list[str]
) -> None:
    bench = SinkBench(CASE, tmp_path, mode, ("id",) if mode == "upsert" else ())
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    synced.clear()
    ours.commit([receipt], move(0, 1))
    table = deltalake.DeltaTable(place(bench))
    log = f"{place(bench)}/_delta_log"
    [added] = [path.removeprefix("file://") for path in table.file_uris()]
    entry = f"{log}/{table.version():020d}.json"
    assert {added, str(Path(added).parent), entry, log} <= set(synced)
    assert synced.index(added) < synced.index(entry) < len(synced) - 1 - synced[::-1].index(log)


def test_what_others_wrote_before_a_commit_is_made_durable_with_it(bench: SinkBench, synced: list[str]) -> None:
    ours, _ = bench.instance()
    foreign(bench, 7)
    synced.clear()
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    assert Counter(path for path in synced if path.endswith(".json")).total() == 2


def test_a_commit_whose_process_died_before_its_sync_is_synced_by_the_next(bench: SinkBench, synced: list[str]) -> None:
    ours, _ = bench.instance()

    def die() -> None:
        raise KeyboardInterrupt

    with Between("delta.commit", die, "after"), pytest.raises(KeyboardInterrupt):
        ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    synced.clear()
    version = deltalake.DeltaTable(place(bench)).version()
    _, found = bench.instance(2)
    assert found == token(1)
    assert f"{place(bench)}/_delta_log/{version:020d}.json" in synced


def test_after_a_failed_sync_the_table_is_not_opened_again(bench: SinkBench) -> None:
    ours, _ = bench.instance()

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Between("delta.sync", fail), pytest.raises(DiskFailed):
        ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    with pytest.raises(DiskFailed):
        ours.open(bench.binding())


@pytest.mark.parametrize("kept", [0, 30, -4])
def test_an_entry_that_a_power_cut_left_half_written_is_set_aside(kept: int, bench: SinkBench) -> None:
    """Its commit had not returned, so its rows are delivered again."""
    ours, _ = bench.instance()
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    receipt = bench.prepare(ours, 2, numbered(2))
    ours.commit([receipt], move(1, 2))
    entry = Path(place(bench)) / "_delta_log" / f"{deltalake.DeltaTable(place(bench)).version():020d}.json"
    entry.write_bytes(entry.read_bytes()[:kept])
    again, found = bench.instance(2)
    assert found == token(1)
    again.commit([receipt], move(1, 2))
    assert bench.ids() == [1, 2]
    assert entry.with_name(f"{entry.name}.torn").exists()


def test_a_checkpoint_that_a_power_cut_left_half_written_is_set_aside(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    deltalake.DeltaTable(place(bench)).create_checkpoint()
    [checkpoint] = (Path(place(bench)) / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert bench.instance(2)[1] == token(1)
    assert bench.ids() == [1]


def test_nothing_is_set_aside_in_a_table_that_is_whole(bench: SinkBench) -> None:
    ours, _ = bench.instance()
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    deltalake.DeltaTable(place(bench)).create_checkpoint()
    assert LocalLog(Path(place(bench))).mend() == []
