"""The journal in SQLite: one numbered log, made durable record by record.

WAL with synchronous=FULL: an append is on stable storage when its COMMIT returns. Local file systems only. The lock
file beside it is a courtesy that names the first process; the fence is the number (INV-2).
Source: sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from onefold.clock import process_is_alive, process_name
from onefold.disk import durable_step, make_folder, sync_folder
from onefold.errors import DiskFailed, DiskFull, Fenced, FileCorrupt, JournalLocked, OnefoldError, StateUnknown
from onefold.protocols import JournalRecord
from onefold.types import RecordNumber

__all__ = ["JOURNAL_FILE", "LOCK_FILE", "SqliteJournal", "locked_folder"]

JOURNAL_FILE = "journal.sqlite"
LOCK_FILE = "lock"
LOCK_WAIT_SECONDS = 2.0
"""How long a process that was killed may take to let go of its lock: its memory is taken down first."""

_LOCK_ROUND_SECONDS = 0.02
FORMAT_VERSION = 2
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""Text that is not UTF-8 any more comes out of sqlite3 as the second."""

_CORRUPT = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_SCHEMA", "SQLITE_FORMAT", "SQLITE_TOOBIG")
_CORRUPT_TEXTS = ("no such table", "no such column", "malformed", "could not decode", "Could not decode")

