"""A folder as a data set: plain readers of folder/*.parquet see only whole committed files."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import xxhash

from onefold.connectors.files.encoding import Encoding
from onefold.connectors.files.log import CommitLog, Entry, LoggedFile, checksum_of, damaged
from onefold.connectors.spooling import (
    SpooledSink,
    file_name,
    measured,
    refuse_taken,
    refuse_token,
    resolved_path,
    rows_of,
    same_token,
    target_path,
)
from onefold.disk import publish_exclusive, remove
from onefold.errors import DiskError, DiskFull, FileCorrupt, OutcomeUnknown, SchemaError, SinkRefused, SinkUnavailable
from onefold.protocols import CheckResult, SinkPromise
from onefold.types import (
    Binding,
    CommitClass,
    EpochHead,
    EpochNumber,
    Handle,
    Incarnation,
    Receipt,
    SealId,
    Token,
    TokenMove,
)

__all__ = ["FilesSink"]

NATIVE_BYTES = 256 << 10
"""Larger epochs become a staged file of their own; smaller ones are spooled, so that several share one file."""

_SNAPSHOT_TRIES = 5
_OWNER_CHARACTERS = 100
_STAGED = ".staged"
_JOINED = "joined"


class FilesSink(SpooledSink):
    """Append only. The token moves by creating the next entry of the folder's commit log."""

    def __init__(self, path: str, encoding: Encoding) -> None:
        self._text = path
        self._encoding = encoding

    @property
    def promise(self) -> SinkPromise:
        """Transactional, by the commit log; its staged files hold until committed or aborted."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append"}),
            target=f"files:{target_path(self._text)}{self._encoding.suffix}",
            can_prepare_together=True,
            conditions_together=(
                "the journal is neither copied nor restored while an epoch is staged: each sink by itself stays right",
            ),
            conditions=(
                "the folder is on a local file system with hard links and atomic renames",
                "readers take the files of the folder itself, not those below _onefold",
                "nobody else changes what is below _onefold",
            ),
        )

    def open(self, binding: Binding) -> Token | None:
        """Finish the newest commit, and read the token from it.

        Raises SinkRefused when the folder cannot be made, SinkUnavailable when it cannot be read, TargetTaken when
        others write to it, SchemaError for a column whose type changed, FileCorrupt. If killed inside: the next open
        finishes.
        """
        self._binding = binding
        self._encoding.refuse_inexact(binding.schema, self._label)
        log = self._log
        try:
            refuse_taken(binding, self._label, map(_parts_of, log.others()))
            log.make()
            last = log.last()
            staged = [path.name for path in log.staged.iterdir()]
        except OSError as error:
            raise self._unavailable(error) from error
        except DiskError as error:
            cause = error.__cause__
            if isinstance(cause, NotADirectoryError | PermissionError | FileExistsError):
                raise SinkRefused(
                    f"{self._label} cannot be a data set: {cause.strerror}.",
                    found=cause.filename or error.where.get("where"),
                    next_step="Name a folder that this user may write to, then run again: nothing is lost.",
                    sink=binding.sink,
                ) from error
            raise  # a failed sync is never tried again
        self._refuse_unknown(last)
        if last is None:
            return None
        _refuse_changes(last, binding, self._label)
        log.verify(last)
        log.finish(last)
        log.clean(last, [name for name in staged if _is_outrun(name, binding.journal, last.new)])
        return last.new

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Stage a large epoch as a file, synced; spool a small one. Under commit="together" always stage.

        If killed inside: a staged file may be left, which `handles` lists. Raises DiskError.
        """
        is_large, rows = measured(batches, NATIVE_BYTES)
        if epoch.move is None and not is_large:
            return super().prepare(epoch, rows)
        table = pa.Table.from_batches(rows, self.binding.schema)
        name = ".".join([*_handle_parts(self.binding, epoch.number, epoch.seal), self._encoding.suffix[1:]]) + _STAGED
        body = memoryview(self._encoding.encode(table))
        size = self._log.stage(name, [body])
        detail = {"staged": name, "checksum": xxhash.xxh3_128_hexdigest(body)}
        return Receipt(epoch.number, "native", table.num_rows, size, detail)

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """With a move: one entry in the log, then the files get their names. Without: the files get their names."""
        if move is None:
            self._write_untold(receipts)
            return
        binding, log = self.binding, self._log
        last = self._refuse_if_moved(move)
        number = last.number + 1 if last else 1
        stem = f"{self._owner}-{number:020d}-{file_name(move.new.seal[:16])}"
        try:
            files = tuple(
                LoggedFile(name, f"{stem}-{index:04d}{self._encoding.suffix}", size, rows, checksum)
                for index, (name, size, rows, checksum) in enumerate(self._staged_files(receipts, move.new.seal))
            )
            columns = tuple((column.name, str(column.type)) for column in binding.schema)
            entry = Entry(number, move.expected, move.new, files, columns)
            is_ours = log.append(entry)
        except DiskFull as error:  # before the entry: nobody trusts what was staged
            raise self._unavailable(error) from error
        except FileCorrupt:
            self._refuse_if_moved(move)  # whoever moved the token has given the staged files their names
            raise
        if not is_ours:
            self._refuse_if_moved(move)
            raise OutcomeUnknown(f"Another instance wrote to {self._label} meanwhile.", sink=binding.sink)
        if not log.is_newest(entry):
            raise OutcomeUnknown(f"Another instance wrote to {self._label} meanwhile.", sink=binding.sink)
        log.finish(entry)
        log.compact(entry)

    def _refuse_if_moved(self, move: TokenMove) -> Entry | None:
        """The newest entry, if it is the one that the move expects."""
        last = self._last(self._log)
        found = last.new if last else None
        if not same_token(found, move.expected):
            raise refuse_token(self.binding, found, move.expected)
        return last

    def handles(self) -> Sequence[Handle]:
        """Staged files of epochs that are in no entry."""
        log = self._log
        last = self._last(log)
        named = {file.staged for file in last.files} if last else set()
        try:
            names = [path.name for path in log.staged.iterdir() if path.name not in named]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unavailable(error) from error
        return [handle for name in sorted(names) if (handle := _handle_of(name)) is not None]

    def abort(self, handle: Handle) -> None:
        """Remove a staged file that no entry names."""
        log = self._log
        last = self._last(log)
        name = str(handle.detail["staged"])
        if last is None or name not in {file.staged for file in last.files}:
            remove(log.staged / name, step="files.abort")

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """The rows of this sink's files, in the order of their commits, and the token. Raises SinkUnavailable."""
        self._binding = binding
        log = self._log
        for _ in range(_SNAPSHOT_TRIES):
            before = self._last(log)
            try:
                tables = [self._encoding.decode(path, binding.schema) for path in self._files_of(log, before)]
            except OSError as error:
                raise self._unavailable(error) from error
            after = self._last(log)
            if (before and before.number) == (after and after.number):
                rows = pa.concat_tables(tables) if tables else binding.schema.empty_table()
                return rows, before.new if before else None
        raise SinkUnavailable(f"{self._label} is written too fast to be read in one snapshot.", sink=binding.sink)

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Is the folder there, or a folder to make it in? Writes nothing."""
        folder = self._folder
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if nearest.is_dir():
            return [CheckResult(f"folder {folder}", "ok", "exists" if nearest == folder else "will be made")]
        return [CheckResult(f"folder {folder}", "failed", f"{nearest} is a file", "Name another folder.")]

    @property
    def _label(self) -> str:
        return f"files({self._text})"

    @property
    def _folder(self) -> Path:
        return resolved_path(self._text)

    @property
    def _owner(self) -> str:
        binding = self.binding
        full = ".".join(file_name(name) for name in (binding.flow, binding.lane, binding.sink))
        if len(full) <= _OWNER_CHARACTERS:
            return full
        return f"{full[:_OWNER_CHARACTERS]}~{xxhash.xxh3_64_hexdigest(full.encode())}"

    @property
    def _log(self) -> CommitLog:
        return CommitLog(self._folder, self._owner)

    def _last(self, log: CommitLog) -> Entry | None:
        try:
            return log.last()
        except OSError as error:
            raise self._unavailable(error) from error

    def _refuse_unknown(self, last: Entry | None) -> None:
        """A file gets its name after its entry: one beyond the newest entry shows that entries are gone."""
        known = last.number if last else 0
        named = self._folder.glob(f"{glob.escape(self._owner)}-*")
        numbers = [path.name.removeprefix(f"{self._owner}-").partition("-")[0] for path in named]
        newest = max((int(number) for number in numbers if number.isdecimal()), default=0)
        if newest > known:
            raise FileCorrupt(
                "The commit log of a data set does not know a file that it has committed.",
                file=self._folder,
                found=f"{known} as the newest entry",
                expected=f"entry {newest}",
                next_step="Restore the folder below _onefold from a backup; or empty the whole data set and `onefold "
                "reset` the flow.",
                sink=self.binding.sink,
            )

    def _files_of(self, log: CommitLog, last: Entry | None) -> list[Path]:
        """Committed files; those of the newest entry may still wait for their names."""
        named = sorted(path for path in self._folder.iterdir() if path.name.startswith(f"{self._owner}-"))
        waiting = [log.staged / file.staged for file in last.files] if last else []
        return [*named, *(path for path in waiting if path.exists())]

    def _staged_files(self, receipts: Sequence[Receipt], seal: str) -> Iterator[tuple[str, int, int, str]]:
        """(name, size, rows, checksum) of the staged files of these receipts: neighbours from the spool share one."""
        log, binding = self._log, self.binding
        for number, (kind, group) in enumerate(itertools.groupby(receipts, key=lambda receipt: receipt.kind)):
            together = list(group)
            if kind == "spool":
                rows = rows_of(binding, together)
                parts = [_JOINED, *_handle_parts(binding, together[-1].epoch, seal), str(number)]
                name = ".".join([*parts, self._encoding.suffix[1:]]) + _STAGED
                if rows.num_rows:
                    body = memoryview(self._encoding.encode(rows))
                    yield name, log.stage(name, [body]), rows.num_rows, xxhash.xxh3_128_hexdigest(body)
                continue
            for receipt in together:
                self._check_staged(log, receipt)
                yield receipt.detail["staged"], receipt.size_bytes, receipt.rows, receipt.detail["checksum"]

    def _check_staged(self, log: CommitLog, receipt: Receipt) -> None:
        path, checksum = log.staged / receipt.detail["staged"], receipt.detail["checksum"]
        if not path.exists() or checksum_of(path) != checksum:
            raise damaged(path, checksum, sink=self.binding.sink, epoch=receipt.epoch)

    def _write_untold(self, receipts: Sequence[Receipt]) -> None:
        """Without a token a repeated delivery must not replace a file: each gets a name that is free."""
        log, binding = self._log, self.binding
        label = f"{self._owner}-untold-{file_name(binding.journal)}-{binding.incarnation}"
        for name, *_ in self._staged_files(receipts, "untold"):
            epochs = f"{receipts[0].epoch:020d}-{receipts[-1].epoch:020d}"
            for count in itertools.count():
                final = self._folder / f"{label}-{epochs}-{count:04d}{self._encoding.suffix}"
                if not final.exists() and publish_exclusive(log.staged / name, final, step="files.publish"):
                    break

    def _unavailable(self, error: Exception) -> SinkUnavailable:
        return SinkUnavailable(f"{self._label} cannot be written now.", found=str(error), sink=self.binding.sink)


def _parts_of(owner: str) -> Sequence[str]:
    """Flow, lane and sink from an owner's name; one that was cut stands for all three."""
    parts = [unquote(part) for part in owner.split(".")]
    return parts if len(parts) == len(("flow", "lane", "sink")) else [owner] * 3


