"""Durable means power loss: what is synced, in which order; and bytes that are not what was written are seen."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from onefold import disk, spool
from onefold.connectors.files import files
from onefold.connectors.sqlite import SqliteSink
from onefold.errors import DiskFull, Fenced, FileCorrupt, JournalLocked
from onefold.journal import JOURNAL_FILE, SqliteJournal
from onefold.protocols import JournalRecord
from onefold.spool import FolderSpool
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered
from onefold.types import RecordNumber

ROWS = pa.record_batch({"n": [1, 2, 3]})


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was done to files, in order: ("sync" | "name" | "link", path)."""
    done: list[tuple[str, str]] = []
    sync, replace, link, mkdir = os.fsync, Path.replace, os.link, Path.mkdir

    def watch_sync(descriptor: int) -> None:
        done.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        sync(descriptor)

    def watch_replace(self: Path, target: Path) -> Path:
        done.append(("name", str(target)))
        return replace(self, target)

    def watch_link(source: Path, target: Path) -> None:
        link(source, target)
        done.append(("name", str(target)))

    def watch_mkdir(self: Path, *args: object, **options: object) -> None:
        mkdir(self, *args, **options)  # type: ignore[arg-type]
        done.append(("make", str(self)))

    monkeypatch.setattr(os, "fsync", watch_sync)
    monkeypatch.setattr(Path, "replace", watch_replace)
    monkeypatch.setattr(os, "link", watch_link)
    monkeypatch.setattr(Path, "mkdir", watch_mkdir)
    return done


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name what is synced")


@needs_proc
@pytest.mark.parametrize("give_name", [disk.publish, disk.publish_exclusive])
def test_a_file_is_synced_before_it_gets_its_name_and_the_folder_after(
    give_name: Callable[..., object], tmp_path: Path, operations: list[tuple[str, str]]
) -> None:
    temporary, final = tmp_path / "new", tmp_path / "final"
    disk.write_synced(temporary, [b"bytes"], step="test")
    give_name(temporary, final, step="test")
    assert operations == [("sync", str(temporary)), ("name", str(final)), ("sync", str(tmp_path))]
    assert final.read_bytes() == b"bytes"


@needs_proc
def test_a_name_moved_between_folders_is_synced_in_both(tmp_path: Path, operations: list[tuple[str, str]]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "new").write_bytes(b"x")
    operations.clear()
    disk.publish(tmp_path / "a" / "new", tmp_path / "final", step="test")
    assert {("sync", str(tmp_path)), ("sync", str(tmp_path / "a"))} <= set(operations[1:])


@needs_proc
def test_new_folders_are_synced_into_their_parents(tmp_path: Path, operations: list[tuple[str, str]]) -> None:
    disk.make_folder(tmp_path / "a" / "b")
    assert operations == [
        ("make", str(tmp_path / "a")),
        ("sync", str(tmp_path)),
        ("make", str(tmp_path / "a" / "b")),
        ("sync", str(tmp_path / "a")),
    ]


def test_of_two_that_want_a_name_one_gets_it(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / text).write_text(text)
    assert disk.publish_exclusive(tmp_path / "first", tmp_path / "final", step="test")
    assert not disk.publish_exclusive(tmp_path / "second", tmp_path / "final", step="test")
    assert (tmp_path / "final").read_text() == "first"


@needs_proc
def test_a_spooled_file_and_its_folder_are_synced(
    tmp_path: Path, operations: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "INLINE_BYTES", 0)
    folder = FolderSpool(tmp_path)
    operations.clear()
    folder.put("rows", [ROWS], ROWS.schema)
    assert operations == [("sync", str(tmp_path / "1-rows.arrow")), ("sync", str(tmp_path))]


@pytest.mark.parametrize("limit", [0, 1 << 20], ids=["a file", "inline"])
def test_every_flipped_byte_of_a_spooled_payload_is_seen(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "INLINE_BYTES", limit)
    folder = FolderSpool(tmp_path)
    detail, inline = folder.put("rows", [ROWS], ROWS.schema)
    assert folder.get(detail, inline).to_batches()[0].equals(ROWS)
    body = bytearray(inline if inline is not None else (tmp_path / "1-rows.arrow").read_bytes())
    for place in range(0, len(body), 7):
        body[place] ^= 1
        if inline is None:
            (tmp_path / "1-rows.arrow").write_bytes(body)
        with pytest.raises(FileCorrupt):
            folder.get(detail, None if inline is None else bytes(body))
        body[place] ^= 1


# ------------------------------------------------------------------------------------------------------ the journal


def journal(folder: Path, *, is_locked: bool = False) -> SqliteJournal:
    return SqliteJournal(folder, new_id="0" * 32, is_locked=is_locked)


