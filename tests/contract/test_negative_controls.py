"""The suites catch sinks and sources that break their promise: each safeguard removed once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from onefold.connectors.files import FilesSink, FilesSource, files
from onefold.connectors.files.encoding import encoding_named
from onefold.connectors.files.log import CommitLog, Entry
from onefold.connectors.sqlite import SqliteSink
from onefold.protocols import Limit, Read, Sink, Source
from onefold.testing.contracts import (
    ContractBroken,
    SinkCase,
    SourceCase,
    sink_contracts,
    source_contracts,
)
from onefold.types import Binding, PartitionId, Position, Receipt, Token, TokenMove
from tests.contract.cases import SOURCES


class TokenAfterRows(SqliteSink):
    """Rows in one transaction, the token in the next."""

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        if move is not None:
            super().commit([], replace(move, new=move.expected) if move.expected else None)  # compares
        super().commit(receipts, None)
        if move is not None:
            super().commit([], move)


class TokenBeforeRows(SqliteSink):
    """The token in one transaction, rows in the next."""

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        if move is not None:
            super().commit([], move)
        super().commit(receipts, None)


class NoComparison(SqliteSink):
    """Sets the token without looking at it."""

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        found = self.open(self.binding)
        super().commit(receipts, None if move is None else TokenMove(found, move.new))


class EpochsOnly(SqliteSink):
    """Compares epoch numbers, not seals."""

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        found = self.open(self.binding)
        if move is not None and found is not None and move.expected is not None and found.epoch == move.expected.epoch:
            move = TokenMove(found, move.new)
        super().commit(receipts, move)


class OneTokenForAll(SqliteSink):
    """Forgets that several sinks may share a target."""

    def open(self, binding: Binding) -> Token | None:
        return super().open(replace(binding, sink="the sink"))


class OpenToAll(SqliteSink):
    """Lets every flow write to a table that has another's token."""

    def open(self, binding: Binding) -> Token | None:
        return super().open(replace(binding, is_shared=True))


class ForgetsItsTarget(SqliteSink):
    """Keeps tokens that do not say which table they belong to."""

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        super().commit(receipts, move)
        with contextlib.closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("UPDATE _onefold_tokens SET target = NULL")


class RowsFromMemory(SqliteSink):
    """Keeps what it prepared in its own memory, beside a receipt that says little."""

    prepared: dict[int, Receipt]

    def prepare(self, epoch: object, batches: Iterable[pa.RecordBatch]) -> Receipt:
        receipt = super().prepare(epoch, batches)  # type: ignore[arg-type]
        self.prepared = {**getattr(self, "prepared", {}), receipt.epoch: receipt}
        return replace(receipt, detail={}, inline=None)

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        mine = getattr(self, "prepared", {})
        super().commit([mine[receipt.epoch] for receipt in receipts if receipt.epoch in mine], move)


class LosesDecimals(SqliteSink):
    """Keeps decimals as floating point numbers."""

    def _write(self, connection: sqlite3.Connection, rows: pa.Table) -> None:
        kinds = [pa.float64() if pa.types.is_decimal(column.type) else column.type for column in rows.schema]
        rounded = rows.cast(pa.schema(zip(rows.schema.names, kinds, strict=True)))
        super()._write(connection, rounded.cast(rows.schema, safe=False))


class Overwrites(FilesSink):
    """Publishes its entry over the one that is there."""

    @property
    def _log(self) -> CommitLog:
        class Replacing(CommitLog):
            def append(self, entry: Entry) -> bool:
                self._path(entry.number).unlink(missing_ok=True)
                return super().append(entry)

        return Replacing(self._folder, self._owner)


class RenamesFirst(FilesSink):
    """Gives files their names before the log has an entry."""

    @property
    def _log(self) -> CommitLog:
        class Eager(CommitLog):
            def append(self, entry: Entry) -> bool:
                self.finish(entry)
                return super().append(entry)

        return Eager(self._folder, self._owner)