def _handle_parts(binding: Binding, epoch: EpochNumber, seal: str) -> list[str]:
    return [f"{epoch:020d}", str(binding.incarnation), file_name(binding.journal), file_name(seal)]


def _handle_of(name: str) -> Handle | None:
    """The handle that a staged file's name says; None for files that commits make."""
    parts = name.split(".")
    if parts[0] == _JOINED or len(parts) < len(("epoch", "incarnation", "journal", "seal", "suffix", "staged")):
        return None
    epoch, incarnation, journal, seal = parts[:4]
    return Handle(
        unquote(journal),
        Incarnation(int(incarnation)),
        EpochNumber(int(epoch)),
        SealId(unquote(seal)),
        {"staged": name},
    )


def _is_outrun(name: str, journal: str, token: Token) -> bool:
    """Whether a file that a commit made can never be committed: its epochs are behind the token.

    What is ahead of the token stays: a commit that was begun may still land, and its entry would name it.
    """
    parts = name.split(".")
    return parts[0] == _JOINED and unquote(parts[3]) == journal and int(parts[1]) <= token.epoch


def _refuse_changes(last: Entry, binding: Binding, label: str) -> None:
    written = dict(last.columns)
    for column in binding.schema:
        if written.get(column.name, str(column.type)) != str(column.type):
            raise SchemaError(
                f"{label} already holds column {column.name} with another type.",
                found=written[column.name],
                expected=str(column.type),
                next_step="Write to another folder, or cast the column in select(…).",
                sink=binding.sink,
                column=column.name,
            )
