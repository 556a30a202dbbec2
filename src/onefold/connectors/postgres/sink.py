"""Tables of a PostgreSQL database: a transactional sink.

The token stands in a table of its own, in a schema that the user chooses, and moves by compare-and-set in the first
statement of the transaction that writes the rows. Rows travel as binary COPY. Sinks of one database that commit
together write one transaction (sessions.py).
Source: PostgreSQL's documentation, chapters COPY, MERGE and Transaction Isolation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from onefold.connectors.databases import last_of_each_key, move_token, others, session_name
from onefold.connectors.postgres.connection import Server, acknowledge_when_durable, end_sessions_of, psycopg
from onefold.connectors.postgres.copying import copy_in
from onefold.connectors.postgres.demands import Shape, demand_rights, demand_still, demand_table, demand_tokens
from onefold.connectors.postgres.limits import storable
from onefold.connectors.postgres.prepared import (
    IS_GONE,
    abort_prepared,
    can_prepare,
    commit_prepared,
    handle_name,
    listed,
    prepare,
)
from onefold.connectors.postgres.refusal import cannot_prepare, failure_of, was_rolled_back
from onefold.connectors.postgres.sessions import Session, Share, begin_all, session_of, shared_name
from onefold.connectors.postgres.tables import (
    TableName,
    demanding,
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
from onefold.connectors.preparing import RUN_AGAIN, PreparingSink, name_in, undecided
from onefold.connectors.sifting import Sieve
from onefold.connectors.spooling import (
    check_names,
    refuse_gone,
    refuse_taken,
    refuse_token,
    rows_of,
    same_token,
    stored_schema,
)
from onefold.disk import durable_step
from onefold.errors import OnefoldError, OutcomeUnknown, RowsRefused, SinkRefused, SinkUnavailable
from onefold.protocols import CheckResult, Clock, RefusedRow, SinkPromise
from onefold.types import Binding, CommitClass, EpochHead, Handle, Receipt, Token, TokenMove

__all__ = ["PostgresSink"]


class PostgresSink(PreparingSink):
    """Append, upsert and deletes; of an upsert the last row of a key wins, and NULL is a key value like any other."""

    def __init__(self, server: Server, table: TableName, *, is_made: bool = False, clock: Clock | None = None) -> None:
        super().__init__(table.label, clock)
        self._server = server
        self._table = table
        self._is_made = is_made
        self._shape = Shape()
        self._session = Session()
        self._refused: Sequence[RefusedRow] = ()

    @property
    def promise(self) -> SinkPromise:
        """Transactional."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=f"postgres:{self._server.target}:{self._table.schema}.{self._table.name}",
            tokens=self._server.tokens,
            deletes=True,
            can_prepare_together=True,
            conditions=(
                "what the server has acknowledged survives a crash, and a failover: fsync is on, a standby synchronous",
                "nobody but onefold writes the table of tokens",
            ),
            conditions_together=(
                "max_prepared_transactions of the server is above the number of flows that use it at once",
                RUN_AGAIN,
            ),
        )

    def open(self, binding: Binding) -> Token | None:
        """Connect, check or make the tables, and read the token when nobody is moving it any more.

        Raises SinkUnavailable, SinkRefused, SettingMissing, ExtraMissing; TargetTaken when others write to the table;
        SchemaError when it cannot take the rows. If killed inside: the tables are there or not.
        A session that is shared and at work is used as it is: it has ended those of earlier instances.
        """
        self.close()
        self._binding = binding
        check_names(binding, self._table.label)
        for field in stored_schema(binding):
            declared_type(field, self._table.label)
            quoted(field.name)
        self._session = session_of(self._server, self._table, binding)
        with self._session.lock, self._nothing_written():
            connection = self._session.join(self._server, binding.sink)
            acknowledge_when_durable(connection)
            with durable_step("postgres.fence"):
                end_sessions_of(connection, session_name(self._table, binding), shared_name(self._server, binding))
            self._listed = listed(connection, self._server, binding)
            if binding.is_together and not can_prepare(connection):
                raise cannot_prepare(self._table, binding.sink)
            connection.execute("BEGIN")
            ensure_tokens(connection, self._table)
            demand_tokens(connection, self._table, binding)
            refuse_taken(binding, self._table.label, others(connection, self._table, binding))
            if is_gone(connection, self._table, binding):
                refuse_gone(binding, self._table.label)
            if self._is_made:
                make_table(connection, self._table, binding)
            self._shape = demand_table(connection, self._table, binding)
            if not self._listed:  # or it would wait for who waits for what is prepared, such as an ALTER TABLE
                demand_rights(connection, self._table, binding, self._shape)
            token = ensure_token_row(connection, self._table, binding, is_locked=not self._listed)
            with durable_step("postgres.create"):
                connection.execute("COMMIT")
            return token

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Spool the rows; under commit="together", prepare the transaction that writes them and moves the token.

        Of the sinks that share a session the last one prepares the rows of all, so the rows of the others are durable
        when that has returned: before the seal. It uses the connection of `commit`: nothing else is under way then.
        """
        binding, label = self.binding, self._table.label
        if not binding.is_sifted:
            batches = (storable(batch, label, binding.sink) for batch in batches)
        if epoch.move is None:
            return super().prepare(epoch, batches)
        rows = pa.Table.from_batches(batches, binding.schema)
        with self._session.lock:
            name = handle_name(self._server, self.binding, epoch, self._session.due(epoch, self.binding.sink))
            shares = self._session.gather(epoch, self.binding.sink, self._share(rows, epoch.move, name))
            if shares:
                self._persist(partial(begin_all, shares), partial(self._prepare_all, shares, name, epoch.move))
        return Receipt(epoch.number, "native", rows.num_rows, rows.nbytes, {"name": name})

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Rows and token in one transaction: a new one, or the one that was prepared."""
        name = name_in(receipts, self.binding)
        with self._session.lock:
            if name is not None:
                self._commit_prepared(name, move)
                return
            rows = rows_of(self.binding, receipts)
            if move is None and not rows.num_rows:
                return
            self._begin(move)
            self._move(move)
            self._write(rows)
            self._finish("postgres.commit", lambda: self._connected().execute("COMMIT"))

    def abort(self, handle: Handle) -> None:
        """Forget a prepared transaction; one that is decided stays so."""
        with self._some_session() as connection, durable_step("postgres.abort"):
            try:
                abort_prepared(connection, handle.detail["name"])
            except psycopg().Error as error:
                if error.sqlstate != IS_GONE:
                    raise

    def refused(self) -> Sequence[RefusedRow]:
        """See Sifting."""
        return self._refused

    def close(self) -> None:
        """Hang up, when no other sink uses the session."""
        if self._binding is not None:
            self._session.leave(self._binding.sink)

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token in one snapshot; of a table that is not there, none. Raises SinkUnavailable."""
        self._binding = binding
        schema = stored_schema(binding)
        with self._in_our_words(), self._server.session(SinkUnavailable) as connection:
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
            with self._in_our_words(), self._server.session(SinkUnavailable) as connection:
                found = connection.execute("SELECT to_regclass(%s)", [self._table.qualified]).fetchone()[0]
                handles = listed(connection, self._server, binding) if binding else ()
                is_able = not (binding and binding.is_together) or can_prepare(connection)
        except OnefoldError as error:
            return [CheckResult(what, "failed", str(error.found or error.summary), error.next_step or "")]
        if found is None and not self._is_made:
            return [CheckResult(what, "failed", "there is no such table", "Make it, or say create=True.")]
        if not is_able:
            step = "Set it above the number of flows that use the server at once, and restart it."
            return [CheckResult(what, "failed", "max_prepared_transactions is 0", step)]
        return [CheckResult(what, "ok", "will be made" if found is None else "is there"), *undecided(handles)]

    # ------------------------------------------------------------------------------------------------------- inner

    def _connected(self, error: type[SinkUnavailable | OutcomeUnknown] = SinkUnavailable) -> Any:
        if self._session.connection is None:
            raise error(f"{self._table.label} was cut off, and is to be opened again.", sink=self.binding.sink)
        return self._session.connection

    @contextlib.contextmanager
    def _some_session(self) -> Iterator[Any]:
        """The sink's own, or another when that was cut off."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._session.lock)
            stack.enter_context(self._nothing_written())
            yield self._session.connection or stack.enter_context(self._server.session(SinkUnavailable))

    def _share(self, rows: pa.Table, move: TokenMove, name: str) -> Share:
        """What this sink has in the transaction that will have this name."""
        return Share(
            begin_again=partial(self._begin_again, move, name),
            move=partial(self._move, move),
            write=partial(self._write, rows, prepared_as=name),
            failure=self._failure,
            owns=lambda found: (found.schema_name, found.table_name) == (self._table.schema, self._table.name),
        )

    @property
    def _is_cut_off(self) -> bool:
        return self._session.connection is None

    def _hang_up(self) -> None:
        self._session.hang_up()

    def _prepared_now(self) -> Sequence[Handle]:
        with self._some_session() as connection:
            return listed(connection, self._server, self.binding)

    def _prepare_all(self, shares: Sequence[Share], name: str, move: TokenMove) -> None:
        """One transaction with every token's move and all rows."""
        self._begin(move)
        for share in shares:
            share.move()
        for share in shares:
            share.write()
        self._finish("postgres.prepare", lambda: prepare(self._connected(), name), shares)

    def _commit_prepared(self, name: str, move: TokenMove | None) -> None:
        """Once for all sinks whose rows are in it."""
        if self._session.decided == name:
            return
        self._finish("postgres.commit", lambda: self._decide(name, move))
        self._session.decided = name

    def _decide(self, name: str, move: TokenMove | None) -> None:
        """A transaction that is gone was decided, perhaps through another sink: how, the token tells."""
        connection = self._connected(OutcomeUnknown)
        try:
            commit_prepared(connection, name)
        except psycopg().Error as error:
            if error.sqlstate != IS_GONE or move is None:
                raise
            if not same_token(read_token(connection, self._table, self.binding), move.new):
                raise

    def _begin(self, move: TokenMove | None) -> None:
        with self._nothing_written(move):
            self._connected().execute("BEGIN")

    def _move(self, move: TokenMove | None) -> None:
        """In the transaction under way."""
        if move is not None:
            with self._nothing_written(move):
                move_token(self._connected(), self._table, self.binding, move)

    def _write(self, rows: pa.Table, *, prepared_as: str | None = None) -> None:
        """In the transaction under way. Rows are left out only before the seal: what is sealed is delivered whole."""
        self._refused = ()
        if not rows.num_rows:
            return
        with self._nothing_written(), durable_step("postgres.write"), self._stage(rows, prepared_as) as stage:
            if self.binding.is_sifted and prepared_as is not None:
                self._refused = self._sieve(stage).pass_through(rows)
            else:
                self._put_or_name(stage, rows, prepared_as)

    @contextlib.contextmanager
    def _stage(self, rows: pa.Table, prepared_as: str | None) -> Iterator[str | None]:
        """Where rows wait to be merged; None: they go straight into the table. That may be another by now."""
        self._shape = demand_still(self._connected(), self._table, self.binding, self._shape)
        if self.binding.mode == "append" and not self._shape.differing:
            yield None
            return
        schema = stored_schema(self.binding) if self.binding.mode == "append" else rows.schema
        with staging(self._connected(), self._table, schema, prepared_as=prepared_as) as stage:
            yield stage

    def _put(self, stage: str | None, rows: pa.Table) -> None:
        connection, table, binding = self._connected(), self._table, self.binding
        is_append = binding.mode == "append"
        stored = rows.select(stored_schema(binding).names) if is_append else last_of_each_key(rows, binding.key)
        if stage is None:
            copy_in(connection, table.qualified, stored)
            return
        refuse_cut(stored, self._shape.differing, table.label, binding.sink)
        copy_in(connection, stage, stored)
        merge(connection, table, binding, stage, self._shape.differing)

    def _put_or_name(self, stage: str | None, rows: pa.Table, prepared_as: str | None) -> None:
        """The server names neither the row nor, often, the value: look for it in a transaction that is taken back."""
        try:
            self._put(stage, rows)
        except psycopg().DataError as error:
            self._session.roll_back()
            self._connected().execute("BEGIN")
            with self._stage(rows, prepared_as) as again:
                raise self._sieve(again).first(rows) or self._failure(error) from None

    def _sieve(self, stage: str | None) -> Sieve:
        connection, write = self._connected(), partial(self._put_anew, stage)
        demand = demanding(connection, self._table)
        return Sieve(self._table.label, self.binding.sink, connection.execute, write, self._refusal, demand)

    def _put_anew(self, stage: str | None, rows: pa.Table) -> None:
        """A piece; the one before was merged. A table for each would hold a lock each until the end."""
        if stage is not None:
            self._connected().execute(f"DELETE FROM {stage}")
        self._put(stage, rows)

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except psycopg().Error as error:
            raise self._failure(error) from None

    @contextlib.contextmanager
    def _nothing_written(self, move: TokenMove | None = None) -> Iterator[None]:
        """Before COMMIT every failure leaves the tables as they were: the server forgets an unfinished transaction."""
        try:
            yield
        except psycopg().Error as error:
            self._session.roll_back()
            if move is not None and self._session.connection is None:
                self._refuse_if_moved(move)
            raise self._failure(error) from None
        except OnefoldError:
            self._session.roll_back()
            raise
        except BaseException:
            self._session.hang_up()
            raise

    def _refuse_if_moved(self, move: TokenMove) -> None:
        """A session that ended may have been ended by a newer instance: if that has gone on, say so."""
        with contextlib.suppress(SinkUnavailable, SinkRefused), self._server.session(SinkUnavailable) as connection:
            found = read_token(connection, self._table, self.binding)
            if not same_token(found, move.expected):
                raise refuse_token(self.binding, found, move.expected)

    def _finish(self, step: str, decide: Callable[[], None], shares: Sequence[Share] = ()) -> None:
        """End the transaction under way: for certain, or nobody knows. shares: the sinks whose rows are in it."""
        try:
            with durable_step(step):
                decide()
        except psycopg().Error as error:
            self._session.hang_up()
            if was_rolled_back(error):
                failure = next((share.failure for share in shares if share.owns(error.diag)), self._failure)
                raise failure(error) from None
            raise OutcomeUnknown(
                f"{self._table.label} did not answer a commit.",
                found=self._server.clean(str(error)),
                sink=self.binding.sink,
            ) from error
        except BaseException:
            self._session.hang_up()
            raise

    def _refusal(self, error: Exception) -> RowsRefused | None:
        failure = self._failure(error) if isinstance(error, psycopg().Error) else error
        return failure if isinstance(failure, RowsRefused) else None

    def _failure(self, error: Any) -> Exception:
        return failure_of(error, self._server, self._table, self._binding.sink if self._binding else None)
