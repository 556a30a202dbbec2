"""The numbered log: append-if-absent, checksums, and files that are not what was written."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from onefold import disk, journal
from onefold.errors import DiskFailed, DiskFull, Fenced, FileCorrupt, JournalLocked, OnefoldError, StateUnknown
from onefold.journal import LOCK_FILE, SqliteJournal, locked_folder
from onefold.protocols import JournalRecord
from onefold.types import RecordNumber

ID = "0" * 32


def record(text: str = "x", **attachments: bytes) -> JournalRecord:
    return JournalRecord("seal", {"text": text}, attachments)


def opened(folder: Path, *, is_locked: bool = True) -> SqliteJournal:
    return SqliteJournal(folder, new_id=ID, is_locked=is_locked)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteJournal]:
    log = opened(tmp_path)
    yield log
    log.close()


def filled(folder: Path, count: int = 3) -> SqliteJournal:
    log = opened(folder)
    for number in range(1, count + 1):
        log.append(RecordNumber(number), record(f"é {number}", **{"rows/a": bytes([number]) * 50}))
    return log


def test_records_come_back_in_order_with_their_attachments(log: SqliteJournal, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        log.append(RecordNumber(number), record(f"é😀 {number}", a=b"\x00\xff", **{"rows/s": b""}))
    log.close()
    found = list(opened(tmp_path).read(RecordNumber(2)))
    assert [(number, one.header["text"]) for number, one in found] == [(2, "é😀 2"), (3, "é😀 3")]
    assert dict(found[0][1].attachments) == {"a": b"\x00\xff", "rows/s": b""}


@pytest.mark.parametrize("number", [1, 2, 4])
def test_only_the_next_number_can_be_appended(log: SqliteJournal, number: int) -> None:
    log.append(RecordNumber(1), record())
    log.append(RecordNumber(2), record())
    with pytest.raises(Fenced):
        log.append(RecordNumber(number), record("another"))
    log.append(RecordNumber(3), record())
    assert log.last_number() == 3


def test_of_two_writers_one_takes_the_number_and_the_other_is_fenced(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path, is_locked=False)
    first.append(RecordNumber(1), record("first"))
    with pytest.raises(Fenced):
        second.append(RecordNumber(1), record("second"))
    second.append(RecordNumber(2), record("second"))
    with pytest.raises(Fenced):
        first.append(RecordNumber(2), record("first"))


def test_a_second_process_is_told_who_the_first_is(log: SqliteJournal, tmp_path: Path) -> None:
    with pytest.raises(JournalLocked) as locked:
        opened(tmp_path)
    assert str(os.getpid()) in str(locked.value.found)
    with pytest.raises(JournalLocked), locked_folder(tmp_path):
        pass
    log.close()
    with locked_folder(tmp_path), pytest.raises(JournalLocked):
        opened(tmp_path)
    opened(tmp_path).close()


def lock_of_the_dead(folder: Path) -> int:
    """A lock that still names, and is held for, a process that was killed."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child.kill()
    child.wait()
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    os.write(lock, json.dumps({"pid": child.pid, "host": socket.gethostname()}).encode())
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_the_lock_of_a_process_that_was_killed_is_waited_for(tmp_path: Path) -> None:
    release = threading.Timer(0.2, os.close, (lock_of_the_dead(tmp_path),))
    release.start()
    opened(tmp_path).close()
    release.join()


def test_a_lock_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onefold.journal.LOCK_WAIT_SECONDS", 0.1)
    lock = lock_of_the_dead(tmp_path)
    with pytest.raises(JournalLocked, match=rf"process \d+ on {socket.gethostname()}"):
        opened(tmp_path)
    os.close(lock)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can tell who runs")
def test_a_process_that_runs_is_named_at_once(
    log: SqliteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("threading.Event.wait")
    with pytest.raises(JournalLocked):
        opened(tmp_path)


def test_the_id_is_drawn_once(log: SqliteJournal, tmp_path: Path) -> None:
    log.close()
    assert SqliteJournal(tmp_path, new_id="1" * 32).id == ID


def test_records_and_attachments_can_be_dropped(log: SqliteJournal) -> None:
    for number in range(1, 5):
        log.append(RecordNumber(number), record(**{"rows/a": b"1", "rows_not": b"2", "state/t": b"3"}))
    log.strip(RecordNumber(4), prefix="rows/")
    log.drop_before(RecordNumber(3))
    found = dict(log.read(RecordNumber(1)))
    assert list(found) == [3, 4]
    assert set(found[RecordNumber(3)].attachments) == {"rows_not", "state/t"}
    assert set(found[RecordNumber(4)].attachments) == {"rows/a", "rows_not", "state/t"}
    assert log.last_number() == 4


# ------------------------------------------------------------------------------------------------------ what is broken


def change(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / journal.JOURNAL_FILE)) as con:
        con.execute(sql)
        con.commit()


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE record SET header = replace(header, '2', '7') WHERE number = 2", "record 2"),
        ("UPDATE record SET kind = 'start' WHERE number = 2", "record 2"),
        ("UPDATE record SET header = x'00' WHERE number = 2", "record 2"),
        ("UPDATE attachment SET body = x'00' WHERE number = 2", "attachment rows/a"),
        ("UPDATE attachment SET body = 'text' WHERE number = 2", "attachment rows/a"),
        ("DELETE FROM record WHERE number = 2", "record 3"),
        ("DELETE FROM record WHERE number = 1", "record 2"),
        ("UPDATE about SET value = 'f' WHERE name = 'id'", "another id"),
        ("DELETE FROM about WHERE name = 'id'", "another id"),
        ("UPDATE attachment SET name = 'rows/b' WHERE number = 2", "attachment rows/b"),
        ("UPDATE record SET kind = CAST(x'ff' AS TEXT) WHERE number = 2", "decode to UTF-8"),
        ("DROP TABLE record", "tables that are not those of a journal"),
        ("DROP TABLE attachment", "tables that are not those of a journal"),
        ("ALTER TABLE record RENAME TO recorf", "tables that are not those of a journal"),
    ],
)
def test_a_record_that_is_not_what_was_written_is_named(tmp_path: Path, sql: str, says: str) -> None:
    filled(tmp_path).close()
    change(tmp_path, sql)
    with pytest.raises(FileCorrupt) as corrupt:
        list(opened(tmp_path).read(RecordNumber(1)))
    assert says in str(corrupt.value)
    assert "journal.sqlite" in str(corrupt.value)
    assert corrupt.value.next_step


