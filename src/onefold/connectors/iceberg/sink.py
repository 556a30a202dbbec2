"""Tables of Apache Iceberg: a transactional sink.

Rows and token are one commit of the catalog (commits.py). An instance that opens the table makes a snapshot first, so
that whatever an earlier one has under way is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

from onefold.clock import SystemClock
from onefold.connectors.iceberg.commits import Place, commit, load
from onefold.connectors.iceberg.contents import Contents, append_to
from onefold.connectors.iceberg.endpoint import IcebergTable
from onefold.connectors.iceberg.failure import nothing_written
from onefold.connectors.iceberg.maintenance import maintain_table
from onefold.connectors.iceberg.owners import opened_by, opening, others, owner_of, token_in, token_properties
from onefold.connectors.iceberg.reading import read_rows
from onefold.connectors.iceberg.staged import area_of, stage
from onefold.connectors.iceberg.tables import find_or_make, fit
from onefold.connectors.iceberg.types import stored_rows, stored_types
from onefold.connectors.spooling import (
    SpooledSink,
    check_names,
    measured,
    refuse_taken,
    refuse_token,
    same_token,
    stored_schema,
)
from onefold.errors import OnefoldError, SinkUnavailable, TokenRefused
from onefold.protocols import CheckResult, Maintained, SinkPromise
from onefold.types import (
    Binding,
    CommitClass,
    EpochHead,
    EpochNumber,
    Guarantee,
    Handle,
    Mode,
    Receipt,
    Token,
    TokenMove,
)

__all__ = ["IcebergSink"]

NATIVE_BYTES = 8 << 20
"""Larger epochs are staged as files of the table; smaller ones are spooled, so that several share one file."""


class IcebergSink(SpooledSink):
    """Append, upsert by copy on write, and deletes; NULL is a key value like any other."""

    def __init__(self, endpoint: IcebergTable, mode: Mode) -> None:
        self._endpoint = endpoint
        self._mode = mode
        self._place: Place | None = None
        self._table: Any = None
        self._stored: pa.Schema | None = None
        self._opening: int | None = None

    @property
    def promise(self) -> SinkPromise:
        """Transactional; staged files of appends hold until they are committed or aborted."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=f"iceberg:{self._endpoint.catalog.target}:{'.'.join(self._endpoint.names)}",
            deletes=True,
            can_prepare_together=self._mode == "append",
            conditions=(
                "the catalog compares a commit's requirements and swaps the table's metadata in one step, and keeps it",
                "nobody changes the table's properties that begin with onefold, or rolls the table back, while it runs",
            ),
            conditions_together=(
                "the journal is neither copied nor restored while an epoch is staged: each sink by itself stays right",
                "others who remove files that no snapshot names leave those below the folder onefold for long enough",
            ),
        )

    @property
    def commit_every_seconds(self) -> float:
        """See Paced."""
        return self._endpoint.upkeep.commit_every_seconds

    def open(self, binding: Binding) -> Token | None:
        """Find or make the table, make a snapshot that refuses whatever is under way, and read the token from it.

        Raises SinkUnavailable, SinkRefused, SettingMissing; TargetTaken when others write to the table; SchemaError
        when it cannot take the rows. If killed inside: the table is there or not, the snapshot as well.
        """
        self.close()
        self._binding = binding
        label = self._endpoint.label
        stored = stored_types(binding, label)
        check_names(binding, label)
        with nothing_written(label, binding.sink):
            catalog = self._endpoint.catalog.connect()
            table = find_or_make(catalog, self._endpoint, binding, stored)
            refuse_taken(binding, label, others(table, binding))
            table = fit(table, self._endpoint, binding, stored)
            area_of(table, binding)
        place = Place(catalog, self._endpoint.names, label, binding.sink)
        if binding.guarantee is Guarantee.EXACTLY_ONCE:
            table = commit(place, self._demand_free, self._open_table)
            self._opening = opened_by(table, binding)
        self._place, self._table, self._stored = place, table, stored
        return token_in(table, binding)

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Stage a large epoch as files of the table; spool a small one. Under commit="together" always stage.

        Upserts are spooled: what they replace is known only when they are committed. So are rows without a token: a
        file must not be added twice. If killed inside: staged files may be left, which `handles` lists.
        """
        binding, table, stored = self.binding, self._table, self._stored
        if epoch.move is not None and (table is None or stored is None):
            raise SinkUnavailable(f"{self._endpoint.label} is not open.", sink=binding.sink)
        if table is None or stored is None or self._mode == "upsert" or self._opening is None:
            return super().prepare(epoch, batches)
        is_large, rows = measured(batches, NATIVE_BYTES)
        if epoch.move is None and not is_large:
            return super().prepare(epoch, rows)
        taken = pa.Table.from_batches(rows, binding.schema)
        with nothing_written(self._endpoint.label, binding.sink, tells_disk=True):
            return stage(table, binding, epoch, stored_rows(taken, stored))

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Rows and token in one snapshot. With nothing to write, the token moves in a snapshot without files."""
        if move is None and not any(receipt.rows for receipt in receipts):
            return
        place, stored = self._opened()
        contents = Contents(self.binding, receipts, stored)
        self._table = commit(place, partial(self._demand_token, move), partial(self._put, contents, move))

    def handles(self) -> Sequence[Handle]:
        """Staged files of epochs after the token."""
        place, _ = self._opened()
        with nothing_written(place.label, place.sink):
            return area_of(self._table, self.binding).handles(self._done(self._table))

    def abort(self, handle: Handle) -> None:
        """Remove a staged file, unless the token has passed its epoch."""
        place, _ = self._opened()
        table = load(place)
        if handle.epoch > self._done(table):
            with nothing_written(place.label, place.sink):
                area_of(table, self.binding).remove(str(handle.detail["path"]))

    def close(self) -> None:
        """Let go of the catalog."""
        self._place, self._opening = None, None

    @property
    def maintain_every_seconds(self) -> float | None:
        """See Maintain."""
        return self._endpoint.upkeep.maintain_every_seconds

    def maintain(self, binding: Binding, *, is_dry: bool) -> Sequence[Maintained]:
        """Expire snapshots that are older than the retention, and remove what nothing names any more."""
        with nothing_written(self._endpoint.label, binding.sink):
            try:
                table = self._endpoint.catalog.connect().load_table(self._endpoint.names)
            except (NoSuchTableError, NoSuchNamespaceError):
                return ()
            before = SystemClock().now() - self._endpoint.upkeep.retention_seconds
            return maintain_table(table, binding, before=before, is_dry=is_dry)

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token, of one snapshot; of a table that is not there, none. Raises SinkUnavailable."""
        with nothing_written(self._endpoint.label, binding.sink):
            try:
                table = self._endpoint.catalog.connect().load_table(self._endpoint.names)
            except (NoSuchTableError, NoSuchNamespaceError):
                return stored_schema(binding).empty_table(), None
            return read_rows(table, stored_schema(binding)), token_in(table, binding)

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Does the catalog answer, and does the table take the rows? Writes nothing."""
        what = self._endpoint.label
        sink = binding.sink if binding else ""
        try:
            file = self._endpoint.catalog.file
            if file is not None and not file.exists():
                is_there = file.parent.is_dir()
                step = "" if is_there else f"Make the folder {file.parent}."
                return [CheckResult(what, "ok" if is_there else "failed", "the catalog will be made", step)]
            with nothing_written(what, sink):
                return [self._look(binding)]
        except OnefoldError as error:
            return [CheckResult(what, "failed", str(error.found or error.summary), error.next_step or "")]

    # ------------------------------------------------------------------------------------------------------- inner

    def _look(self, binding: Binding | None) -> CheckResult:
        what = self._endpoint.label
        catalog = self._endpoint.catalog.connect(is_look=True)
        try:
            table = catalog.load_table(self._endpoint.names)
        except (NoSuchTableError, NoSuchNamespaceError):
            if self._endpoint.making.creates:
                return CheckResult(what, "ok", "will be made")
            return CheckResult(what, "failed", "there is no such table", "Make it, or say create=True.")
        if binding is not None and not self._endpoint.making.evolves:
            fit(table, self._endpoint, binding, stored_types(binding, what))
        return CheckResult(what, "ok", "is there")

    def _opened(self) -> tuple[Place, pa.Schema]:
        if self._place is None or self._stored is None:
            raise SinkUnavailable(f"{self._endpoint.label} is not open.", sink=self.binding.sink)
        return self._place, self._stored

    def _done(self, table: Any) -> EpochNumber:
        token = token_in(table, self.binding)
        return token.epoch if token else EpochNumber(0)

    def _demand_free(self, table: Any) -> None:
        refuse_taken(self.binding, self._endpoint.label, others(table, self.binding))

    def _open_table(self, table: Any, transaction: Any) -> int:
        """A snapshot without rows: every commit that was begun on an earlier one is refused from now on."""
        summary = {"onefold.opened": owner_of(self.binding)}
        snapshot = append_to(table, transaction, summary, lambda _: [])
        transaction.set_properties(opening(self.binding, snapshot))
        return snapshot

    def _demand_token(self, move: TokenMove | None, table: Any) -> None:
        """Raise TokenRefused unless nobody has opened the table since we did, and the token is the expected one."""
        if move is None:
            return
        found = token_in(table, self.binding)
        if not same_token(found, move.expected):
            raise refuse_token(self.binding, found, move.expected)
        if opened_by(table, self.binding) != self._opening:
            raise TokenRefused(
                f"Another instance has opened {self._endpoint.label}.",
                found=f"opened in snapshot {opened_by(table, self.binding)}",
                expected=f"opened in snapshot {self._opening}",
                flow=self.binding.flow,
                sink=self.binding.sink,
            )

    def _put(self, contents: Contents, move: TokenMove | None, table: Any, transaction: Any) -> int:
        summary = {}
        if move is not None:
            transaction.set_properties(token_properties(self.binding, move.new))
            summary = {
                "onefold.owner": owner_of(self.binding),
                "onefold.epoch": str(move.new.epoch),
                "onefold.seal": move.new.seal,
            }
        return contents.put(table, transaction, summary)
