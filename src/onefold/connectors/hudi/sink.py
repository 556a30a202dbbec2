"""The Hudi sink: rows and the token's move are one commit of Hudi's timeline, made by Hudi's own Java writer.

A commit has two halves. `write` puts the rows into files under an instant that is pending: nobody sees them. Then they
are synced, and `commit` completes the instant, with the token in its metadata, if the token is still the expected one
and the instant still pending. In a folder this is asked and done under a lock that the Java process holds; in a store
it is decided by a record beside the table (deciding.py). An instance that wakes up too late finds the token moved, or
its instant rolled back by the successor's `open`.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from onefold.connectors.databases import last_of_each_key, owner_of
from onefold.connectors.hudi import reading
from onefold.connectors.hudi.deciding import OWN, StoreTable
from onefold.connectors.hudi.jars import demand_store_jars
from onefold.connectors.hudi.jvm import HudiTable, machine
from onefold.connectors.hudi.naming import PROPERTIES
from onefold.connectors.hudi.place import Place
from onefold.connectors.hudi.prefix import Prefix
from onefold.connectors.hudi.rows import Layout, avro_schema, handover, stored_columns
from onefold.connectors.hudi.shape import DEFAULTS, WITHOUT_KEY, Target, agreed, new_settings
from onefold.connectors.spooling import (
    SpooledSink,
    check_key,
    check_names,
    file_name,
    refuse_taken,
    refuse_token,
    rows_of,
)
from onefold.disk import durable_step
from onefold.errors import DiskError, SinkRefused, SinkUnavailable, check
from onefold.protocols import CheckResult, Maintained, SinkPromise
from onefold.types import (
    Binding,
    CommitClass,
    Mode,
    Receipt,
    Token,
    TokenMove,
    canonical_json,
)

__all__ = ["HudiSink"]

STATE = "onefold.token."
"""Keys of a commit's metadata begin with it; the owner follows."""

WAIT_SECONDS = 60.0

_OF_A_FOLDER = ("the table is on a local file system whose file locks work between all processes that write to it",)
_OF_A_STORE = (
    "the store compares and writes in one step (If-None-Match and If-Match)",
    "one process at a time looks after the table",
)
_OF_ALL = (
    "no other program writes to the table while the flow does; before and after it may",
    "nobody changes what is below .hoodie, or rolls back or restores the table while the flow runs",
)

_writing: dict[str, threading.Lock] = {}


