"""Tables in a DuckDB file: a transactional sink.

The token stands in the table `_onefold_tokens` of the same file and moves in the transaction that writes the rows. The
file is opened for each delivery and closed after it, because DuckDB lets no other process in while it is open for
writing. Checkpoints are taken with a safety net (`checkpoint`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from onefold.clock import new_seal_id
from onefold.connectors.duckdb.checkpoint import DUE_BYTES, checkpoint_if_due, mend, only_when_asked
from onefold.connectors.duckdb.tables import (
    TableName,
    demand_table,
    ensure_table,
    ensure_tokens,
    is_gone,
    move_token,
    others,
    quoted,
    read_token,
    refuse_inexact,
    write,
)
from onefold.connectors.spooling import (
    SpooledSink,
    check_names,
    file_failure,
    refuse_gone,
    refuse_taken,
    refusing_changes,
    resolved_path,
    rows_of,
    stored_schema,
    target_path,
)
from onefold.disk import durable_step, publish, publish_exclusive, sync_path
from onefold.errors import (
    OnefoldError,
    OutcomeUnknown,
    RowsRefused,
    SinkRefused,
    SinkUnavailable,
)
from onefold.protocols import CheckResult, SinkPromise
from onefold.types import Binding, CommitClass, Receipt, Token, TokenMove

__all__ = ["DuckdbSink"]

LOCK_SECONDS = 60.0
"""How long a delivery waits for another sink of this process that writes to the same file."""

_FOREIGN = ("not a valid DuckDB database", "database file with version number")
"""How DuckDB says that no later try will open a file."""

_HOPELESS = {
    "Corrupt database file": ("is damaged", "Restore it and its log (.wal) from one backup, or name another file"),
    "WAL does not match": (
        "has the log of another database beside it (.wal)",
        "Remove the log if its database is gone",
    ),
    "WAL checkpoint iteration": (
        "and its log (.wal) are not of one time",
        "Restore both from one backup; remove the log if what is in it can be done without",
    ),
}
"""What DuckDB says of files that no later try will open, what it means, what to do."""

_ROWS_AT_FAULT = (duckdb.DataError, duckdb.IntegrityError)

_locks: dict[str, threading.Lock] = {}
_locks_guard = threading.Lock()


class DuckdbSink(SpooledSink):
    """Append, upsert and deletes; keys are matched with IS NOT DISTINCT FROM, so NULL is a key value like any other."""

    def __init__(self, path: str, table: str, schema: str = "main") -> None:
        self._text = path
        self._table = TableName(schema, table, f"duckdb({path}).{table}")

    @property
    def promise(self) -> SinkPromise:
        """Transactional."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=f"duckdb:{target_path(self._text)}:{self._table.schema}.{self._table.name}",
            deletes=True,
            conditions=("no other process holds the file open for writing for longer than the sink may lag",),
        )

    def open(self, binding: Binding) -> Token | None:
        """Make or check the tables, and read the token.

        Raises SinkRefused when the file is missing its folder, is no database or is read-only; SinkUnavailable when
        another process holds it; TargetTaken when others write to the table; SchemaError when it has other columns. If
        killed inside: both tables are there or neither is.
        """
        self._binding = binding
        check_names(binding, self._table.label)
        for column in binding.schema:
            refuse_inexact(column.type, column.name, self._table.label)
        with self._connected(is_made=True) as connection, self._nothing_written():
            connection.begin()
            ensure_tokens(connection)
            refuse_taken(binding, self._table.label, others(connection, self._table, binding))
            if is_gone(connection, self._table, binding):
                refuse_gone(binding, self._table.label)
            if self._table.schema != "main":
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(self._table.schema)}")
            ensure_table(connection, self._table, binding)
            with durable_step("duckdb.create"):
                connection.commit()
            return read_token(connection, binding)

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Rows and token in one transaction; durable (DuckDB syncs its log) when it returns."""
        binding = self.binding
        rows = rows_of(binding, receipts)
        if move is None and not rows.num_rows:
            return
        with self._connected() as connection:
            with self._nothing_written():
                connection.begin()
                if move is not None:
                    move_token(connection, self._table, binding, move)
                if rows.num_rows:
                    with refusing_changes(self._table.label, binding):
                        demand_table(connection, self._table, binding)
                    write(connection, self._table, binding, rows)
            with durable_step("duckdb.commit"):
                self._finish(connection)

    def close(self) -> None:
        """Leave a file that stands alone, without a log beside it."""
        if self._binding is not None and self._path.with_name(f"{self._path.name}.wal").exists():
            with contextlib.suppress(OnefoldError), self._connected(due_bytes=0):
                pass

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token in one snapshot. Raises SinkUnavailable."""
        self._binding = binding
        if not self._path.exists():
            raise SinkUnavailable(f"{self._table.label} does not exist.", sink=binding.sink)
        with self._connected(read_only=True) as connection, self._nothing_written():
            connection.begin()
            schema = stored_schema(binding)
            columns = ", ".join(quoted(name) for name in schema.names)
            rows = connection.sql(f"SELECT {columns} FROM {self._table.qualified}").to_arrow_table()
            token = read_token(connection, binding)
            connection.rollback()
            return rows.cast(schema), token

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Can the file be opened? Opens an existing one read-only, after `mend`; looks at the folder otherwise."""
        if not self._path.exists():
            is_there = self._path.parent.is_dir()
            return [
                CheckResult(
                    f"folder {self._path.parent}",
                    "ok" if is_there else "failed",
                    "" if is_there else "missing",
                    "" if is_there else "Make the folder.",
                )
            ]
        try:
            with self._connected(read_only=True):
                return [CheckResult(f"file {self._path}", "ok", "opens")]
        except (SinkRefused, SinkUnavailable) as error:
            return [CheckResult(f"file {self._path}", "failed", str(error.found), error.next_step)]

    @property
    def _path(self) -> Path:
        return resolved_path(self._text)

    @contextlib.contextmanager
    def _connected(
        self, *, read_only: bool = False, is_made: bool = False, due_bytes: int = DUE_BYTES
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file, open for this block only; one block at a time in this process. is_made: if it is not there."""
        path = self._path
        with _only_one(path, self._table.label), contextlib.ExitStack() as opened:
            try:
                if is_made:
                    _make_whole(path)
                if not path.exists():
                    raise SinkUnavailable(f"{self._table.label} does not exist any more.", sink=self.binding.sink)
                mend(path)
                file = opened.enter_context(path.open("rb"))
                connection = duckdb.connect(str(path), read_only=read_only)
                opened.callback(_close, connection)
                connection.execute("SET enable_progress_bar = false")  # it would go to standard output
                only_when_asked(connection)
            except (duckdb.Error, OSError) as error:
                raise self._unavailable(error) from error
            yield connection
            if not read_only:
                checkpoint_if_due(connection, path, file, due_bytes=due_bytes)

    @contextlib.contextmanager
    def _nothing_written(self) -> Iterator[None]:
        """Before the commit every failure leaves the file as it was: DuckDB forgets an unfinished transaction."""
        try:
            yield
        except _ROWS_AT_FAULT as error:
            raise RowsRefused(
                f"{self._table.label} refuses rows.", found=_first_line(error), sink=self.binding.sink
            ) from error
        except duckdb.Error as error:
            raise self._unavailable(error) from error

    def _finish(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            connection.commit()
        except duckdb.TransactionException as error:  # lost to another connection of this process: rolled back
            raise self._unavailable(error) from error
        except _ROWS_AT_FAULT as error:
            raise RowsRefused(
                f"{self._table.label} refuses rows.", found=_first_line(error), sink=self.binding.sink
            ) from error
        except duckdb.Error as error:
            raise OutcomeUnknown(
                f"{self._table.label} did not answer a commit.", found=_first_line(error), sink=self.binding.sink
            ) from error

    def _unavailable(self, error: duckdb.Error | OSError) -> SinkRefused | SinkUnavailable:
        sink, found = self._binding.sink if self._binding else None, _first_line(error)
        for sign, (why, next_step) in _HOPELESS.items():
            if sign in found:
                summary = f"{self._table.label} cannot be written: {self._path} {why}."
                return SinkRefused(summary, found=found, next_step=f"{next_step}, then run again.", sink=sink)
        is_foreign = any(sign in found for sign in _FOREIGN)
        return file_failure(self._path, self._table.label, found, sink=sink, is_foreign=is_foreign)


@contextlib.contextmanager
def _only_one(path: Path, label: str) -> Iterator[None]:
    with _locks_guard:
        lock = _locks.setdefault(str(path.resolve()), threading.Lock())
    if not lock.acquire(timeout=LOCK_SECONDS):
        raise SinkUnavailable(f"{label} is busy with another sink of this process.", found=f"{LOCK_SECONDS} s waited")
    try:
        yield
    finally:
        lock.release()


def _close(connection: duckdb.DuckDBPyConnection) -> None:
    with durable_step("duckdb.close"):
        connection.close()


def _make_whole(path: Path) -> None:
    """An empty database, wholly or not at all: killed while it makes one, DuckDB leaves a file that it then refuses."""
    if path.exists() and path.stat().st_size:
        return
    made = path.with_name(f".{path.name}.{new_seal_id()}.new")  # another process may be making one as well
    with durable_step("duckdb.make"):
        duckdb.connect(str(made)).close()
        sync_path(made)
    if path.exists() and not path.stat().st_size:
        publish(made, path, step="duckdb.publish")
    else:
        publish_exclusive(made, path, step="duckdb.publish")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
