"""Delta Lake tables: a transactional sink.

The token is a few transaction identifiers of the table, written in the commit that adds the rows. deltalake does not
compare them: we do, and then commit on the same handle, so that whoever moved them meanwhile is a conflict. Every
opening and every commit writes one identifier more, so a commit that was begun before an opening is a conflict too.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from onefold.clock import SystemClock
from onefold.connectors.databases import last_of_each_key
from onefold.connectors.delta.committing import DELETES, Added, Moving, Refusal, append, merge
from onefold.connectors.delta.filing import NothingStaged, chunks, put, stage
from onefold.connectors.delta.location import Location, deltalake
from onefold.connectors.delta.maintenance import CHECKPOINT_EVERY, checkpointed, maintained
from onefold.connectors.delta.opening import examine, fence, make_or_check, together_refused
from onefold.connectors.delta.rows import refuse_rows
from onefold.connectors.delta.schema import kept_schema, refuse_key
from onefold.connectors.delta.table import Options, Table, names_in, nothing_written
from onefold.connectors.delta.tokens import Held, held_by
from onefold.connectors.spooling import (
    OP_COLUMN,
    SpooledSink,
    check_names,
    measured,
    refuse_token,
    rows_of,
    same_token,
    stored_schema,
)
from onefold.disk import durable_step
from onefold.errors import (
    DiskError,
    DiskFull,
    OnefoldError,
    OutcomeUnknown,
    SinkUnavailable,
    TokenRefused,
)
from onefold.protocols import CheckResult, Clock, Maintained, SinkPromise
from onefold.types import (
    Binding,
    CommitClass,
    EpochHead,
    EpochNumber,
    Guarantee,
    Handle,
    Receipt,
    SealId,
    Token,
    TokenMove,
)

__all__ = ["DeltaSink"]

NATIVE_BYTES = 8 << 20
"""Larger epochs become files of their own in the table's folder; smaller ones are spooled, and share a file."""

FILE_BYTES = 128 << 20
"""Of Arrow: a larger epoch becomes several files, so that no more than this is in memory."""

MERGE_TRIES = 5
"""A merge loses to whoever adds a file meanwhile: so often it is tried again at once."""

_JOINED = 1_000_000
"""Files that join spooled epochs are numbered from here on, by opening and place: no two instances share a name."""

LOG = logging.getLogger("onefold")


