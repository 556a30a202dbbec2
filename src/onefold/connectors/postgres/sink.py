"""Tables of a PostgreSQL database: a transactional sink.

The token stands in a table of its own, in a schema that the user chooses, and moves by compare-and-set in the first
statement of the transaction that writes the rows. Rows travel as binary COPY.
Source: PostgreSQL's documentation, chapters COPY, MERGE and Transaction Isolation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from onefold.connectors.databases import demand_token, last_of_each_key, move_token, others, read_token, session_name
from onefold.connectors.postgres.connection import Server, end_sessions_of, psycopg
from onefold.connectors.postgres.copying import copy_in
from onefold.connectors.postgres.tables import (
    TableName,
    demand_table,
    ensure_token_row,
    ensure_tokens,
    is_gone,
    is_known,
    make_table,
    merge,
    read_rows,
    staging_table,
)
from onefold.connectors.postgres.types import declared_type, from_postgres, quoted
from onefold.connectors.spooling import (
    SpooledSink,
    check_names,
    refuse_gone,
    refuse_taken,
    rows_of,
    stored_schema,
)
from onefold.disk import durable_step
from onefold.errors import OnefoldError, OutcomeUnknown, RowsRefused, SinkRefused, SinkUnavailable
from onefold.protocols import CheckResult, SinkPromise
from onefold.types import Binding, CommitClass, Receipt, Token, TokenMove

__all__ = ["PostgresSink"]

_ROWS_AT_FAULT = ("22", "23")
"""Classes of SQLSTATE that say that rows do not fit: data exceptions and violated constraints."""


class PostgresSink(SpooledSink):
    """Append, upsert and deletes; of an upsert the last row of a key wins, and NULL is a key value like any other."""

    def __init__(self, server: Server, table: TableName, *, is_made: bool = False) -> None:
        self._server = server
        self._table = table
        self._is_made = is_made
        self._differing: dict[str, str] = {}
        self._connection: Any = None

    @property
    def promise(self) -> SinkPromise:
        """Transactional."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=f"postgres:{self._server.target}:{self._table.schema}.{self._table.name}",
            deletes=True,
            conditions=(
                "what the server has acknowledged survives a crash, and a failover: fsync is on, a standby synchronous",
                "nobody but onefold writes the table of tokens",
            ),
        )

    def open(self, binding: Binding) -> Token | None:
        """Connect, check or make the tables, and read the token when nobody is moving it any more.

        Raises SinkUnavailable, SinkRefused, SettingMissing, ExtraMissing; TargetTaken when others write to the table;
        SchemaError when it cannot take the rows. If killed inside: the tables are there or not.
        """
        self._binding = binding
        self.close()
        check_names(binding, self._table.label)
        for field in stored_schema(binding):
            declared_type(field, self._table.label)
            quoted(field.name)
        name = session_name(self._table, binding)
        self._connection = self._server.connect(SinkUnavailable, name=name)
        with self._nothing_written():
            with durable_step("postgres.fence"):
                end_sessions_of(self._connection, name)
            self._connection.execute("BEGIN")
            ensure_tokens(self._connection, self._table)
            refuse_taken(binding, self._table.label, others(self._connection, self._table, binding))
            if is_gone(self._connection, self._table, binding):
                refuse_gone(binding, self._table.label)
            if self._is_made:
                make_table(self._connection, self._table, binding)
            self._differing = demand_table(self._connection, self._table, binding)
            token = ensure_token_row(self._connection, self._table, binding)
            with durable_step("postgres.create"):
                self._connection.execute("COMMIT")
            return token

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Rows and token in one transaction."""
        rows = rows_of(self.binding, receipts)
        if move is None and not rows.num_rows:
            return
        if self._connection is None:
            raise SinkUnavailable(
                f"{self._table.label} was cut off, and is to be opened again.", sink=self.binding.sink
            )
        with self._nothing_written(move):
            self._connection.execute("BEGIN")
            if move is not None:
                move_token(self._connection, self._table, self.binding, move)
            if rows.num_rows:
                with durable_step("postgres.write"):
                    self._write(rows)
        with durable_step("postgres.commit"):
            self._finish()

    def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg().Error):
                connection.close()

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token in one snapshot; of a table that is not there, none. Raises SinkUnavailable."""
        self._binding = binding
        schema = stored_schema(binding)
        with self._server.session(SinkUnavailable) as connection, self._nothing_written():
            connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            rows = read_rows(connection, self._table, schema)
            is_begun = is_known(connection, self._table.tokens)
            token = read_token(connection, self._table, binding) if is_begun else None
            connection.execute("ROLLBACK")
        values = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
        arrays = [from_postgres(column, field.type) for column, field in zip(values, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema), token

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Does the server let us in, and is the table there? Writes nothing."""
        what = self._table.label
        try:
            with self._server.session(SinkUnavailable) as connection:
                found = connection.execute("SELECT to_regclass(%s)", [self._table.qualified]).fetchone()[0]
        except OnefoldError as error:
            return [CheckResult(what, "failed", str(error.found or error.summary), error.next_step or "")]
        if found is None and not self._is_made:
            return [CheckResult(what, "failed", "there is no such table", "Make it, or say create=True.")]
        return [CheckResult(what, "ok", "will be made" if found is None else "is there")]

    # ------------------------------------------------------------------------------------------------------- inner

    def _write(self, rows: pa.Table) -> None:
        connection, table, binding = self._connection, self._table, self.binding
        if binding.mode == "append":
            stored = rows.select(stored_schema(binding).names)
            if not self._differing:
                copy_in(connection, table.qualified, stored)
                return
        else:
            stored = last_of_each_key(rows, binding.key)
        stage = staging_table(connection, table, stored.schema)
        copy_in(connection, stage, stored)
        merge(connection, table, binding, stage, self._differing)

    @contextlib.contextmanager
    def _nothing_written(self, move: TokenMove | None = None) -> Iterator[None]:
        """Before COMMIT every failure leaves the tables as they were: the server forgets an unfinished transaction."""
        try:
            yield
        except psycopg().Error as error:
            self._roll_back()
            if move is not None and self._connection is None:
                self._refuse_if_moved(move)
            raise self._failure(error) from None
        except OnefoldError:
            self._roll_back()
            raise
        except BaseException:
            self.close()
            raise

    def _refuse_if_moved(self, move: TokenMove) -> None:
        """A session that ended may have been ended by a newer instance: if that has gone on, say so."""
        with contextlib.suppress(SinkUnavailable, SinkRefused), self._server.session(SinkUnavailable) as connection:
            demand_token(connection, self._table, self.binding, move.expected)

    def _roll_back(self) -> None:
        """Or hang up, which comes to the same."""
        try:
            if self._connection is not None:
                self._connection.execute("ROLLBACK")
        except psycopg().Error:
            self.close()

    def _finish(self) -> None:
        """A constraint that is checked at the end, and a conflict, roll back for certain; of the rest nobody knows."""
        try:
            self._connection.execute("COMMIT")
        except psycopg().Error as error:
            self.close()
            state = str(error.sqlstate or "")
            if state[:2] in _ROWS_AT_FAULT or (state[:2] == "40" and state != "40003"):
                raise self._failure(error) from None
            raise OutcomeUnknown(
                f"{self._table.label} did not answer a commit.",
                found=self._server.clean(str(error)),
                sink=self.binding.sink,
            ) from error
        except BaseException:
            self.close()
            raise

    def _failure(self, error: Any) -> Exception:
        sink = self._binding.sink if self._binding else None
        state = str(error.sqlstate or "")
        if state[:2] in _ROWS_AT_FAULT:
            return RowsRefused(f"{self._table.label} refuses rows.", found=_said(error), sink=sink)
        if state[:2] == "42" and state != "42501":  # a table or a column that is not there any more
            return SinkRefused(f"{self._table.label} was changed meanwhile.", found=_said(error), sink=sink)
        return self._server.failure(error, SinkUnavailable, sink=sink)


def _said(error: Any) -> str:
    """The server's words: what, and which row."""
    about = error.diag
    return "; ".join(text for text in (about.message_primary, about.message_detail, about.context) if text) or str(
        error
    )
