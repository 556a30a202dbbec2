"""DuckDB for decoding: one in-memory database a process, one connection a thread."""

from __future__ import annotations

import os
import threading

import duckdb
import pyarrow as pa

__all__ = ["connection", "identifier", "literal", "query"]


def query(sql: str, **tables: pa.Table) -> pa.Table:
    """The drained result of one statement over Arrow tables, each registered under its keyword's name.

    Raises duckdb.Error.
    """
    con = connection()
    for name, table in tables.items():
        con.register(name, table)
    try:
        return con.sql(sql).to_arrow_table()
    finally:
        for name in tables:
            con.unregister(name)


def connection() -> duckdb.DuckDBPyConnection:
    """This thread's own connection; all of a process share one database and so one pool of worker threads.

    Python variables are never taken for tables, and timestamps without a zone are read as UTC.
    """
    own = getattr(_local, "connection", None)
    if own is None or _local.process != os.getpid():  # a forked child must not touch its parent's worker threads
        own = _database().cursor()
        own.execute("SET TimeZone = 'UTC'")
        _local.connection, _local.process = own, os.getpid()
    return own


def identifier(name: str) -> str:
    """A column's name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string, quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"


_local = threading.local()
_lock = threading.Lock()
_databases: dict[int, duckdb.DuckDBPyConnection] = {}


def _database() -> duckdb.DuckDBPyConnection:
    with _lock:
        if os.getpid() not in _databases:
            _databases[os.getpid()] = duckdb.connect(":memory:", config={"python_enable_replacements": False})
        return _databases[os.getpid()]
