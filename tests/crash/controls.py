"""Negative controls: each takes one safeguard out of a child. The harness must see what that does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from onefold.chain import Chain
from onefold.connectors.files import FilesSink
from onefold.connectors.files.log import CommitLog, Entry
from onefold.connectors.sqlite import sink as sqlite
from onefold.disk import remove
from onefold.engines.embedded import opening, runner
from onefold.engines.embedded.archive import Archive
from onefold.epoch import EpochCore
from onefold.errors import DiskFailed
from onefold.journal import SqliteJournal
from onefold.protocols import JournalRecord, Limit
from onefold.records import Seal
from onefold.spool import FolderSpool, from_ipc
from onefold.state.keyset import KeySet
from onefold.state.snapshots import SnapshotStore
from onefold.types import EpochHead, EpochNumber, Receipt, RecordNumber, SealId, Token, TokenMove

SKIPPED = Limit(rows=20, size_bytes=1 << 20)


def token_not_compared() -> None:
    """A sink takes what an instance sends whose token is not the expected one."""
    sqlite.same_token = lambda left, right: True  # type: ignore[assignment]


def token_not_kept() -> None:
    """A sink's transaction holds the rows alone."""
    sqlite._move_token = lambda *_: None  # type: ignore[assignment]


def rows_before_the_seal() -> None:
    """Rows become visible when they are prepared."""
    prepare, commit = sqlite.SqliteSink.prepare, sqlite.SqliteSink.commit

    def prepare_and_write(self: sqlite.SqliteSink, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        receipt = prepare(self, epoch, batches)
        commit(self, [receipt], None)
        return receipt

    def move_alone(self: sqlite.SqliteSink, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        commit(self, [], move)

    sqlite.SqliteSink.prepare = prepare_and_write  # type: ignore[method-assign]
    sqlite.SqliteSink.commit = move_alone  # type: ignore[method-assign]


def dedup_state_not_sealed() -> None:
    """What dedup has seen is in memory alone."""
    KeySet.take_delta = lambda self: []  # type: ignore[method-assign]


def watermarks_not_restored() -> None:
    """After a restart the largest event time is forgotten."""
    load = opening._load_state

    def load_without(pipeline: Any, *rest: Any) -> Any:
        notes = load(pipeline, *rest)
        pipeline.watermarks = {name: {} for name in pipeline.watermarks}
        return notes

    opening._load_state = load_without


def positions_kept_back() -> None:
    """After a restart the newest epoch is read again."""
    where = runner.where_to_read

    def one_back(opened: opening.OpenedFlow) -> Any:
        ends, number, settled = where(opened)
        seals = opened.history.seals
        if len(seals) > 1:
            ends = {name: dict(marks) for name, marks in seals[-2][1].ends.items()}
        return ends, number, settled

    runner.where_to_read = one_back


def positions_moved_ahead() -> None:
    """After a restart the first rows that come are taken for read."""
    where = runner.where_to_read

    def one_ahead(opened: opening.OpenedFlow) -> Any:
        ends, number, settled = where(opened)
        for name, reader in opened.pipeline.readers.items():
            source, memory = reader.node.source, opened.pipeline.memories.get(name)
            source.open(memory.table() if memory is not None else None)
            for partition, mark in ends.get(name, {}).items():
                ends[name][partition] = source.read(partition, mark, SKIPPED, 0.0).next
            source.close()
        return ends, number, settled

    runner.where_to_read = one_ahead


def freed_before_delivered() -> None:
    """Payloads go as soon as they are sealed, whoever still waits for them."""
    add = Archive.add

    def add_and_free(self: Archive, number: RecordNumber, seal: Seal, *, hold: bool) -> None:
        add(self, number, seal, hold=hold)
        for receipt in (part for parts in seal.receipts.values() for part in parts):
            self._spool.free(receipt.detail)

    Archive.add = add_and_free  # type: ignore[method-assign]


def swept_blindly() -> None:
    """The spool is emptied at every start."""

    def sweep(self: FolderSpool, named: Iterable[str]) -> int:
        for path in self.folder.iterdir():
            remove(path, step="spool.sweep")
        return 0

    FolderSpool.sweep = sweep  # type: ignore[method-assign]


def renamed_before_logged() -> None:
    """A data set's files get their names before the entry that decides, and nobody misses the entry."""
    append = CommitLog.append

    def finish_first(self: CommitLog, entry: Entry) -> bool:
        self.finish(entry)
        return append(self, entry)

    CommitLog.append = finish_first  # type: ignore[method-assign]
    FilesSink._refuse_unknown = lambda *_: None  # type: ignore[method-assign]


def attempts_forgotten() -> None:
    """At-most-once: after a restart nobody knows that a delivery was begun."""
    read = opening.read_history

    def read_without(*args: Any) -> opening.History:
        history = read(*args)
        history.attempts.clear()
        return history

    opening.read_history = read_without


def sealed_taken_for_delivered() -> None:
    """At-least-once: after a restart nobody asks what was recorded as delivered."""
    read = opening.read_history

    def read_too_well(*args: Any) -> opening.History:
        history = read(*args)
        history.through = dict.fromkeys(history.start.sinks, history.head) if history.start else {}
        return history

    opening.read_history = read_too_well


def journal_not_fenced() -> None:
    """Whoever appends takes the next number that is free."""
    append = SqliteJournal.append

    def append_anywhere(self: SqliteJournal, number: RecordNumber, record: JournalRecord) -> None:
        append(self, RecordNumber(self._last_number() + 1), record)

    SqliteJournal.append = append_anywhere  # type: ignore[method-assign]
    SqliteJournal._refuse_unless_last = lambda *_: None  # type: ignore[assignment, method-assign]


def failed_sync_taken_for_done() -> None:
    """An append that the disk refused counts as durable."""
    append = SqliteJournal.append

    def append_regardless(self: SqliteJournal, number: RecordNumber, record: JournalRecord) -> None:
        with contextlib.suppress(DiskFailed):
            append(self, number, record)

    SqliteJournal.append = append_regardless  # type: ignore[method-assign]


def sealed_handles_aborted() -> None:
    """At a start, whatever is prepared is thrown away."""
    EpochCore._is_orphan = lambda *_: True  # type: ignore[method-assign]


def snapshot_named_too_late() -> None:
    """A snapshot says that it is of the next epoch, whose changes it lacks."""
    begin = SnapshotStore.begin

    def begin_late(self: SnapshotStore, epoch: EpochNumber, seal: SealId, tables: Any) -> None:
        begin(self, EpochNumber(epoch + 1), seal, tables)

    SnapshotStore.begin = begin_late  # type: ignore[method-assign]


def seals_not_compared() -> None:
    """A token is where its number says, whatever journal sealed it."""

    def locate(self: Chain, sink: str, token: Token) -> EpochNumber:
        return min(token.epoch, self.head)

    Chain.locate = locate  # type: ignore[method-assign]


def checksums_not_compared() -> None:
    """What is in a spooled file is taken for what was written."""

    def get(self: FolderSpool, detail: Any, inline: bytes | None) -> pa.Table:
        return from_ipc((self.folder / str(detail["file"])).read_bytes() if inline is None else inline)

    FolderSpool.get = get  # type: ignore[method-assign]
