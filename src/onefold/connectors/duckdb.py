"""Tables in a DuckDB file: a transactional sink.

The token stands in the table `_onefold_tokens` of the same file and moves in the transaction that writes the rows. The
file is opened for each delivery and closed after it, because DuckDB lets no other process in while it is open for
writing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from onefold.connectors.spooling import (
    OP_COLUMN,
    SpooledSink,
    check_key,
    check_names,
    refuse_token,
    resolved_path,
    rows_of,
    stored_schema,
)
from onefold.disk import durable_step
from onefold.errors import (
    NotSupported,
    OutcomeUnknown,
    RowsRefused,
    SchemaError,
    SinkUnavailable,
    TokenRefused,
)
from onefold.protocols import CheckResult, Format, SinkPromise, Source
from onefold.types import Binding, CommitClass, EpochNumber, Mode, Receipt, SealId, Token, TokenMove

__all__ = ["DuckdbFile", "DuckdbSink", "DuckdbTable"]

LOCK_SECONDS = 60.0
"""How long a delivery waits for another sink of this process that writes to the same file."""

_TOKENS = '"_onefold_tokens"'
_ORDER = "_onefold_order"
_CREATE_TOKENS = f"""
    CREATE TABLE IF NOT EXISTS {_TOKENS} (
        flow VARCHAR NOT NULL, lane VARCHAR NOT NULL, sink VARCHAR NOT NULL,
        epoch BIGINT NOT NULL, seal VARCHAR NOT NULL, ends VARCHAR NOT NULL,
        PRIMARY KEY (flow, lane, sink))
"""
_ROWS_AT_FAULT = (duckdb.DataError, duckdb.IntegrityError)

_locks: dict[str, threading.Lock] = {}
_locks_guard = threading.Lock()


@dataclass(frozen=True)
class DuckdbFile:
    """A DuckDB file. path may hold ${NAME}."""

    path: str

    def table(self, name: str, *, schema: str = "main") -> DuckdbTable:
        """A table of it; names are taken as they are, quotes and dots included."""
        return DuckdbTable(self.path, name, schema)


@dataclass(frozen=True)
class DuckdbTable:
    """What `of.duckdb(path).table(name)` gives."""

    path: str
    name: str
    schema: str = "main"

    @property
    def label(self) -> str:
        """duckdb(path).name."""
        return f"duckdb({self.path}).{self.name}"

    @property
    def default_name(self) -> str:
        """The table's name."""
        return self.name

    def as_source(self, format: Format | None) -> Source:  # noqa: A002  (the protocol's words)
        """Refused: a DuckDB table has no order of arrival to follow."""
        raise NotSupported(
            f"{self.label} cannot be read as a stream.",
            next_step="Export it with COPY … TO 'folder' (FORMAT parquet) and read of.files('folder/*.parquet').",
        )

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> DuckdbSink:
        """A transactional sink. Raises NotSupported for an upsert without a key."""
        check_key(mode, key, self.label)
        return DuckdbSink(self)


