"""Tables of a PostgreSQL database: a transactional sink.

The token stands in a table of its own, in a schema that the user chooses, and moves by compare-and-set in the first
statement of the transaction that writes the rows. Rows travel as binary COPY.
Source: PostgreSQL's documentation, chapters COPY, MERGE and Transaction Isolation.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from onefold.clock import SystemClock
from onefold.connectors.databases import last_of_each_key, move_token, others, session_name
from onefold.connectors.postgres.connection import Server, acknowledge_when_durable, end_sessions_of, psycopg
from onefold.connectors.postgres.copying import copy_in
from onefold.connectors.postgres.prepared import (
    IS_GONE,
    abort_prepared,
    can_prepare,
    commit_prepared,
    handle_name,
    listed,
    prepare,
)
from onefold.connectors.postgres.tables import (
    TableName,
    demand_rights,
    demand_table,
    ensure_token_row,
    ensure_tokens,
    is_gone,
    make_table,
    merge,
    read_rows,
    read_token,
    staging,
)
from onefold.connectors.postgres.types import declared_type, from_postgres, quoted, refuse_cut
from onefold.connectors.spooling import (
    SpooledSink,
    check_names,
    refuse_gone,
    refuse_taken,
    refuse_token,
    rows_of,
    same_token,
    stored_schema,
)
from onefold.disk import durable_step
from onefold.errors import OnefoldError, OutcomeUnknown, RowsRefused, SinkRefused, SinkUnavailable, check
from onefold.protocols import CheckResult, Clock, SinkPromise
from onefold.types import Binding, CommitClass, EpochHead, Handle, Receipt, Token, TokenMove

__all__ = ["PostgresSink"]

_ROWS_AT_FAULT = ("22", "23")
"""Classes of SQLSTATE that say that rows do not fit: data exceptions and violated constraints."""


PREPARE_SECONDS = 30.0
"""How long a server may be away while an epoch is prepared, before the run ends. What others prepared waits for it."""

RETRY_SECONDS = 0.2


class PostgresSink(SpooledSink):
    """Append, upsert and deletes; of an upsert the last row of a key wins, and NULL is a key value like any other."""

    def __init__(self, server: Server, table: TableName, *, is_made: bool = False, clock: Clock | None = None) -> None:
        self._server = server
        self._table = table
        self._is_made = is_made
        self._differing: dict[str, str] = {}
        self._clock: Clock = clock or SystemClock()
        self._listed: Sequence[Handle] = ()
        self._connection: Any = None

    @property
    def promise(self) -> SinkPromise:
        """Transactional."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=f"postgres:{self._server.target}:{self._table.schema}.{self._table.name}",
            deletes=True,
            can_prepare_together=True,
            conditions=(
                "what the server has acknowledged survives a crash, and a failover: fsync is on, a standby synchronous",
                "nobody but onefold writes the table of tokens",
            ),
            conditions_together=(
                "max_prepared_transactions of the server is above the number of sinks that use it at once",
                "a run that crashed is started again: what it had prepared keeps its locks until then",
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
            acknowledge_when_durable(self._connection)
            with durable_step("postgres.fence"):
                end_sessions_of(self._connection, name)
            self._listed = listed(self._connection, self._table, binding)
            if binding.is_together and not can_prepare(self._connection):
                raise self._no_preparing()
            self._connection.execute("BEGIN")
            ensure_tokens(self._connection, self._table)
            refuse_taken(binding, self._table.label, others(self._connection, self._table, binding))
            if is_gone(self._connection, self._table, binding):
                refuse_gone(binding, self._table.label)
            if self._is_made:
                make_table(self._connection, self._table, binding)
            self._differing = demand_table(self._connection, self._table, binding)
            demand_rights(self._connection, self._table, binding, self._differing)
            token = ensure_token_row(self._connection, self._table, binding, is_locked=not self._listed)
            with durable_step("postgres.create"):
                self._connection.execute("COMMIT")
            return token

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Spool the rows; under commit="together", prepare the transaction that writes them and moves the token.

        That one uses the connection of `commit`: nothing else of this sink is under way then.
        """
        if epoch.move is None:
            return super().prepare(epoch, batches)
        rows = pa.Table.from_batches(batches, self.binding.schema)
        name = handle_name(self._table, self.binding, epoch)
        began, pause = self._clock.monotonic(), threading.Event()
        while True:
            try:
                if self._connection is None:
                    self._begin_again(epoch.move, name)
                self._begin_and_write(rows, epoch.move, prepared_as=name)
                with durable_step("postgres.prepare"):
                    self._finish(lambda: prepare(self._connected(), name))
            except (SinkUnavailable, OutcomeUnknown) as error:
                self.close()
                if self._clock.monotonic() - began > PREPARE_SECONDS:
                    raise SinkUnavailable(
                        f"{self._table.label} took too long.", found=error.found, sink=self.binding.sink
                    ) from error
                pause.wait(RETRY_SECONDS)
            else:
                return Receipt(epoch.number, "native", rows.num_rows, rows.nbytes, {"name": name})

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Rows and token in one transaction: a new one, or the one that was prepared."""
        prepared = [receipt.detail["name"] for receipt in receipts if receipt.kind == "native"]
        check(not prepared or len(receipts) == 1, "a prepared epoch is committed alone", sink=self.binding.sink)
        if prepared:
            with durable_step("postgres.commit"):
                self._finish(lambda: commit_prepared(self._connected(), prepared[0]))
            return
        rows = rows_of(self.binding, receipts)
        if move is None and not rows.num_rows:
            return
        self._begin_and_write(rows, move)
        with durable_step("postgres.commit"):
            self._finish(lambda: self._connected().execute("COMMIT"))

    def handles(self) -> Sequence[Handle]:
        """Prepared transactions of this sink: those there are, and those that were there before the token was read.

        One that was committed in between is in the token by then, or else would seem to have vanished.
        """
        with self._some_session() as connection:
            now = listed(connection, self._table, self.binding)
        found = {handle.detail["name"]: handle for handle in (*self._listed, *now)}
        self._listed = ()
        return list(found.values())

    def abort(self, handle: Handle) -> None:
        """Forget a prepared transaction; one that is decided stays so."""
        with self._some_session() as connection, durable_step("postgres.abort"):
            try:
                abort_prepared(connection, handle.detail["name"])
            except psycopg().Error as error:
                if error.sqlstate != IS_GONE:
                    raise

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
            token = read_token(connection, self._table, binding)
            connection.execute("ROLLBACK")
        values = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
        arrays = [from_postgres(column, field.type) for column, field in zip(values, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema), token

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Does the server let us in, is the table there, and is anything prepared and undecided? Writes nothing."""
        what = self._table.label
        try:
            with self._server.session(SinkUnavailable) as connection:
                found = connection.execute("SELECT to_regclass(%s)", [self._table.qualified]).fetchone()[0]
                handles = listed(connection, self._table, binding) if binding else ()
                is_able = not (binding and binding.is_together) or can_prepare(connection)
        except OnefoldError as error:
            return [CheckResult(what, "failed", str(error.found or error.summary), error.next_step or "")]
        if found is None and not self._is_made:
            return [CheckResult(what, "failed", "there is no such table", "Make it, or say create=True.")]
        if not is_able:
            step = "Set it above the number of sinks that use the server, and restart it."
            return [CheckResult(what, "failed", "max_prepared_transactions is 0", step)]
        findings = [CheckResult(what, "ok", "will be made" if found is None else "is there")]
        if handles:
            names = ", ".join(str(handle.detail["name"]) for handle in handles)
            step = "The next run of the flow decides them by its journal. Decide none by hand unless that is lost."
            findings.append(CheckResult("prepared transactions", "warning", f"undecided: {names}", step))
        return findings

    # ------------------------------------------------------------------------------------------------------- inner

    def _connected(self) -> Any:
        if self._connection is None:
            raise SinkUnavailable(
                f"{self._table.label} was cut off, and is to be opened again.", sink=self.binding.sink
            )
        return self._connection

    @contextlib.contextmanager
    def _some_session(self) -> Iterator[Any]:
        """The sink's own, or another when that was cut off."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._nothing_written())
            yield self._connection or stack.enter_context(self._server.session(SinkUnavailable))

    def _begin_again(self, move: TokenMove, name: str) -> None:
        """After a lost session: nobody else has gone on, and what it prepared under this name is forgotten."""
        found = self.open(self.binding)
        if not same_token(found, move.expected):
            raise refuse_token(self.binding, found, move.expected)
        for handle in self.handles():
            if handle.detail["name"] == name:
                self.abort(handle)

    def _begin_and_write(self, rows: pa.Table, move: TokenMove | None, *, prepared_as: str | None = None) -> None:
        """A transaction with the token's move and the rows in it, not ended yet."""
        connection = self._connected()
        with self._nothing_written(move):
            connection.execute("BEGIN")
            if move is not None:
                move_token(connection, self._table, self.binding, move)
            if rows.num_rows:
                with durable_step("postgres.write"):
                    self._write(rows, prepared_as)

    def _write(self, rows: pa.Table, prepared_as: str | None) -> None:
        connection, table, binding = self._connection, self._table, self.binding
        if binding.mode == "append":
            stored = rows.select(stored_schema(binding).names)
            if not self._differing:
                copy_in(connection, table.qualified, stored)
                return
        else:
            stored = last_of_each_key(rows, binding.key)
        refuse_cut(stored, self._differing, table.label, binding.sink)
        with staging(connection, table, stored.schema, prepared_as=prepared_as) as stage:
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
            found = read_token(connection, self._table, self.binding)
            if not same_token(found, move.expected):
                raise refuse_token(self.binding, found, move.expected)

    def _roll_back(self) -> None:
        """Or hang up, which comes to the same."""
        try:
            if self._connection is not None:
                self._connection.execute("ROLLBACK")
        except psycopg().Error:
            self.close()

    def _finish(self, decide: Callable[[], None]) -> None:
        """A constraint that is checked at the end, and a conflict, roll back for certain; of the rest nobody knows."""
        try:
            decide()
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

    def _no_preparing(self) -> SinkRefused:
        return SinkRefused(
            f'{self._table.label} cannot join commit="together".',
            found="max_prepared_transactions = 0",
            next_step="Set it above the number of sinks that use the server, and restart that.",
            sink=self.binding.sink,
        )

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