_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS record (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, header TEXT NOT NULL, checksum TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attachment (
    number INTEGER NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, checksum TEXT NOT NULL,
    PRIMARY KEY (number, name)) WITHOUT ROWID;
"""


class SqliteJournal:
    """See onefold.protocols.Journal. One thread at a time."""

    def __init__(self, folder: Path, *, new_id: str, is_locked: bool = True) -> None:
        """Open the journal in `folder`, or make one with the id `new_id`.

        is_locked: take the lock file. False is for reading a live journal, and for tests of fencing.
        Raises JournalLocked, FileCorrupt, DiskError, StateUnknown (a newer format).
        """
        make_folder(folder)
        self.folder = folder
        self.path = folder / JOURNAL_FILE
        self._appended: RecordNumber | None = None
        self._lock = _take_lock(folder / LOCK_FILE) if is_locked else None
        try:
            self._con = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
            self._prepare(new_id)
        except _SQLITE_ERRORS as error:
            self.close()
            raise self._translate(error) from error
        except OnefoldError:
            self.close()
            raise

    def _prepare(self, new_id: str) -> None:
        is_new = self._con.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        mode = self._con.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise DiskFailed(
                "This file system cannot hold a journal.",
                where=str(self.path),
                found=f"journal_mode {mode}",
                expected="SQLite's write-ahead log, which needs a local file system",
                next_step="Choose a folder on a local disk with --state.",
            )
        self._con.execute("PRAGMA synchronous=FULL")
        self._con.execute("PRAGMA fullfsync=1")  # macOS: fsync alone does not reach the platter
        if is_new:
            with durable_step("journal.create"):
                self._con.executescript("BEGIN IMMEDIATE;" + _TABLES)
                about = {"format": str(FORMAT_VERSION), "id": new_id, "checksum": _digest(new_id.encode())}
                self._con.executemany("INSERT INTO about VALUES (?, ?)", about.items())
                self._con.execute("COMMIT")
                sync_folder(self.folder)
        elif _tables_of(self._con) != _tables_as_made():
            raise FileCorrupt(file=self.path, found="tables that are not those of a journal")
        about = dict(self._con.execute("SELECT name, value FROM about"))
        if about.get("format") != str(FORMAT_VERSION):
            raise StateUnknown(
                "The journal has another format than this version of onefold reads.",
                file=self.path,
                found=about.get("format"),
                expected=FORMAT_VERSION,
            )
        self.id = about.get("id", "")
        if about.get("checksum") != _digest(self.id.encode()):
            raise FileCorrupt(file=self.path, found="another id than was written")

    def append(self, number: RecordNumber, record: JournalRecord) -> None:
        """See Journal. The number must be the last one plus one and free, or this process has been fenced."""
        header = json.dumps(record.header, separators=(",", ":"), ensure_ascii=False)
        checksum = _checksum(number, record.kind, header)
        try:
            with durable_step(f"journal.{record.kind}"):
                self._con.execute("BEGIN IMMEDIATE")
                self._refuse_unless_last(RecordNumber(number - 1))
                self._con.execute("INSERT INTO record VALUES (?, ?, ?, ?)", (number, record.kind, header, checksum))
                self._con.executemany(
                    "INSERT INTO attachment VALUES (?, ?, ?, ?)",
                    (
                        (number, name, body, _attachment_digest(number, name, body))
                        for name, body in record.attachments.items()
                    ),
                )
                self._con.execute("COMMIT")
            self._appended = number
        except _SQLITE_ERRORS as error:
            raise self._translate(error) from error

    def _refuse_unless_last(self, number: RecordNumber) -> None:
        last = self._last_number()
        if last != number:
            self._con.execute("ROLLBACK")
            raise Fenced(file=self.path, found=f"record {last}", expected=f"record {number} to be the last")

    def read(self, start: RecordNumber) -> Iterator[tuple[RecordNumber, JournalRecord]]:
        """See Journal. Verifies checksums and that no number is missing."""
        try:
            rows = self._con.execute(
                "SELECT number, kind, header, checksum FROM record WHERE number >= ? ORDER BY number", (start,)
            )
            first = max(start, self._first_kept())
            previous: int | None = None
            for number, kind, header, checksum in rows:
                if checksum != _checksum(number, kind, header):
                    raise FileCorrupt(file=self.path, record=number, found="another checksum than was written")
                if previous is None and number > first:
                    raise FileCorrupt(file=self.path, found=f"record {number}", expected=f"record {first}")
                if previous is not None and number != previous + 1:
                    raise FileCorrupt(file=self.path, found=f"record {number}", expected=f"record {previous + 1}")
                previous = number
                yield RecordNumber(number), JournalRecord(kind, json.loads(header), self._attachments(number))
        except _SQLITE_ERRORS as error:
            raise self._translate(error) from error

    def _attachments(self, number: int) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for name, body, checksum in self._con.execute(
            "SELECT name, body, checksum FROM attachment WHERE number = ?", (number,)
        ):
            if not isinstance(body, bytes) or _attachment_digest(number, name, body) != checksum:
                raise FileCorrupt(file=self.path, record=number, attachment=name, found="another checksum")
            found[name] = body
        return found

    def last_number(self) -> RecordNumber:
        """See Journal."""
        try:
            return self._last_number()
        except _SQLITE_ERRORS as error:
            raise self._translate(error) from error

    def _last_number(self) -> RecordNumber:
        row = self._con.execute("SELECT max(number) FROM record").fetchone()
        return RecordNumber(row[0] or 0)

    def strip(self, before: RecordNumber, *, prefix: str) -> None:
        """See Journal."""
        self._change(
            ("DELETE FROM attachment WHERE number < ? AND substr(name, 1, ?) = ?", (before, len(prefix), prefix))
        )

    def drop_before(self, number: RecordNumber) -> None:
        """See Journal. The number is written down, so that records which vanish at this end are missed."""
        self._change(
            (
                "INSERT OR REPLACE INTO about VALUES ('first', min(?, (SELECT coalesce(max(number), 0) FROM record)))",
                (number,),
            ),
            ("DELETE FROM record WHERE number < ?", (number,)),
            ("DELETE FROM attachment WHERE number < ?", (number,)),
        )

    def _first_kept(self) -> int:
        found = self._con.execute("SELECT value FROM about WHERE name = 'first'").fetchone()
        return int(found[0]) if found is not None and str(found[0]).isdecimal() else 1

    def _change(self, *changes: tuple[str, tuple[Any, ...]]) -> None:
        try:
            with durable_step("journal.trim"):
                self._con.execute("BEGIN IMMEDIATE")
                if self._appended is not None:
                    self._refuse_unless_last(self._appended)  # what a successor keeps is not ours to free
                for sql, values in changes:
                    self._con.execute(sql, values)
                self._con.execute("COMMIT")
        except _SQLITE_ERRORS as error:
            raise self._translate(error) from error

    def close(self) -> None:
        """See Journal."""
        con = getattr(self, "_con", None)
        if con is not None:
            con.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _translate(self, error: sqlite3.Error | UnicodeDecodeError) -> OnefoldError:
        if isinstance(error, UnicodeDecodeError):
            return FileCorrupt(file=self.path, found="text that is not UTF-8")
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith("SQLITE_FULL"):
            return DiskFull(where=str(self.path))
        if name.startswith(_CORRUPT) or any(text in str(error) for text in _CORRUPT_TEXTS):
            return FileCorrupt(file=self.path, found=str(error), expected="an intact SQLite journal")
        return DiskFailed(where=str(self.path), found=f"{name} {error}")


def _tables_of(con: sqlite3.Connection) -> list[tuple[str, str]]:
    return con.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()


def _tables_as_made() -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as con:
        con.executescript(_TABLES)
        return _tables_of(con)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Nobody runs on this state folder meanwhile, whatever is in it. Raises JournalLocked."""
    lock = _take_lock(folder / LOCK_FILE)
    try:
        yield
    finally:
        os.close(lock)


def _take_lock(path: Path) -> int:
    with durable_step("journal.lock"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(int(LOCK_WAIT_SECONDS / _LOCK_ROUND_SECONDS)):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        if process_is_alive(_holder(descriptor)):
            raise _locked(path, descriptor)
        threading.Event().wait(_LOCK_ROUND_SECONDS)
    else:
        raise _locked(path, descriptor)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(process_name()).encode(), 0)
    return descriptor


def _holder(descriptor: int) -> Mapping[str, Any]:
    """Who holds the lock, by its own words; nothing while it is being written."""
    try:
        named = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return named if isinstance(named, dict) else {}


def _locked(path: Path, descriptor: int) -> JournalLocked:
    holder = _holder(descriptor)
    os.close(descriptor)
    who = f"process {holder.get('pid')} on {holder.get('host')}" if holder else "a process that does not give its name"
    return JournalLocked(file=path, found=who, expected="no other process")


def _checksum(number: int, kind: str, header: str) -> str:
    return _digest(f"{number}\0{kind}\0{header}".encode())


def _attachment_digest(number: int, name: str, body: bytes) -> str:
    return _digest(f"{number}\0{name}\0".encode() + body)


def _digest(body: bytes) -> str:
    return str(xxhash.xxh3_128_hexdigest(body))
