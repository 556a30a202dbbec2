"""One DuckDB connection a thread, for queries over Arrow tables. Nothing outside memory can be reached from it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from onefold.errors import UserCodeError

__all__ = ["Sql", "identifier", "identifiers", "literal_interval"]


class Sql:
    """Runs queries over named Arrow tables; each calling thread has a connection of its own.

    Text is executed anew each time: a prepared statement over a replaced view returns stale rows in DuckDB 2.0.
    """

    def __init__(self, threads: int = 2) -> None:
        self._threads = threads
        self._local = threading.local()

    def run(
        self,
        query: str,
        tables: Mapping[str, pa.Table],
        schema: pa.Schema | None = None,
        *,
        node: str | None = None,
        expressions: Sequence[str] = (),
    ) -> pa.Table:
        """The query's rows, in the order of the input where the query keeps it.

        schema: what the result must have; types that differ only in width are cast safely. node, expressions: of the
        flow, for the error.
        Raises UserCodeError when an expression fails on a row (division in a strict cast, overflow, …).
        """
        con = self._connection()
        for name, table in tables.items():
            con.register(name, table)
        try:
            result = con.sql(query).to_arrow_table()
        except duckdb.Error as error:
            summary = str(error).splitlines()[0]
            raise UserCodeError(
                "An expression failed on the rows of this epoch.",
                node=node,
                expression="; ".join(expressions) or None,
                found=summary,
                next_step="Guard it, for instance with TRY_CAST or a where() before it; nothing was written.",
            ) from error
        finally:
            for name in tables:
                con.unregister(name)
        return result if schema is None or result.schema.equals(schema) else _fit(result, schema)

    def _connection(self) -> duckdb.DuckDBPyConnection:
        con: duckdb.DuckDBPyConnection | None = getattr(self._local, "con", None)
        if con is None:
            con = duckdb.connect(":memory:", config={"threads": self._threads})
            con.execute("SET python_enable_replacements = false")
            con.execute("SET TimeZone = 'UTC'")
            con.execute("SET enable_external_access = false")
            con.execute("SET enable_progress_bar = false")  # it would go to standard output
            self._local.con = con
        return con


def identifier(name: str) -> str:
    """A quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def identifiers(names: Sequence[str]) -> str:
    """Quoted, with commas."""
    return ", ".join(identifier(name) for name in names)


def literal_interval(micros: int) -> str:
    """An interval of so many microseconds."""
    return f"INTERVAL '{micros} microseconds'"


def _fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.names != schema.names:
        raise UserCodeError("A query gave other columns.", found=table.schema.names, expected=schema.names)
    return table.cast(schema)