class DeltaSink(SpooledSink):
    """Append, upsert and deletes; of an upsert the last row of a key wins, and NULL is a key value like any other."""

    def __init__(self, location: Location, options: Options, *, clock: Clock | None = None) -> None:
        self._location = location
        self._options = options
        self._clock: Clock = clock or SystemClock()
        self._table: Table | None = None
        self._held = Held(None, 0, 0)
        self._failed: DiskError | None = None
        self._untold = 0
        self._checkpoint_from = 0

    @property
    def promise(self) -> SinkPromise:
        """Transactional, by transaction identifiers; appends that are staged hold until committed or aborted."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=self._location.target,
            deletes=True,
            can_prepare_together=self._options.mode == "append",
            rows_outlive_token=True,
            conditions=(
                "nobody else writes transaction identifiers that begin with onefold/",
                "nobody runs RESTORE on the table: it takes rows back and leaves the token (`onefold audit` shows it)",
                "the object store can make a file only if it is absent, as S3 can",
                "other writers of a table on a local disk sync the files with which they replace rows",
            ),
            conditions_together=(
                "the journal is neither copied nor restored while an epoch is staged: each sink by itself stays right",
                "the retention of whoever runs VACUUM is longer than the time from an epoch's prepare to its commit",
                "nobody changes the table's columns between the two",
            ),
        )

    @property
    def commit_every_seconds(self) -> float:
        """See Paced."""
        return self._options.commit_every_seconds

    @property
    def maintain_every_seconds(self) -> float | None:
        """See Maintain."""
        return self._options.maintain_every_seconds

    # -------------------------------------------------------------------------------------------------------- verbs

    def open(self, binding: Binding) -> Token | None:
        """Make or check the table, let no commit land that was begun before, and read the token.

        Raises SinkUnavailable, SinkRefused, SchemaError, TargetTaken, SettingMissing, ExtraMissing, DiskError. If
        killed inside: the table is there or not, its columns are added or not, earlier commits are fenced or not.
        """
        self._binding, self._table = binding, None
        if self._failed is not None:
            raise self._failed  # what the disk holds is not known, and asking it again would not tell
        label = self._location.label
        check_names(binding, label)
        if binding.is_together and binding.mode == "upsert":
            raise together_refused(label)
        deltalake()
        table = Table(self._location, binding, kept_schema(binding, label))
        refuse_key(binding, table.kept, label)
        with self._on_disk(), nothing_written(self._location, self.binding.sink):
            if table.local is not None:
                for name in table.local.mend():
                    LOG.warning("%s: %s was half written by a power cut, and is set aside", label, name)
            handle = make_or_check(table, self._options)
            if binding.guarantee is Guarantee.EXACTLY_ONCE:
                self._held = fence(table, handle)
            table.sync()
            if binding.mode == "append":
                table.area.make(self._through)
        self._table = table
        return self._held.token

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Stage a large epoch as files, synced; spool a small one. Under commit="together" always stage.

        If killed inside: staged files may be left, which `handles` lists. Raises DiskError, RowsRefused,
        SinkUnavailable.
        """
        is_large, rows = measured(batches, NATIVE_BYTES)
        if epoch.move is None and not (is_large and self._may_stage):
            return super().prepare(epoch, self._examined(rows))
        tables = chunks(rows, self.binding.schema, FILE_BYTES)
        try:
            return stage(self._opened(), epoch, tables)
        except NothingStaged as failed:
            if epoch.move is not None and failed.__cause__ is not None:
                raise failed.__cause__ from None
            rest = itertools.chain([failed.rows], tables)
            return super().prepare(epoch, (batch for table in rest for batch in table.to_batches()))

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Rows and token in one commit of the table, made on the handle that the token was read from."""
        table = self._opened()
        with self._on_disk():
            for tries_left in reversed(range(MERGE_TRIES)):
                handle = self._current(table, move)
                self._checkpoint(table, handle)
                try:
                    self._write(table, handle, receipts, move)
                    break
                except Refusal as error:
                    meaning = self._meaning(table, error, move)
                    if self.binding.mode == "append" or not tries_left or not isinstance(meaning, SinkUnavailable):
                        raise meaning from error
            table.sync()
        if move is not None:
            self._held = Held(move.new, 0, self._held.opened)

    def handles(self) -> Sequence[Handle]:
        """Staged files of epochs behind the token. Raises SinkUnavailable."""
        if self._table is None or self.binding.guarantee is not Guarantee.EXACTLY_ONCE:
            return []
        with nothing_written(self._location, self.binding.sink):
            return self._table.area.handles(self._through)

    def abort(self, handle: Handle) -> None:
        """Remove a staged file that no version of the table names."""
        table, path = self._opened(), str(handle.detail["path"])
        if handle.epoch > self._through:
            with nothing_written(self._location, self.binding.sink):
                if path not in names_in(table.load()):
                    table.area.remove(path)

    def close(self) -> None:
        """No connection is held, and rows may still be prepared."""

    def maintain(self, binding: Binding, *, is_dry: bool) -> Sequence[Maintained]:
        """Join small files, make a checkpoint, remove what no version within the retention names. See Maintain."""
        table = Table(self._location, binding, kept_schema(binding, self._location.label))
        with self._on_disk(), nothing_written(self._location, binding.sink):
            return maintained(table, self._options, is_dry=is_dry)

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token of one version; of a table that is not there, none. Raises SinkUnavailable."""
        schema = stored_schema(binding)
        table = Table(self._location, binding, kept_schema(binding, self._location.label))
        with nothing_written(self._location, binding.sink):
            handle = table.load()
            if handle is None:
                return schema.empty_table(), None
            return table.rows(handle).cast(schema), table.token(handle, held_by(handle, binding))

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Can the table be read, and does it take the rows? Writes nothing."""
        what = self._location.label
        try:
            with nothing_written(self._location, binding.sink if binding else None):
                kept = kept_schema(binding, what) if binding else pa.schema([])
                table = Table(self._location, binding, kept) if binding else None
                handle = table.load() if table else None
                if table is not None and handle is not None:
                    examine(table, handle, self._options)
        except OnefoldError as error:
            return [CheckResult(what, "failed", str(error.found or error.summary), error.next_step or "")]
        if handle is not None or table is None:
            return [CheckResult(what, "ok", f"is there, at version {handle.version()}" if handle else "not asked")]
        if self._options.create:
            return [CheckResult(what, "ok", "will be made")]
        return [CheckResult(what, "failed", "there is no such table", "Make it, or say create=True.")]

    # -------------------------------------------------------------------------------------------------------- inner

    @property
    def _through(self) -> EpochNumber:
        return self._held.token.epoch if self._held.token else EpochNumber(0)

    @property
    def _may_stage(self) -> bool:
        """Without a token nobody could tell staged files that are committed from those that wait."""
        binding = self.binding
        is_exact = binding.guarantee is Guarantee.EXACTLY_ONCE
        return self._table is not None and is_exact and binding.mode == "append"

    def _opened(self) -> Table:
        if self._table is None:
            raise SinkUnavailable(f"{self._location.label} is to be opened again.", sink=self.binding.sink)
        return self._table

    def _current(self, table: Table, move: TokenMove | None) -> Any:
        """A handle that holds the expected token. Raises TokenRefused, SinkUnavailable."""
        with nothing_written(self._location, self.binding.sink):
            handle = table.load()
            if handle is None:
                raise SinkUnavailable(f"{self._location.label} is gone.", sink=self.binding.sink)
            if move is not None:
                self._demand(held_by(handle, self.binding), move)
        return handle

    def _checkpoint(self, table: Table, handle: Any) -> None:
        """Before the commit, so that its own outcome does not depend on it. One that fails is tried again later."""
        if handle.version() < self._checkpoint_from:
            return
        try:
            with nothing_written(self._location, self.binding.sink):
                list(checkpointed(table, handle))
        except SinkUnavailable as error:
            LOG.warning("%s: no checkpoint was made: %s", self._location.label, error.found)
        self._checkpoint_from = handle.version() + CHECKPOINT_EVERY

    def _demand(self, found: Held, move: TokenMove) -> None:
        if not same_token(found.token, move.expected):
            raise refuse_token(self.binding, found.token, move.expected)
        if found.opened != self._held.opened:
            raise TokenRefused(
                f"Sink {self.binding.sink} was opened by another instance.",
                found=f"opening {found.opened}",
                expected=f"opening {self._held.opened}",
                flow=self.binding.flow,
                sink=self.binding.sink,
            )

    def _write(self, table: Table, handle: Any, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        moving = Moving(move, self._held.opened)
        if self.binding.mode == "upsert":
            rows = self._changes(table, receipts)
            if move is not None or rows.num_rows:
                with durable_step("delta.commit"):
                    merge(table, handle, rows, moving)
            return
        added = list(self._files_of(table, receipts, move))
        if move is not None or added:
            with durable_step("delta.commit"):
                append(table, handle, added, moving, now_ms=int(self._clock.now() * 1000))

    def _changes(self, table: Table, receipts: Sequence[Receipt]) -> pa.Table:
        """What is to be merged: one row a key."""
        rows = last_of_each_key(rows_of(self.binding, receipts), self.binding.key)
        deletes = pa.repeat(pa.scalar(False), rows.num_rows)
        if OP_COLUMN in rows.schema.names:
            deletes = pc.fill_null(pc.equal(rows.column(OP_COLUMN), "delete"), False)
        kept = rows.select(table.kept.names).cast(table.kept)
        refuse_rows(kept, table.partitions, table.required, sink=self.binding.sink)
        return kept.append_column(DELETES, deletes)

    def _files_of(self, table: Table, receipts: Sequence[Receipt], move: TokenMove | None) -> Iterator[Added]:
        """Staged files, demanded, and one for all neighbours from the spool."""
        for kind, group in itertools.groupby(receipts, key=lambda receipt: receipt.kind):
            together = list(group)
            if kind == "native":
                for receipt in together:
                    for path, size, partition, statistics in receipt.detail["files"]:
                        with nothing_written(self._location, self.binding.sink):
                            table.area.demand(path, size, receipt.epoch)
                        if statistics:
                            yield Added(path, size, partition, statistics)
                continue
            last = together[-1].epoch
            seal = move.new.seal if move else SealId("untold")
            rows = rows_of(self.binding, together)
            with self._disk_is_no_failure():
                yield from put(table, last, seal, rows, self._first_number(move), is_joined=True)

    def _first_number(self, move: TokenMove | None) -> int:
        """Numbers of joined files: no two instances share one, nor do two attempts where repetition may show."""
        if move is None:
            self._untold += 1
        return _JOINED * (self._held.opened + 1 if move else self._untold)

    def _examined(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """What the table does not take is told before it is sealed."""
        for batch in batches:
            if self._table is not None and (self._table.required or self._table.partitions):
                rows = pa.Table.from_batches([batch])
                refuse_rows(rows, self._table.partitions, self._table.required, sink=self.binding.sink)
            yield batch

    def _meaning(self, table: Table, refusal: Refusal, move: TokenMove | None) -> OnefoldError:
        """What a conflict was with. Our own commit is one, too, when its request came twice."""
        sink = self.binding.sink
        if move is not None:
            try:
                with nothing_written(self._location, self.binding.sink):
                    handle = table.load()
                found = held_by(handle, self.binding) if handle is not None else Held(None, 0, 0)
                if same_token(found.token, move.new):
                    return OutcomeUnknown(f"{self._location.label} has the commit already.", sink=sink)
                self._demand(found, move)
            except SinkUnavailable as error:
                return OutcomeUnknown(f"{self._location.label} cannot be read.", found=error.found, sink=sink)
            except TokenRefused as error:
                return error
        return SinkUnavailable(f"{self._location.label} was changed meanwhile.", found=str(refusal), sink=sink)

    @contextlib.contextmanager
    def _disk_is_no_failure(self) -> Iterator[None]:
        """A disk that is full before the commit: nothing is written, and later there may be room."""
        try:
            yield
        except DiskFull as error:
            raise SinkUnavailable(
                f"{self._location.label} cannot be written now.", found=error.summary, sink=self.binding.sink
            ) from error

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        """A failed sync is never tried again: this instance does not open the table any more."""
        try:
            yield
        except DiskError as error:
            self._failed = error
            raise
