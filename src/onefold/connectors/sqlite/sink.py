"""Tables in a SQLite file: a transactional sink."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.spooling import (
    OP_COLUMN,
    SpooledSink,
    check_names,
    file_failure,
    refuse_gone,
    refuse_taken,
    refuse_token,
    refuse_view,
    refusing_changes,
    resolved_path,
    rows_of,
    same_token,
    stored_schema,
    target_path,
)
from onefold.connectors.sqlite.values import affinity, columns_of, declared_type, from_sqlite
from onefold.disk import durable_step
from onefold.errors import OutcomeUnknown, RowsRefused, SchemaError, SinkRefused, SinkUnavailable
from onefold.protocols import CheckResult, SinkPromise
from onefold.types import Binding, CommitClass, EpochNumber, Receipt, SealId, Token, TokenMove

__all__ = ["SqliteSink", "quoted"]

BUSY_SECONDS = 5.0
"""How long a delivery waits for another writer before the sink counts as unavailable."""

CACHE_BYTES = 64 << 20
"""Pages of the file that a delivery keeps: keys of an upsert lie all over its index."""

_TOKENS = '"_onefold_tokens"'
_CREATE_TOKENS = f"""
    CREATE TABLE IF NOT EXISTS {_TOKENS} (
        flow TEXT NOT NULL, lane TEXT NOT NULL, sink TEXT NOT NULL,
        epoch INTEGER NOT NULL, seal TEXT NOT NULL, ends TEXT NOT NULL, target TEXT,
        PRIMARY KEY (flow, lane, sink))
