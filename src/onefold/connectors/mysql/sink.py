"""Tables of a MySQL or MariaDB database: a transactional sink.

The token stands in a table of its own, in a database that the user chooses, and moves by compare-and-set in the first
statement of the transaction that writes the rows. Rows travel as literals of long statements.
Source: MySQL's reference manual, chapters InnoDB Error Handling, Server Error Message Reference, and Transaction
Isolation Levels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from onefold.connectors.databases import demand_token, last_of_each_key, move_token, others, read_token, session_name
from onefold.connectors.mysql.connection import Server, said
from onefold.connectors.mysql.limits import storable
from onefold.connectors.mysql.prepared import (
    abort_prepared,
    begin,
    commit_prepared,
    demand_preparing,
    end,
    forget,
    handle_name,
    listed,
    prepare,
)
from onefold.connectors.mysql.session import Session, end_sessions_of, pymysql
from onefold.connectors.mysql.tables import (
    Shape,
    TableName,
    definition,
    demand_rights,
    demand_table,
    ensure_token_row,
    ensure_tokens,
    is_gone,
    is_there,
    make_table,
    read_rows,
)
from onefold.connectors.mysql.types import declared_type, from_mysql, quoted
from onefold.connectors.mysql.writing import ROWS_AT_FAULT, Writer
from onefold.connectors.preparing import RUN_AGAIN, PreparingSink, name_in, undecided
from onefold.connectors.sifting import Sieve
from onefold.connectors.spooling import (
    check_names,
    refuse_gone,
    refuse_taken,
    rows_of,
    stored_schema,
)
from onefold.disk import durable_step
from onefold.errors import BuildError, OnefoldError, OutcomeUnknown, RowsRefused, SinkRefused, SinkUnavailable, check
from onefold.protocols import CheckResult, Clock, RefusedRow, SinkPromise
from onefold.types import Binding, CommitClass, EpochHead, Handle, Receipt, Token, TokenMove

__all__ = ["MysqlSink"]

_TOO_BUSY = frozenset({1203, 1226})
"""Errors of a user who has no more connections or statements now; their SQLSTATE says 42, of what cannot be."""

_ROLLED_BACK = frozenset({1205, 1213, 3101})
"""Errors of a COMMIT that say that it did not happen: a conflict between the servers of a cluster."""


class MysqlSink(PreparingSink):
    """Append, upsert and deletes; of an upsert the last row of a key wins, and NULL is a key value like any other."""

    def __init__(
        self,
        server: Server,
        name: str,
        *,
        database: str | None = None,
        is_made: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(f"{server.label}.{name if database is None else f'{database}.{name}'}", clock)
        self._server = server
        self._name = name
        self._database = database
        self._is_made = is_made
        self._table: TableName | None = None
        self._shape: Shape | None = None
        self._packet_bytes: int | None = None
        self._session: Session | None = None
        self._refused: list[RefusedRow] = []

    @property
    def label(self) -> str:
        """mysql(url).name, or with the database when it is not the URL's."""
        return self._shown_as

    @property
    def promise(self) -> SinkPromise:
        """Transactional."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=f"mysql:{self._server.target}:{self._database or ''}.{self._name}",
            tokens=self._server.tokens or "",
            deletes=True,
            can_prepare_together=True,
            conditions=(
                "what the server has acknowledged survives a crash (innodb_flush_log_at_trx_commit=1), and a failover",
                "where the server keeps a binary log, each commit is on disk in it (sync_binlog=1)",
                "one server at a time takes writes",
                "nobody but onefold writes the table of tokens",
            ),
            conditions_together=(
                "a server that takes over, or is restored, has what was prepared: a dump has not",
                RUN_AGAIN,
            ),
        )

    def open(self, binding: Binding) -> Token | None:
        """Connect, check or make the tables, and read the token when nobody is moving it any more.

        What is prepared and undecided holds the token's row: it is not waited for. Nor is who waits for its locks, an
        ALTER TABLE perhaps, which lets nobody look at the table: who prepared it has checked all. The token as it
        stands is on disk then, since what was prepared upon it is.
        Raises SinkUnavailable, SinkRefused, SettingMissing, ExtraMissing; TargetTaken when others write to the table;
        SchemaError when it cannot take the rows. If killed inside: the tables are there or not.
        """
        self._binding = binding
        self.close()
        check_names(binding, self.label)
        for field in stored_schema(binding):
            declared_type(field, self.label)
            quoted(field.name)
        self._session = session = self._server.connect(SinkUnavailable)
        with self._nothing_written():
            self._table = table = self._table_of(session)
            with durable_step("mysql.fence"):
                end_sessions_of(session, session_name(table, binding))
            if binding.is_together:
                demand_preparing(session, table, binding)
            self._listed = listed(session, table, binding)
            if self._listed:
                self._shape = None
                return read_token(session, table, binding)
            ensure_tokens(session, table, binding)
            refuse_taken(binding, self.label, others(session, table, binding))
            if is_gone(session, table, binding):
                refuse_gone(binding, self.label)
            if self._is_made:
                make_table(session, table, binding)
            self._shape, self._packet_bytes = demand_table(session, table, binding), session.packet_bytes
            session.execute("START TRANSACTION")
            demand_rights(session, table, binding)
            token = ensure_token_row(session, table, binding)
            with durable_step("mysql.open"):
                session.execute("COMMIT")
            return token

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Spool the rows; under commit="together", prepare the XA transaction that writes them and moves the token.

        Rows are not even spooled that the table can never take. A prepared transaction uses the connection of `commit`:
        nothing else of this sink is under way then. If killed inside: nothing is visible; what was prepared, `handles`
        finds. Raises SinkUnavailable, RowsRefused, TokenRefused, DiskError.
        """
        binding, label, shape, packet = self.binding, self.label, self._shape, self._packet_bytes
        taken = batches if binding.is_sifted else (storable(one, binding, label, shape, packet) for one in batches)
        if epoch.move is None:
            return super().prepare(epoch, taken)
        rows = pa.Table.from_batches(taken, binding.schema)
        check(self._table is not None, "a sink that prepares was opened", sink=binding.sink)
        name = handle_name(self._table, binding, epoch)  # type: ignore[arg-type]
        self._persist(partial(self._begin_again, epoch.move, name), partial(self._prepare_as, name, rows, epoch.move))
        return Receipt(epoch.number, "native", rows.num_rows, rows.nbytes, {"name": name})

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Rows and token in one transaction: a new one, or the one that was prepared."""
        name = name_in(receipts, self.binding)
        if name is not None:
            session, _ = self._connected()
            with durable_step("mysql.commit"):
                self._finish(lambda: commit_prepared(session, name))
            return
        rows = rows_of(self.binding, receipts)
        if move is None and not rows.num_rows:
            return
        session = self._begin_and_write(rows, move)
        with durable_step("mysql.commit"):
            self._finish(lambda: session.execute("COMMIT"))

    def abort(self, handle: Handle) -> None:
        """Forget a prepared transaction; one that is decided stays so."""
        with self._some_session() as (session, table), durable_step("mysql.abort"):
            abort_prepared(session, table, self.binding, handle.detail["name"])

    def refused(self) -> Sequence[RefusedRow]:
        """See Sifting."""
        return self._refused

    def close(self) -> None:
        """Hang up."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token in one snapshot; of a table that is not there, none. Raises SinkUnavailable."""
        self._binding = binding
        schema = stored_schema(binding)
        with self._server.session(SinkUnavailable) as session, self._nothing_written():
            table = self._table_of(session)
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            rows = read_rows(session, table, schema)
            token = read_token(session, table, binding) if is_there(session, table.of_tokens) else None
        values = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
        arrays = [from_mysql(column, field.type) for column, field in zip(values, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema), token

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Does the server let us in, is the table there, and is anything prepared and undecided? Writes nothing."""
        try:
            with self._server.session(SinkUnavailable) as session, self._nothing_written():
                table = self._table_of(session)
                is_found = is_there(session, table)
                handles = listed(session, table, binding) if binding else ()
                if binding and binding.is_together:
                    demand_preparing(session, table, binding)
        except OnefoldError as error:
            return [CheckResult(self.label, "failed", str(error.found or error.summary), error.next_step or "")]
        if not is_found and not self._is_made:
            return [CheckResult(self.label, "failed", "there is no such table", "Make it, or say create=True.")]
        return [CheckResult(self.label, "ok", "is there" if is_found else "will be made"), *undecided(handles)]

    # ------------------------------------------------------------------------------------------------------- inner

    def _table_of(self, session: Session) -> TableName:
        own = self._server.database
        table = TableName(self._database or own, self._name, self._server.tokens or own, self.label)
        return table.folded() if session.folds_names else table

    def _connected(self) -> tuple[Session, TableName]:
        if self._session is None or self._table is None:
            raise SinkUnavailable(f"{self.label} was cut off, and is to be opened again.", sink=self.binding.sink)
        return self._session, self._table

    @contextlib.contextmanager
    def _some_session(self) -> Iterator[tuple[Session, TableName]]:
        """The sink's own, or another when that was cut off."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._nothing_written())
            session = self._session or stack.enter_context(self._server.session(SinkUnavailable))
            yield session, self._table_of(session)

    @property
    def _is_cut_off(self) -> bool:
        return self._session is None

    def _hang_up(self) -> None:
        self.close()

    def _prepare_as(self, name: str, rows: pa.Table, move: TokenMove) -> None:
        session = self._begin_and_write(rows, move, prepared_as=name)
        with durable_step("mysql.prepare"):
            self._finish(lambda: prepare(session, name))

    def _prepared_now(self) -> Sequence[Handle]:
        with self._some_session() as (session, table):
            return listed(session, table, self.binding)

    def _begin_and_write(self, rows: pa.Table, move: TokenMove | None, *, prepared_as: str | None = None) -> Session:
        """A transaction with the token's move and the rows in it, not ended yet."""
        session, table = self._connected()
        self._refused = []
        with self._nothing_written(move, is_commit=True, prepared_as=prepared_as):
            if prepared_as is None:
                session.execute("START TRANSACTION")
            else:
                begin(session, prepared_as)
            if move is not None:
                move_token(session, table, self.binding, move)
            if rows.num_rows:
                with durable_step("mysql.write"):
                    self._write(session, table, rows, is_preparing=prepared_as is not None)
            if prepared_as is not None:
                end(session, prepared_as)
        return session

    def _write(self, session: Session, table: TableName, rows: pa.Table, *, is_preparing: bool) -> None:
        """The table that was looked at when the sink was opened may be another by now: one without transactions, or
        without its index. Once it was read in the transaction nobody can alter it before that ends.

        Rows are left out only before the seal: what is sealed is delivered whole."""
        session.execute(f"SELECT 1 FROM {table.qualified} LIMIT 0")
        if self._shape is None or definition(session, table) != self._shape.definition:
            self._demand_again(session, table)
        if not (self.binding.is_sifted and is_preparing):
            self._put(session, table, rows)
            return
        put = partial(self._put, session, table, names_rows=False)
        sieve = Sieve(self.label, self.binding.sink, session.execute, put, self._refusal)
        self._refused = sieve.pass_through(rows)

    def _put(self, session: Session, table: TableName, rows: pa.Table, *, names_rows: bool = True) -> None:
        binding = self.binding
        for batch in rows.to_batches():
            storable(batch, binding, self.label, self._shape, session.packet_bytes)
        writer = Writer(session, table, binding, names_rows=names_rows)
        if binding.mode == "append":
            writer.append(rows.select(stored_schema(binding).names))
        else:
            writer.upsert(last_of_each_key(rows, binding.key))

    def _demand_again(self, session: Session, table: TableName) -> None:
        """Go on with an altered table that still keeps what it is given. Raises SinkRefused."""
        try:
            self._shape = demand_table(session, table, self.binding)
        except BuildError as error:
            raise self._changed(f"{error.summary} {error.found}", error.next_step) from error

    @contextlib.contextmanager
    def _nothing_written(
        self, move: TokenMove | None = None, *, is_commit: bool = False, prepared_as: str | None = None
    ) -> Iterator[None]:
        """Before COMMIT every failure leaves the tables as they were, once the whole transaction is rolled back: after
        some errors the server has forgotten all of it and would commit what follows, after others one statement."""
        try:
            yield
        except pymysql().Error as error:
            self._roll_back(prepared_as)
            if move is not None and self._session is None:
                self._refuse_if_moved(move)
            raise self._failure(error, is_commit=is_commit) from None
        except OnefoldError:
            self._roll_back(prepared_as)
            raise
        except BaseException:
            self.close()
            raise

    def _refuse_if_moved(self, move: TokenMove) -> None:
        """A session that ended may have been ended by a newer instance: if that has gone on, say so."""
        with contextlib.suppress(SinkUnavailable, SinkRefused), self._server.session(SinkUnavailable) as session:
            demand_token(session, self._table_of(session), self.binding, move.expected)

    def _roll_back(self, prepared_as: str | None) -> None:
        """Or hang up, which comes to the same."""
        try:
            if self._session is None:
                return
            if prepared_as is None:
                self._session.execute("ROLLBACK")
            else:
                forget(self._session, prepared_as)
        except pymysql().Error:
            self.close()

    def _finish(self, decide: Callable[[], object]) -> None:
        """Nothing is checked at the end. A conflict rolls back for certain; of the rest nobody knows."""
        try:
            decide()
        except pymysql().Error as error:
            self.close()
            if error.args and error.args[0] in _ROLLED_BACK:
                raise self._failure(error, is_commit=True) from None
            found = self._server.clean(said(error))
            raise OutcomeUnknown(
                f"{self.label} did not answer a commit.", found=found, sink=self.binding.sink
            ) from error
        except BaseException:
            self.close()
            raise

    def _refusal(self, error: Exception) -> RowsRefused | None:
        failure = self._failure(error, is_commit=True) if isinstance(error, pymysql().Error) else error
        return failure if isinstance(failure, RowsRefused) else None

    def _failure(self, error: Any, *, is_commit: bool) -> Exception:
        sink = self._binding.sink if self._binding else None
        code = error.args[0] if error.args else 0
        if is_commit and code in ROWS_AT_FAULT:
            return RowsRefused(f"{self.label} refuses rows.", found=said(error), sink=sink)
        failure = self._server.failure(error, SinkUnavailable, sink=sink)
        state = str(getattr(error, "sqlstate", None) or "")
        if isinstance(failure, SinkUnavailable) and state.startswith("42") and code not in _TOO_BUSY:
            return self._changed(said(error)) if is_commit else self._impossible(said(error))
        return failure

    def _changed(self, found: str, next_step: str | None = None) -> SinkRefused:
        """A table or a column is not there any more, or not as it was."""
        return SinkRefused(
            f"{self.label} was changed meanwhile.", found=found, next_step=next_step, sink=self.binding.sink
        )

    def _impossible(self, found: str) -> SinkRefused:
        next_step = "Change the flow's select, or make the table yourself."
        return SinkRefused(f"{self.label} cannot be so.", found=found, next_step=next_step, sink=self.binding.sink)