class HudiSink(SpooledSink):
    """Append, and upsert with deletes, into a copy-on-write table."""

    def __init__(self, target: Target, mode: Mode, key: Sequence[str]) -> None:
        self._target = target
        self._mode: Mode = mode
        self._key = tuple(key)
        self._lies: Place | None = None
        self._table: HudiTable | StoreTable | None = None
        self._layout: Layout | None = None

    @property
    def promise(self) -> SinkPromise:
        """Transactional: the token is in the metadata of the commit that shows the rows."""
        address = self._target.address
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=address.target,
            deletes=True,
            conditions=(*(_OF_A_STORE if address.is_remote else _OF_A_FOLDER), *_OF_ALL),
        )

    @property
    def commit_every_seconds(self) -> float:
        """Every commit is a version of the table."""
        return self._target.commit_every_seconds

    @property
    def maintain_every_seconds(self) -> float | None:
        """As the user says."""
        return self._target.maintain_every_seconds

    # ------------------------------------------------------------------------------------------------------------ open

    def open(self, binding: Binding) -> Token | None:
        """Make the table if there is none; roll back what earlier instances began; read the token.

        Raises SchemaError, SinkRefused, SinkUnavailable, TargetTaken, OutcomeUnknown, ExtraMissing.
        If killed inside: the table is there or not, and what was pending is still, or not.
        """
        self._binding = binding
        label = self._target.label
        check_key(binding.mode, binding.key, label)
        check_names(binding, label)
        wanted = stored_columns(binding)
        place, table = self._place, self._connect()
        with self._failures():
            if not place.has(PROPERTIES):
                self._create(place, wanted)
            place.refuse_torn(binding)
        with durable_step("hudi.open"):
            state = table.open()
        refuse_taken(binding, label, _others(state, binding))
        self._layout = agreed(binding, self._target, table.settings(), table.schema(), wanted)
        self._table = table
        return _token_in(state, binding)

    def _connect(self) -> HudiTable | StoreTable:
        place, target = self._place, self._target
        options = {**DEFAULTS, **({} if self._key else WITHOUT_KEY), **target.options}
        if not isinstance(place, Prefix):
            return self._table_at(place.for_java, options)
        demand_store_jars(target.jars)
        return StoreTable(self._table_at(place.for_java, {**options, **OWN}), place, target.label)

    def _table_at(self, base: str, options: Mapping[str, str]) -> HudiTable:
        running = machine(jars=self._target.jars, options=self._target.java_options)
        return running.table(base, options, self._place.hadoop)

    def _create(self, place: Place, columns: pa.Schema) -> None:
        binding, target = self.binding, self._target
        strangers = place.strangers()
        if strangers:
            raise SinkRefused(
                f"{target.label} is no Hudi table, and its folder is not empty.",
                found=", ".join(sorted(strangers)[:5]),
                next_step="Name an empty folder, or one that is not there yet.",
                sink=binding.sink,
            )
        settings = new_settings(binding, target, columns)
        place.lay_out(
            lambda base: self._table_at(base, {}).create(target.table_name, settings),
            f"{file_name(binding.journal)}-{binding.incarnation}",
        )

    # ---------------------------------------------------------------------------------------------------------- commit

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Write, sync, then complete the instant with the token in it; sync that.

        Raises TokenRefused, SinkUnavailable, OutcomeUnknown. If killed inside: the instant is completed, or pending:
        then the next `open` rolls it back.
        """
        binding, table = self.binding, self._opened
        rows = rows_of(binding, receipts)
        if move is None and not rows.num_rows:
            return
        owner = canonical_json(owner_of(binding))
        expected = None if move is None else _prefix(move.expected)
        with _alone(self._target.address.target, self._target.label), self._failures():
            if binding.mode == "upsert":
                rows = last_of_each_key(rows, binding.key)
            with durable_step("hudi.write"):
                answer = self._write(rows, owner, expected, move)
            if answer[0] == "moved":
                raise refuse_token(binding, _token(answer[1]), move.expected if move else None)
            instant, files = answer[1], answer[2:]
            with durable_step("hudi.sync"):
                self._place.sync(files)
            new = None if move is None else _text(move.new)
            with durable_step("hudi.commit"):
                answer = table.commit(instant, owner=owner, expected=expected, new=new)
            if answer[0] != "done":
                self._forget(instant, files)
            if answer[0] == "moved":
                raise refuse_token(binding, _token(answer[1]), move.expected if move else None)
            if answer[0] != "done":
                raise SinkUnavailable(
                    f"What was being written to {self._target.label} was rolled back by another writer.",
                    sink=binding.sink,
                    next_step="It is delivered again. If this goes on: let only one program write to the table.",
                )
            with durable_step("hudi.commit-sync"):
                self._place.sync(())

    def _write(self, rows: pa.Table, owner: str, expected: str | None, move: TokenMove | None) -> Sequence[str]:
        table, layout = self._opened, self._laid_out
        binding = self.binding
        schema = avro_schema(layout.columns, self._target.table_name)
        operation = "upsert" if binding.mode == "upsert" else "insert"
        seal = f"{move.new.epoch:020d}-{move.new.seal}" if move else f"untold-{binding.journal}-{binding.incarnation}"
        with tempfile.TemporaryDirectory(prefix="onefold-hudi-") as scratch:
            file = Path(scratch) / "rows.parquet" if rows.num_rows else None
            if file is not None:
                handover(rows, layout, seal, file)
            return table.write(file, schema, operation, owner=owner, expected=expected)

    def _forget(self, instant: str, files: Sequence[str]) -> None:
        """What will never be shown. A file whose instant is gone could be taken for a committed one when the timeline
        is archived, so ours do not stay."""
        self._opened.abandon(instant)
        for name in files:
            self._place.remove(name, step="hudi.abandon")

    def close(self) -> None:
        """The machine stays: other sinks use it."""
        self._table = None

    # ------------------------------------------------------------------------------------------------------------ other

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows, in the order of their commits, and the token, of one version. Raises SinkUnavailable."""
        self._binding = binding
        wanted = stored_columns(binding)
        table = self._connect()
        state, files = table.snapshot()
        with self._failures():
            rows = reading.rows_in(self._place, files, wanted)
        schema = pa.schema([binding.schema.field(name) for name in wanted.names])
        return reading.cast(rows, schema), _token_in(state, binding)

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Is there Java, are there the jars, is there a folder? Starts nothing, fetches nothing."""
        return [self._place.checked(), *reading.checked(self._target.jars)]

    def maintain(self, binding: Binding, *, is_dry: bool) -> Sequence[Maintained]:
        """Remove files that no commit names, let Hudi clean file versions and archive its timeline.

        The token outlives archiving: it is read from the archived timeline too.
        """
        self._binding = binding
        table = self._connect()
        with self._failures():
            orphans = reading.orphans(self._place, table)
            if is_dry:
                return [Maintained("orphans", f"{len(orphans)} files")] if orphans else []
            for name in orphans:
                self._place.remove(name, step="hudi.orphan")
            table.maintain()
            self._place.sync(())
        return [Maintained("cleaned", f"{len(orphans)} files that no commit names; Hudi's clean and archive")]

    @property
    def _place(self) -> Place:
        if self._lies is None:
            self._lies = self._target.address.place()
        return self._lies

    @property
    def _opened(self) -> HudiTable | StoreTable:
        if self._table is None:
            raise SinkUnavailable(f"{self._target.label} is not open.", sink=self.binding.sink)
        return self._table

    @property
    def _laid_out(self) -> Layout:
        check(self._layout is not None, "a sink commits after it was opened", sink=self.binding.sink)
        return self._layout  # type: ignore[return-value]

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """A place that cannot be is refused; a sync that failed stays what it is."""
        label = self._target.label
        try:
            yield
        except DiskError as error:
            cause = error.__cause__
            if isinstance(cause, NotADirectoryError | PermissionError | FileExistsError):
                raise SinkRefused(
                    f"{label} cannot be a table: {cause.strerror}.",
                    found=cause.filename,
                    next_step="Name a folder that this user may write to, then run again: nothing is lost.",
                    sink=self.binding.sink,
                ) from error
            raise
        except PermissionError as error:
            raise SinkRefused(
                f"{label} may not be used.",
                found=str(error),
                next_step="Look at the name of the bucket and at the credentials, then run again: nothing is lost.",
                sink=self.binding.sink,
            ) from error
        except OSError as error:
            raise SinkUnavailable(f"{label} cannot be reached now.", found=str(error)) from error


# --------------------------------------------------------------------------------------------------------------- token


def _text(token: Token) -> str:
    return _prefix(token) + token.to_json()


def _prefix(token: Token | None) -> str:
    """What the text of a token begins with: its epoch and its seal."""
    return "" if token is None else f"{token.epoch} {token.seal} "


def _token(text: str) -> Token | None:
    if not text:
        return None
    return Token.from_json(text.split(" ", 2)[2])


def _token_in(state: Mapping[str, str], binding: Binding) -> Token | None:
    return _token(state.get(STATE + canonical_json(owner_of(binding)), ""))


def _others(state: Mapping[str, str], binding: Binding) -> list[Sequence[str]]:
    owners = [json.loads(key.removeprefix(STATE)) for key in state if key.startswith(STATE)]
    return [owner for owner in owners if owner != owner_of(binding)]


@contextlib.contextmanager
def _alone(target: str, label: str) -> Iterator[None]:
    """One delivery at a time into a table: Hudi rolls back what it finds pending when the next begins."""
    lock = _writing.setdefault(target, threading.Lock())
    if not lock.acquire(timeout=WAIT_SECONDS):
        raise SinkUnavailable(f"{label} is still being written to by another sink of this process.")
    try:
        yield
    finally:
        lock.release()