class DuckdbSink(SpooledSink):
    """Append, upsert and deletes; keys are matched with IS NOT DISTINCT FROM, so NULL is a key value like any other."""

    def __init__(self, table: DuckdbTable) -> None:
        self._table = table

    @property
    def promise(self) -> SinkPromise:
        """Transactional."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=f"duckdb:{self._path}:{self._table.schema}.{self._table.name}",
            deletes=True,
            conditions=("no other process holds the file open for writing for longer than the sink may lag",),
        )

    def open(self, binding: Binding) -> Token | None:
        """Make or check the tables, and read the token.

        Raises SinkUnavailable when the file is missing its folder, is no database, or is held by another process;
        SchemaError when the table has other columns. If killed inside: both tables are there or neither is.
        """
        self._binding = binding
        check_names(binding, self._table.label)
        for column in binding.schema:
            _refuse_inexact(column.type, column.name, self._table.label)
        with self._connected() as connection, self._nothing_written():
            connection.begin()
            connection.execute(_CREATE_TOKENS)
            if self._table.schema != "main":
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(self._table.schema)}")
            _ensure_table(connection, self._table, binding)
            with durable_step("duckdb.create"):
                connection.commit()
            return _read_token(connection, binding)

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
                    _move_token(connection, binding, move)
                if rows.num_rows:
                    _write(connection, self._table, binding, rows)
            with durable_step("duckdb.commit"):
                self._finish(connection)

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token in one snapshot. Raises SinkUnavailable."""
        if not self._path.exists():
            raise SinkUnavailable(f"{self._table.label} does not exist.", sink=binding.sink)
        with self._connected(read_only=True) as connection, self._nothing_written():
            connection.begin()
            columns = ", ".join(_quoted(name) for name in stored_schema(binding).names)
            rows = connection.sql(f"SELECT {columns} FROM {_qualified(self._table)}").to_arrow_table()
            token = _read_token(connection, binding)
            connection.rollback()
            return rows, token

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Can the file be opened? Opens an existing one read-only; looks at the folder otherwise."""
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
        except SinkUnavailable as error:
            return [CheckResult(f"file {self._path}", "failed", str(error.found), error.next_step)]

    @property
    def _path(self) -> Path:
        return resolved_path(self._table.path)

    @contextlib.contextmanager
    def _connected(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file, open for this block only; one block at a time in this process."""
        path = self._path
        with _only_one(path, self._table.label):
            try:
                connection = duckdb.connect(str(path), read_only=read_only)
            except duckdb.Error as error:
                raise self._unavailable(error) from error
            try:
                yield connection
            finally:
                with durable_step("duckdb.close"):
                    connection.close()

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

    def _unavailable(self, error: duckdb.Error) -> SinkUnavailable:
        sink = self._binding.sink if self._binding else None
        return SinkUnavailable(f"{self._table.label} cannot be written now.", found=_first_line(error), sink=sink)


# --------------------------------------------------------------------------------------------------------------- token


def _read_token(connection: duckdb.DuckDBPyConnection, binding: Binding) -> Token | None:
    row = connection.execute(
        f"SELECT epoch, seal, ends FROM {_TOKENS} WHERE flow = ? AND lane = ? AND sink = ?",
        [binding.flow, binding.lane, binding.sink],
    ).fetchone()
    if row is None:
        return None
    return Token(EpochNumber(row[0]), SealId(row[1]), Token.from_json(row[2]).ends)


def _move_token(connection: duckdb.DuckDBPyConnection, binding: Binding, move: TokenMove) -> None:
    """Compare-and-set inside the transaction. Raises TokenRefused; the caller's transaction is then forgotten."""
    owner = [binding.flow, binding.lane, binding.sink]
    new = [move.new.epoch, move.new.seal, move.new.to_json()]
    if move.expected is None:
        sql = f"INSERT INTO {_TOKENS} BY NAME SELECT ? AS epoch, ? AS seal, ? AS ends, ? AS flow, ? AS lane, ? AS sink"
        moved = _read_token(connection, binding) is None
        if moved:
            connection.execute(sql, [*new, *owner])
    else:
        moved = bool(
            connection.execute(
                f"UPDATE {_TOKENS} SET epoch = ?, seal = ?, ends = ? "
                "WHERE flow = ? AND lane = ? AND sink = ? AND epoch = ? AND seal = ? RETURNING epoch",
                [*new, *owner, move.expected.epoch, move.expected.seal],
            ).fetchall()
        )
    if not moved:
        raise _refused(connection, binding, move.expected)


def _refused(connection: duckdb.DuckDBPyConnection, binding: Binding, expected: Token | None) -> TokenRefused:
    connection.rollback()
    return refuse_token(binding, _read_token(connection, binding), expected)


# ---------------------------------------------------------------------------------------------------------------- rows


def _write(connection: duckdb.DuckDBPyConnection, table: DuckdbTable, binding: Binding, rows: pa.Table) -> None:
    if binding.mode == "append":
        columns = ", ".join(_quoted(name) for name in rows.schema.names)
        connection.register("_onefold_rows", rows)
        connection.execute(f"INSERT INTO {_qualified(table)} ({columns}) SELECT {columns} FROM _onefold_rows")
        return
    numbered = rows.append_column(_ORDER, pa.array(np.arange(rows.num_rows, dtype=np.int64)))
    connection.register("_onefold_rows", numbered)
    key = ", ".join(_quoted(name) for name in binding.key)
    connection.execute(
        "CREATE TEMP TABLE _onefold_last AS SELECT * FROM _onefold_rows "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {_ORDER} DESC) = 1"
    )
    connection.execute(_merge_sql(table, binding))
    connection.execute("DROP TABLE _onefold_last")


