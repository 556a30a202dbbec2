"""DuckDB for decoding: one in-memory database a process, one connection a thread, statements planned once.

Planning a decoding query takes longer than decoding a thousand rows with it. So statements are prepared, over a view
whose Arrow rows are exchanged between runs. DuckDB returns stale rows when such a view is registered anew, or when a
relation object is run again; therefore neither is done, and callers check row numbers that are unique in the process.
"""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import weakref
from collections import OrderedDict
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from onefold.errors import check

__all__ = ["connection", "identifier", "in_order", "literal", "query", "row_numbers", "run"]

_MOST_STATEMENTS = 32
_MANY_ROWS = 50_000  # above it, the copy that DuckDB makes of a prepared statement's result costs more than planning


def run(sql: str, rows: pa.Table) -> pa.Table:
    """The drained result of a statement that reads `rows` under the name _input. Raises duckdb.Error.

    For statements that are run again and again: the plan is kept, by SQL text and by the schema of the rows.
    """
    return query(sql, _input=rows) if len(rows) > _MANY_ROWS else _session().run(sql, rows)


def query(sql: str, **tables: pa.Table) -> pa.Table:
    """The drained result of one statement over Arrow tables, each registered under its keyword's name.

    For statements that are run once. Raises duckdb.Error.
    """
    con = connection()
    for name, table in tables.items():
        con.register(name, table)
    try:
        return con.sql(sql).to_arrow_table()
    except UnicodeDecodeError as error:
        raise _unreadable() from error
    finally:
        for name in tables:
            con.unregister(name)


def connection() -> duckdb.DuckDBPyConnection:
    """This thread's own connection; all of a process share one database and so one pool of worker threads.

    Python variables are never taken for tables, and timestamps without a zone are read as UTC.
    """
    return _session().connection


def row_numbers(count: int) -> range:
    """So many row numbers that no other call in this process gets."""
    with _lock:
        first = _numbers[0]
        _numbers[0] += count
    return range(first, first + count)


def in_order(found: pa.Table, numbers: range) -> pa.Table:
    """A result by its column i, which holds each of the numbers that its input was given. Raises InvariantBroken."""
    expected = np.arange(numbers.start, numbers.stop)
    if not np.array_equal(found.column("i").to_numpy(), expected):
        found = found.sort_by("i")
        check(np.array_equal(found.column("i").to_numpy(), expected), "a query gives each row of its input once")
    return found


def identifier(name: str) -> str:
    """A column's name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string, quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"


class _Rows:
    """What a view stands on: DuckDB asks it for a stream of Arrow rows at every run."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self.rows.__arrow_c_stream__(requested_schema)


class _Session:
    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self.connection = database.cursor()
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET enable_progress_bar = false")  # it would go to standard output
        self.process = os.getpid()
        self._statements: OrderedDict[tuple[str, pa.Schema], tuple[str, _Rows]] = OrderedDict()
        self._names = itertools.count()
        _sessions.add(self)

    def run(self, sql: str, rows: pa.Table) -> pa.Table:
        key = (sql, rows.schema)
        if key in self._statements:
            self._statements.move_to_end(key)
        else:
            self._statements[key] = self._prepared(sql, rows)
        name, view = self._statements[key]
        view.rows = rows
        try:
            return self.connection.sql(f"EXECUTE {name}").to_arrow_table()
        except UnicodeDecodeError as error:
            raise _unreadable() from error
        finally:
            view.rows = rows.slice(0, 0)

    def _prepared(self, sql: str, rows: pa.Table) -> tuple[str, _Rows]:
        while len(self._statements) >= _MOST_STATEMENTS:
            _, (dropped, _) = self._statements.popitem(last=False)
            self._drop(dropped)
        name, view = f"s{next(self._names)}", _Rows(rows)
        self.connection.register(f"{name}_input", view)
        self.connection.execute(
            f"PREPARE {name} AS WITH _input AS NOT MATERIALIZED (FROM {name}_input) SELECT * FROM ({sql})"
        )
        return name, view

    def _drop(self, name: str) -> None:
        self.connection.execute(f"DEALLOCATE {name}")
        self.connection.unregister(f"{name}_input")

    def close(self) -> None:
        for name, _ in self._statements.values():
            self._drop(name)
        self._statements.clear()
        self.connection.close()


def _unreadable() -> duckdb.InvalidInputException:
    """For a message about a value that DuckDB cut inside a character, so that Python could not read the message."""
    return duckdb.InvalidInputException("a value could not be read")


_local = threading.local()
_lock = threading.Lock()
_numbers = [0]
_databases: dict[int, duckdb.DuckDBPyConnection] = {}
_sessions: weakref.WeakSet[_Session] = weakref.WeakSet()


def _session() -> _Session:
    own: _Session | None = getattr(_local, "session", None)
    if own is None or own.process != os.getpid():  # a forked child must not touch its parent's worker threads
        own = _local.session = _Session(_database())
    return own


def _database() -> duckdb.DuckDBPyConnection:
    with _lock:
        if os.getpid() not in _databases:
            _databases[os.getpid()] = duckdb.connect(":memory:", config={"python_enable_replacements": False})
        return _databases[os.getpid()]


@atexit.register
def _close_all() -> None:
    for session in list(_sessions):
        if session.process == os.getpid():
            session.close()
    database = _databases.pop(os.getpid(), None)
    if database is not None:
        database.close()