def test_another_format_is_refused(tmp_path: Path) -> None:
    filled(tmp_path).close()
    change(tmp_path, "UPDATE about SET value = '0' WHERE name = 'format'")
    with pytest.raises(StateUnknown, match="format") as refused:
        opened(tmp_path)
    assert (refused.value.found, refused.value.expected) == ("0", journal.FORMAT_VERSION)
    with pytest.raises(StateUnknown):  # and the lock was let go
        opened(tmp_path)


def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / journal.JOURNAL_FILE).write_bytes(b"not a database, but long enough to be one" * 100)
    with pytest.raises(FileCorrupt) as corrupt:
        opened(tmp_path)
    assert "journal.sqlite" in str(corrupt.value)


def test_records_still_in_the_write_ahead_log_are_read(tmp_path: Path) -> None:
    log = filled(tmp_path / "live")
    assert (tmp_path / "live" / "journal.sqlite-wal").stat().st_size > 0
    shutil.copytree(tmp_path / "live", tmp_path / "killed")
    log.close()
    assert [number for number, _ in opened(tmp_path / "killed").read(RecordNumber(1))] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["flipped", "truncated"])
def test_whatever_happens_to_the_file_no_record_is_read_wrong(tmp_path: Path, kind: str, seed: int) -> None:
    """Records may be missing at an end and attachments altogether: what a seal says of itself tells that."""
    filled(tmp_path / "sound", 12).close()
    expected = dict(opened(tmp_path / "sound", is_locked=False).read(RecordNumber(1)))
    whole = (tmp_path / "sound" / journal.JOURNAL_FILE).read_bytes()
    refused = 0
    for place in range(seed % 97, len(whole), 97):
        body = bytearray(whole)
        if kind == "flipped":
            body[place] ^= 0x15
        else:
            del body[place:]
        found = read_anyhow(tmp_path / f"broken-{place}", body)
        if isinstance(found, OnefoldError):
            refused += 1
            assert found.next_step
            continue
        assert list(found) == list(range(min(found, default=1), max(found, default=0) + 1))
        for number, one in found.items():
            assert one.header == expected[number].header
            assert one.attachments in ({}, expected[number].attachments)
    assert refused


def read_anyhow(folder: Path, body: bytes) -> dict[RecordNumber, JournalRecord] | OnefoldError:
    folder.mkdir()
    (folder / journal.JOURNAL_FILE).write_bytes(body)
    try:
        with closing(opened(folder, is_locked=False)) as log:
            return dict(log.read(RecordNumber(1)))
    except OnefoldError as error:
        return error


# ------------------------------------------------------------------------------------------------------------ the disk


@pytest.mark.parametrize("step", ["journal.create", "journal.seal", "journal.trim"])
@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, DiskFailed)])
def test_a_full_or_failing_disk_has_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, error: type[OnefoldError]
) -> None:
    def fail(name: str, moment: str) -> None:
        if (name, moment) == (step, "before"):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "observer", fail)
    with pytest.raises(error) as raised:
        filled(tmp_path).drop_before(RecordNumber(2))
    assert raised.value.where["step"] == step
    assert raised.value.next_step


def test_a_full_disk_as_sqlite_says_it(log: SqliteJournal) -> None:
    log.append(RecordNumber(1), record())
    log._con.execute("PRAGMA max_page_count = 1")
    with pytest.raises(DiskFull):
        log.append(RecordNumber(2), record(a=b"x" * 100_000))
    log._con.execute("PRAGMA max_page_count = 100000")
    log.append(RecordNumber(2), record())
    assert [number for number, _ in log.read(RecordNumber(1))] == [1, 2]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(path: object, *_: object) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DiskFailed, match="cannot be written") as refused:
        opened(tmp_path)
    assert str(tmp_path) in refused.value.where["where"]
    assert "--state" in refused.value.next_step


def test_a_folder_under_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskFailed):
        opened(tmp_path / "file" / "state")