def _merge_sql(table: DuckdbTable, binding: Binding) -> str:
    stored = stored_schema(binding).names
    same = " AND ".join(f"target.{_quoted(name)} IS NOT DISTINCT FROM fresh.{_quoted(name)}" for name in binding.key)
    changes = ", ".join(f"{_quoted(name)} = fresh.{_quoted(name)}" for name in stored if name not in binding.key)
    columns = ", ".join(_quoted(name) for name in stored)
    values = ", ".join(f"fresh.{_quoted(name)}" for name in stored)
    has_op = OP_COLUMN in binding.schema.names
    lines = [f"MERGE INTO {_qualified(table)} AS target USING _onefold_last AS fresh ON ({same})"]
    if has_op:
        lines.append(f"WHEN MATCHED AND fresh.{_quoted(OP_COLUMN)} = 'delete' THEN DELETE")
    if changes:
        lines.append(f"WHEN MATCHED THEN UPDATE SET {changes}")
    condition = f" AND fresh.{_quoted(OP_COLUMN)} <> 'delete'" if has_op else ""
    lines.append(f"WHEN NOT MATCHED{condition} THEN INSERT ({columns}) VALUES ({values})")
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- schema


def _ensure_table(connection: duckdb.DuckDBPyConnection, table: DuckdbTable, binding: Binding) -> None:
    """Create the table, or check that it has exactly our columns and types."""
    connection.register("_onefold_shape", stored_schema(binding).empty_table())
    connection.execute(f"CREATE TABLE IF NOT EXISTS {_qualified(table)} AS SELECT * FROM _onefold_shape")
    expected = _described(connection, "_onefold_shape")
    found = _described(connection, _qualified(table))
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            raise SchemaError(
                f"Column {name} of {table.label} is not what the flow writes.",
                found=found.get(name, "no such column"),
                expected=expected.get(name, "no such column"),
                next_step="Change the flow's select, or alter or rename the table.",
                sink=binding.sink,
                column=name,
            )
    if binding.mode == "upsert":
        _refuse_collations(connection, table, binding)


def _described(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {relation}").fetchall()}


def _refuse_collations(connection: duckdb.DuckDBPyConnection, table: DuckdbTable, binding: Binding) -> None:
    """Under a collation different keys would be one: IS NOT DISTINCT FROM follows it."""
    row = connection.execute(
        "SELECT sql FROM duckdb_tables() WHERE schema_name = ? AND table_name = ? AND NOT temporary",
        [table.schema, table.name],
    ).fetchone()
    default = connection.execute("SELECT current_setting('default_collation')").fetchone()
    if (row and " COLLATE " in row[0]) or (default and default[0]):
        raise SchemaError(
            f"{table.label} has a collation under which different keys are equal.",
            next_step="Use a table without COLLATE for upserts.",
            sink=binding.sink,
        )


def _refuse_inexact(kind: pa.DataType, column: str, label: str) -> None:
    """Raise SchemaError for types that DuckDB would round, shift or not take."""
    is_inexact = (
        pa.types.is_duration(kind)
        or pa.types.is_interval(kind)
        or pa.types.is_null(kind)
        or pa.types.is_float16(kind)
        or pa.types.is_date64(kind)
        or pa.types.is_decimal256(kind)
        or (pa.types.is_decimal(kind) and kind.scale < 0)
        or pa.types.is_union(kind)
    )
    if is_inexact:
        raise SchemaError(
            f"{label} cannot keep column {column} exactly.",
            found=str(kind),
            expected="a type that DuckDB stores without loss",
            next_step="Cast it in select(…), for instance to BIGINT or VARCHAR.",
            column=column,
        )
    for index in range(kind.num_fields):
        _refuse_inexact(kind.field(index).type, column, label)


# ---------------------------------------------------------------------------------------------------------------- else


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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _qualified(table: DuckdbTable) -> str:
    return f"{_quoted(table.schema)}.{_quoted(table.name)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