def filled(folder: Path) -> SqliteJournal:
    log = journal(folder)
    for number in range(1, 4):
        log.append(RecordNumber(number), JournalRecord("settle", {"epoch": number}, {"rows/a": b"payload"}))
    return log


def test_an_append_waits_for_the_disk(tmp_path: Path) -> None:
    log = journal(tmp_path)
    assert log._con.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: the WAL is synced at every commit"
    assert log._con.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_of_two_writers_the_second_to_take_a_number_is_fenced(tmp_path: Path) -> None:
    one, other = filled(tmp_path), journal(tmp_path)
    one.append(RecordNumber(4), JournalRecord("settle", {"epoch": 4}))
    for number in (3, 4, 6):
        with pytest.raises(Fenced):
            other.append(RecordNumber(number), JournalRecord("settle", {"epoch": 9}))
    assert [record.header["epoch"] for _, record in other.read(RecordNumber(1))] == [1, 2, 3, 4]
    other.append(RecordNumber(5), JournalRecord("settle", {"epoch": 5}))
    assert one.last_number() == 5


def test_a_second_process_is_told_who_holds_the_journal(tmp_path: Path) -> None:
    first = journal(tmp_path, is_locked=True)
    with pytest.raises(JournalLocked) as caught:
        journal(tmp_path, is_locked=True)
    assert str(os.getpid()) in str(caught.value)
    first.close()
    journal(tmp_path, is_locked=True).close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE record SET header = replace(header, '2', '9') WHERE number = 2",
        "UPDATE record SET kind = 'start' WHERE number = 2",
        "UPDATE attachment SET body = x'00' WHERE number = 2",
        "DELETE FROM record WHERE number = 2",
    ],
)
def test_a_damaged_or_missing_record_is_seen(damage: str, tmp_path: Path) -> None:
    filled(tmp_path).close()
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as connection:
        connection.execute(damage)
    connection.close()
    with pytest.raises(FileCorrupt):
        list(journal(tmp_path).read(RecordNumber(1)))


# -------------------------------------------------------------------------------------------------------- the sinks


@needs_proc
def test_a_data_set_syncs_rows_before_the_entry_and_the_entry_before_the_names(
    tmp_path: Path, operations: list[tuple[str, str]]
) -> None:
    bench = SinkBench(SinkCase("files", lambda root, table, *_: files(root / table).as_sink("append", ())), tmp_path)
    sink, _ = bench.instance()
    receipt = bench.prepare(sink, 1, numbered(1))
    operations.clear()
    sink.commit([receipt], move(0, 1))
    paths = [(what, Path(path)) for what, path in operations]
    assert [(what, path.name if path.is_dir() else f"{path.parent.name}/…") for what, path in paths] == [
        ("sync", "staged/…"),
        ("sync", "staged"),
        ("sync", "log/…"),
        ("name", "log/…"),
        ("sync", "log"),
        ("name", "target/…"),
        ("sync", "target"),
        ("sync", "staged"),
    ]


FULL, EXTRA = 2, 3


def pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def test_a_commit_to_sqlite_waits_for_the_disk(tmp_path: Path) -> None:
    with SqliteSink(str(tmp_path / "target.sqlite"), "target")._connected() as connection:
        assert pragma(connection, "synchronous") == EXTRA, "the folder is synced as well"
        assert pragma(connection, "fullfsync") == 1, "on macOS fsync alone does not reach the platter"


def test_a_record_of_the_journal_waits_for_the_disk(tmp_path: Path) -> None:
    log = SqliteJournal(tmp_path, new_id="0" * 32)
    assert (pragma(log._con, "synchronous"), pragma(log._con, "fullfsync")) == (FULL, 1)
    log.close()


@pytest.mark.parametrize(
    ("code", "done"),
    [
        (0, ["full"]),
        (errno.ENOTSUP, ["full", "fsync"]),
        (errno.EINVAL, ["full", "fsync"]),
        (errno.ENOTTY, ["full", "fsync"]),
        (errno.EIO, ["full", "EIO"]),
    ],
)
def test_on_macos_fsync_stands_in_where_the_file_system_has_nothing_better(
    code: int, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def full(descriptor: int, what: int) -> None:
        asked.append("full")
        if code:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr("onefold.disk.sys.platform", "darwin")
    monkeypatch.setattr("onefold.disk.fcntl.fcntl", full)
    monkeypatch.setattr("onefold.disk.os.fsync", lambda _: asked.append("fsync"))
    try:
        disk.sync_file(0)
    except OSError as error:
        asked.append(errno.errorcode[error.errno or 0])
    assert asked == done


def test_an_error_of_an_open_file_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(disk, "sync_file", fail)
    with pytest.raises(DiskFull) as full:
        disk.write_synced(tmp_path / "rows.arrow", [b"x"], step="spool.write")
    assert "rows.arrow" in str(full.value)