class ForgetsRenames(FilesSink):
    """Does not finish what a killed instance left."""

    def open(self, binding: Binding) -> Token | None:
        self._binding = binding
        self._log.make()
        last = self._log.last()
        return last.new if last else None

    def _files_of(self, log: CommitLog, last: Entry | None) -> list[Path]:
        return [path for path in super()._files_of(log, last) if path.parent == self._folder]


def _sqlite(kind: type[SqliteSink]) -> SinkCase:
    def make(folder: Path, table: str, mode: object, key: tuple[str, ...]) -> Sink:
        return kind(str(folder / "target.sqlite"), table)

    return SinkCase(kind.__name__, make)


def _folder(kind: type[FilesSink]) -> SinkCase:
    def make(folder: Path, table: str, mode: object, key: tuple[str, ...]) -> Sink:
        return kind(str(folder / "lake" / table), encoding_named("parquet", "test"))

    return SinkCase(kind.__name__, make)


BROKEN = [
    (_sqlite(TokenAfterRows), "rows_and_token_are_one_under_a_kill-append"),
    (_sqlite(TokenBeforeRows), "rows_and_token_are_one_under_a_kill-append"),
    (_sqlite(NoComparison), "a_refused_move_leaves_nothing-append"),
    (_sqlite(NoComparison), "a_zombie_is_refused-append"),
    (_sqlite(EpochsOnly), "a_refused_move_leaves_nothing-append"),
    (_sqlite(OneTokenForAll), "sinks_of_one_target_have_tokens_of_their_own-append"),
    (_sqlite(OpenToAll), "a_target_of_another_flow_is_refused_unless_shared-append"),
    (_sqlite(ForgetsItsTarget), "a_target_of_another_flow_is_refused_unless_shared-append"),
    (_sqlite(RowsFromMemory), "a_receipt_is_enough_on_another_instance-append"),
    (_sqlite(LosesDecimals), "values_are_exact_or_the_type_is_refused-append"),
    (_folder(Overwrites), "a_rival_at_any_moment_leaves_one_winner-append"),
    (_folder(RenamesFirst), "rows_and_token_are_one_under_a_kill-append"),
    (_folder(ForgetsRenames), "rows_and_token_are_one_under_a_kill-append"),
]


@pytest.mark.parametrize(("case", "name"), BROKEN, ids=lambda part: getattr(part, "name", part))
def test_the_suite_catches(case: SinkCase, name: str, tmp_path: Path) -> None:
    [contract] = [contract for contract in sink_contracts(case) if contract.name == name]
    with pytest.raises(ContractBroken):
        contract.run(tmp_path)


class ForgetsTheFile(FilesSource):
    """Hands out no memory, so that a restart admits files in another order."""

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        return replace(super().read(partition, start, limit, wait_seconds), remember=None)


class Skips(FilesSource):
    """Moves one record too far."""

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        read = super().read(partition, start, limit, wait_seconds)
        return replace(read, batches=[batch.slice(1) for batch in read.batches])


class NeverIdle(FilesSource):
    """Does not say that it is drained."""

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        return replace(super().read(partition, start, limit, 0.0), is_idle=False)


def _source(kind: type[FilesSource]) -> SourceCase:
    def make(folder: Path) -> Source:
        made = files(folder / "*.jsonl", complete="rename").as_source(None)
        return kind(made._text, made._kind, completeness=made._completeness, options=made._options)

    whole: SourceCase = next(case for case in SOURCES if case.name == "files-new")
    return replace(whole, name=kind.__name__, make=make)


BROKEN_SOURCES: list[tuple[type[FilesSource], str]] = [
    (ForgetsTheFile, "every_position_can_be_read_again"),
    (Skips, "all_input_comes_once_in_order"),
    (NeverIdle, "an_empty_source_is_idle"),
]


@pytest.mark.parametrize(("kind", "name"), BROKEN_SOURCES)
def test_the_suite_catches_a_source(kind: type[FilesSource], name: str, tmp_path: Path) -> None:
    [contract] = [contract for contract in source_contracts(_source(kind)) if contract.name == name]
    with pytest.raises(ContractBroken):
        contract.run(tmp_path)