"""


class SqliteSink(SpooledSink):
    """Append, upsert and deletes; keys are matched with IS and COLLATE BINARY, so NULL is a key value like any other.

    An upsert deletes the old row and inserts the new one. An index on the key is made when the sink is opened.
    The journal mode is left as it is; commits are synced in every mode (synchronous=EXTRA).
    """

    def __init__(self, path: str, table: str) -> None:
        self._text = path
        self._table = table

    @property
    def promise(self) -> SinkPromise:
        """Transactional."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=f"sqlite:{target_path(self._text)}:{self._table}",
            deletes=True,
            conditions=(
                "the file is on a local file system with working locks",
                "decimals, dates and times are kept as text, exactly",
            ),
        )

    def open(self, binding: Binding) -> Token | None:
        """Make or check the tables, and read the token.

        Raises SinkRefused when the folder is missing, the file is no database or read-only; SinkUnavailable when it is
        locked; TargetTaken when others write to the table; SchemaError when it has other columns. If killed inside:
        the tables are there or not.
        """
        self._binding = binding
        check_names(binding, self._label)
        declared = self._declared()
        with self._connected() as connection, self._nothing_written():
            connection.execute("BEGIN IMMEDIATE")
            _ensure_tokens(connection)
            refuse_taken(binding, self._label, _others(connection, self._table, binding))
            if _is_gone(connection, self._table, binding):
                refuse_gone(binding, self._label)
            self._ensure_table(connection, declared)
            with durable_step("sqlite.create"):
                connection.execute("COMMIT")
            return _read_token(connection, binding)

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Rows and token in one transaction, synced when it returns."""
        binding = self.binding
        rows = rows_of(binding, receipts)
        if move is None and not rows.num_rows:
            return
        with self._connected() as connection:
            with self._nothing_written():
                connection.execute("BEGIN IMMEDIATE")
                if move is not None:
                    _move_token(connection, self._table, binding, move)
                if rows.num_rows:
                    self._write(connection, rows)
            with durable_step("sqlite.commit"):
                self._finish(connection)

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token in one read transaction. Raises SinkUnavailable."""
        self._binding = binding
        if not self._path.exists():
            raise SinkUnavailable(f"{self._label} does not exist.", sink=binding.sink)
        schema = stored_schema(binding)
        columns = ", ".join(quoted(name) for name in schema.names)
        with self._connected() as connection, self._nothing_written():
            connection.execute("BEGIN")
            rows = connection.execute(f"SELECT {columns} FROM {quoted(self._table)}").fetchall()
            token = _read_token(connection, binding)
            connection.execute("ROLLBACK")
        values = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
        arrays = [from_sqlite(column, field.type) for column, field in zip(values, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema), token

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Is the file a database, or is there a folder to make it in? Writes nothing."""
        what = f"file {self._path}"
        if not self._path.exists():
            is_there = self._path.parent.is_dir()
            return [CheckResult(what, "ok" if is_there else "failed", "will be made" if is_there else "no such folder")]
        try:
            with contextlib.closing(sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.Error as error:
            return [CheckResult(what, "failed", str(error), "Name a SQLite file that can be read and written.")]
        return [CheckResult(what, "ok", "opens")]

    @property
    def _path(self) -> Path:
        return resolved_path(self._text)

    @property
    def _label(self) -> str:
        return f"sqlite({self._text}).{self._table}"

    def _declared(self) -> dict[str, str]:
        return {column.name: declared_type(column, self._label) for column in stored_schema(self.binding)}

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        with contextlib.closing(connection):
            with self._nothing_written():
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("PRAGMA fullfsync = 1")  # macOS: fsync alone does not reach the platter (INV-9)
                connection.execute(f"PRAGMA cache_size = -{CACHE_BYTES >> 10}")
            yield connection

    @contextlib.contextmanager
    def _nothing_written(self) -> Iterator[None]:
        """Before COMMIT every failure leaves the file as it was: SQLite rolls an unfinished transaction back."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.DataError) as error:
            raise RowsRefused(f"{self._label} refuses rows.", found=error, sink=self.binding.sink) from error
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _finish(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.IntegrityError as error:  # a deferred constraint: the transaction is still open
            raise RowsRefused(f"{self._label} refuses rows.", found=error, sink=self.binding.sink) from error
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
                raise self._unavailable(error) from error
            raise OutcomeUnknown(
                f"{self._label} did not answer a commit.", found=error, sink=self.binding.sink
            ) from error

    def _unavailable(self, error: sqlite3.Error) -> SinkRefused | SinkUnavailable:
        is_foreign = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB
        return file_failure(self._path, self._label, error, sink=self.binding.sink, is_foreign=is_foreign)

    def _ensure_table(self, connection: sqlite3.Connection, declared: dict[str, str]) -> None:
        table = quoted(self._table)
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in declared.items())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
        self._demand_table(connection, declared)
        if self.binding.mode == "upsert":
            key = ", ".join(f"{quoted(name)} COLLATE BINARY" for name in self.binding.key)
            connection.execute(f"CREATE INDEX IF NOT EXISTS {quoted(f'_onefold_key_{self._table}')} ON {table} ({key})")

    def _demand_table(self, connection: sqlite3.Connection, declared: dict[str, str]) -> None:
        """SQLite keeps a value as the column's declared type wants it: as a number perhaps, and not exactly."""
        table = quoted(self._table)
        found = {row[1]: affinity(row[2]) for row in connection.execute(f"PRAGMA table_info({table})")}
        if not found:
            refuse_gone(self.binding, self._label)
        kind = connection.execute("SELECT type FROM sqlite_master WHERE name = ? COLLATE NOCASE", (self._table,))
        if kind.fetchone() == ("view",):
            refuse_view(self.binding, self._label)
        for name in [*declared, *found]:
            if found.get(name) != declared.get(name):
                raise SchemaError(
                    f"Column {name} of {self._label} is not what the flow writes.",
                    found=found.get(name, "no such column"),
                    expected=declared.get(name, "no such column"),
                    next_step="Change the flow's select, or alter or rename the table.",
                    sink=self.binding.sink,
                    column=name,
                )

    def _write(self, connection: sqlite3.Connection, rows: pa.Table) -> None:
        binding, table = self.binding, quoted(self._table)
        names = stored_schema(binding).names
        with refusing_changes(self._label, binding):
            self._demand_table(connection, self._declared())
        values = list(zip(*columns_of(rows.select(names)), strict=True))
        if binding.mode == "upsert":
            places = [names.index(name) for name in binding.key]
            last = {tuple(row[place] for place in places): number for number, row in enumerate(values)}
            same = " AND ".join(f"{quoted(name)} COLLATE BINARY IS ?" for name in binding.key)
            connection.executemany(f"DELETE FROM {table} WHERE {same}", last.keys())
            deleted = _deletes(rows)
            values = [values[number] for number in sorted(last.values()) if number not in deleted]
        columns, marks = ", ".join(map(quoted, names)), ", ".join("?" * len(names))
        # OR ABORT: a constraint of the table's own may say ON CONFLICT IGNORE or REPLACE, and rows would vanish.
        connection.executemany(f"INSERT OR ABORT INTO {table} ({columns}) VALUES ({marks})", values)


def quoted(name: str) -> str:
    """An identifier as SQLite reads it back."""
    return '"' + name.replace('"', '""') + '"'


def _deletes(rows: pa.Table) -> set[int]:
    """The rows that say delete."""
    if OP_COLUMN not in rows.schema.names:
        return set()
    return set(pc.indices_nonzero(pc.equal(rows.column(OP_COLUMN), "delete").combine_chunks()).to_pylist())


def _ensure_tokens(connection: sqlite3.Connection) -> None:
    """The table of tokens; one that is older than the column `target` gets it, with NULL in the rows it has."""
    connection.execute(_CREATE_TOKENS)
    if "target" not in {row[1] for row in connection.execute(f"PRAGMA table_info({_TOKENS})")}:
        connection.execute(f"ALTER TABLE {_TOKENS} ADD COLUMN target TEXT")


def _others(connection: sqlite3.Connection, table: str, binding: Binding) -> list[tuple[str, str, str]]:
    """Who else has a token for this table. SQLite takes names that differ in the case of ASCII letters for one."""
    rows = connection.execute(
        f"SELECT flow, lane, sink FROM {_TOKENS} WHERE target = ? COLLATE NOCASE", (table,)
    ).fetchall()
    return [row for row in rows if row != (binding.flow, binding.lane, binding.sink)]


def _is_gone(connection: sqlite3.Connection, table: str, binding: Binding) -> bool:
    """Whether the token was moved with rows of this table, and the table is not there."""
    moved = connection.execute(
        f"SELECT 1 FROM {_TOKENS} WHERE flow = ? AND lane = ? AND sink = ? AND target = ? COLLATE NOCASE",
        (binding.flow, binding.lane, binding.sink, table),
    ).fetchone()
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ? COLLATE NOCASE", (table,)).fetchone()
    return moved is not None and there is None


def _read_token(connection: sqlite3.Connection, binding: Binding) -> Token | None:
    row: Any = connection.execute(
        f"SELECT epoch, seal, ends FROM {_TOKENS} WHERE flow = ? AND lane = ? AND sink = ?",
        (binding.flow, binding.lane, binding.sink),
    ).fetchone()
    if row is None:
        return None
    return Token(EpochNumber(row[0]), SealId(row[1]), Token.from_json(row[2]).ends)


def _move_token(connection: sqlite3.Connection, table: str, binding: Binding, move: TokenMove) -> None:
    """Compare-and-set; BEGIN IMMEDIATE lets nobody write between the two. Raises TokenRefused."""
    owner = (binding.flow, binding.lane, binding.sink)
    found = _read_token(connection, binding)
    if not same_token(found, move.expected):
        raise refuse_token(binding, found, move.expected)
    connection.execute(
        f"INSERT OR REPLACE INTO {_TOKENS} (flow, lane, sink, epoch, seal, ends, target) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*owner, move.new.epoch, move.new.seal, move.new.to_json(), table),
    )
