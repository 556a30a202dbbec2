"""Transactions that commit out of order: every committed row comes once. Without either safeguard rows are lost."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from onefold.connectors.postgres import OutboxSource, outbox_waiting
from onefold.connectors.postgres import outbox as sources
from onefold.connectors.postgres import outbox_rows as rows
from onefold.connectors.postgres.outbox_place import Place
from onefold.protocols import Limit
from onefold.types import Position
from tests.services import outbox_controls as controls
from tests.services import outbox_tables as tables

pytestmark = pytest.mark.usefixtures("database")

WRITERS = 8
TRANSACTIONS = 60
LATE_SECONDS = 0.02


@pytest.fixture
def table(tmp_path: Path, database: str) -> str:
    return tables.make(tmp_path)


@pytest.fixture
def source(tmp_path: Path, table: str) -> Iterator[OutboxSource]:
    made = tables.source(tmp_path)
    made.open(None)
    yield made
    made.close()


@pytest.fixture
def without() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Takes a safeguard out of this process, and puts all of them back."""
    kept = [
        (owner, name, getattr(owner, name))
        for owner, name in ((rows, "_copy"), (sources, "look"), (Place, "is_before"), (OutboxSource, "_survives"))
    ]
    yield lambda safeguard: safeguard()
    for owner, name, value in kept:
        setattr(owner, name, value)


def begun(*, at_once: bool = True) -> Any:
    """A transaction that has its id already, if at_once."""
    connection = tables.connect()
    if at_once:
        connection.execute("SELECT pg_current_xact_id()")
    return connection


# ------------------------------------------------------------------------------------------------------ interleavings


def late_id(table: str, source: OutboxSource) -> list[int]:
    """Id 6 of the older transaction is committed, while id 5 of the younger one is still to come."""
    with begun() as older, begun() as younger:
        tables.insert(younger, table, 5)
        tables.insert(older, table, 6)
        older.commit()
        found, read = tables.take(source, {})
        younger.commit()
        return found + tables.drained(source, read.next)[0]


def late_transaction(table: str, source: OutboxSource) -> list[int]:
    """The younger transaction is committed first; both of its neighbours are still to come."""
    with begun() as older, begun() as younger:
        tables.insert(older, table, 1)
        tables.insert(younger, table, 2)
        younger.commit()
        found, read = tables.take(source, {})
        older.commit()
        return found + tables.drained(source, read.next)[0]


def test_id_5_of_the_younger_transaction_comes_after_id_6_of_the_older(table: str, source: OutboxSource) -> None:
    assert late_id(table, source) == [6, 5]


def test_a_transaction_that_commits_late_is_waited_for(table: str, source: OutboxSource) -> None:
    assert late_transaction(table, source) == [1, 2]


def test_by_id_alone_the_younger_row_is_lost(table: str, source: OutboxSource, without: Any) -> None:
    without(controls.ordered_by_id_alone)
    assert late_id(table, source) == [6]


def test_without_the_bound_the_older_row_is_lost(table: str, source: OutboxSource, without: Any) -> None:
    without(controls.without_the_bound)
    assert late_transaction(table, source) == [2]


def test_rows_that_wait_are_not_idle_and_come_when_the_older_transaction_ends(table: str, source: OutboxSource) -> None:
    with begun() as older:
        with tables.connect() as younger:
            tables.insert(younger, table, 1)
        found, read = tables.take(source, {})
        assert (found, read.next, read.is_idle) == ([], {}, False)
        older.rollback()
    found, read = tables.take(source, {})
    assert found == [1]
    assert tables.take(source, read.next)[1].is_idle


def test_what_is_not_committed_is_not_waited_for(table: str, source: OutboxSource) -> None:
    with begun() as open_one:
        tables.insert(open_one, table, 1)
        assert tables.take(source, {})[1].is_idle
        open_one.rollback()


def test_rows_of_savepoints_have_their_transactions_place(table: str, source: OutboxSource) -> None:
    """The system column xmin holds another id for each."""
    with tables.connect() as connection, begun() as older:
        tables.insert(connection, table, 1)
        connection.execute("SAVEPOINT one")
        tables.insert(connection, table, 2)
        connection.execute("SAVEPOINT two")
        tables.insert(connection, table, 3)
        connection.execute("ROLLBACK TO SAVEPOINT two")
        connection.execute("RELEASE SAVEPOINT one")
        tables.insert(connection, table, 4)
        connection.commit()
        tables.insert(older, table, 5)
        older.commit()
        distinct = connection.execute(f"SELECT count(DISTINCT xmin::text), count(DISTINCT transaction_id) FROM {table}")
        assert distinct.fetchone() == (3, 2)
    assert tables.drained(source, {})[0] == [5, 1, 2, 4]


def test_a_prepared_transaction_keeps_its_place(table: str, source: OutboxSource) -> None:
    with tables.connect(autocommit=True) as connection:
        gid = f"prepared {table}"
        connection.execute("BEGIN")
        tables.insert(connection, table, 9)
        connection.execute(f"PREPARE TRANSACTION '{gid}'")
        try:
            tables.insert(connection, table, 1)
            found, read = tables.take(source, {})
            assert (found, read.is_idle) == ([], False)
        finally:
            connection.execute(f"COMMIT PREPARED '{gid}'")
    assert tables.drained(source, read.next)[0] == [9, 1]


def test_a_row_that_is_committed_while_a_read_looks_is_not_passed_over(table: str, source: OutboxSource) -> None:
    """The bound is taken first, and the rows by a later snapshot: it may show more, and what is above is left."""
    real = rows.look
    younger = begun()
    tables.insert(younger, table, 2)

    def look(connection: Any, layout: Any) -> Any:
        view = real(connection, layout)
        younger.commit()
        with tables.connect() as another:
            tables.insert(another, table, 3)
        return view

    with tables.connect() as first:
        tables.insert(first, table, 1)
    sources.look = look
    try:
        found, read = tables.take(source, {})
    finally:
        sources.look = real
        younger.close()
    assert found in ([], [1]), "what was older than both"
    assert found + tables.drained(source, read.next)[0] == [2, 1, 3]


def test_a_later_update_changes_neither_place_nor_count(table: str, source: OutboxSource) -> None:
    with tables.connect(autocommit=True) as connection:
        tables.insert(connection, table, 1, 2)
        found, start = tables.drained(source, {})
        connection.execute(f"UPDATE {table} SET n = 0")
        connection.execute(f"DELETE FROM {table} WHERE id = 1")
        tables.insert(connection, table, 3)
    assert found + tables.drained(source, start)[0] == [1, 2, 3]


# ------------------------------------------------------------------------------------------------------ many writers


class Writers:
    """Transactions of random length that overlap, some rolled back, some with savepoints."""

    def __init__(self, table: str, seed: int) -> None:
        self._table = table
        self._threads = [threading.Thread(target=self._write, args=(seed * 100 + number,)) for number in range(WRITERS)]
        self.failures: list[BaseException] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    @property
    def are_at_work(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _write(self, seed: int) -> None:
        luck = random.Random(seed)
        pause = threading.Event()
        try:
            with tables.connect() as connection:
                for _ in range(TRANSACTIONS):
                    if luck.random() < 0.3:
                        connection.execute("SELECT pg_current_xact_id()")
                        pause.wait(luck.random() * LATE_SECONDS)
                    for _ in range(luck.randrange(1, 5)):
                        self._insert(connection, luck)
                        if luck.random() < 0.5:
                            pause.wait(luck.random() * LATE_SECONDS)
                    if luck.random() < 0.15:
                        connection.rollback()
                    else:
                        connection.commit()
        except BaseException as error:  # noqa: BLE001 - the test looks
            self.failures.append(error)

    def _insert(self, connection: Any, luck: random.Random) -> None:
        statement = f"INSERT INTO {self._table} (n) SELECT generate_series(1, {luck.randrange(1, 4)})"
        if luck.random() < 0.3:
            connection.execute("SAVEPOINT here")
            connection.execute(statement)
            connection.execute("ROLLBACK TO SAVEPOINT here" if luck.random() < 0.4 else "RELEASE SAVEPOINT here")
        else:
            connection.execute(statement)


def read_beside(writers: Writers, source: OutboxSource, seed: int) -> Counter[int]:
    """What a source gives that reads while they write, by random limits, and now and then opened anew."""
    luck = random.Random(seed)
    found: Counter[int] = Counter()
    start: Position = {}
    is_last = False
    while True:
        ids, read = tables.take(source, start, Limit(luck.choice((1, 3, 50, 1000)), luck.choice((1, 300, 1 << 20))))
        found.update(ids)
        start = read.next
        if luck.random() < 0.02:
            source.open(None)
        if ids or writers.are_at_work:
            continue
        if is_last:
            return found
        is_last = True  # what was committed between this read and their end comes with one more


def lost_and_repeated(table: str, source: OutboxSource, seed: int) -> tuple[int, int]:
    with Writers(table, seed) as writers:
        found = read_beside(writers, source, seed)
    assert not writers.failures
    with tables.connect() as connection:
        committed = Counter(tables.numbers(connection.execute(f"SELECT id FROM {table}").fetchall()))
    assert not found - committed - found, "nothing else"
    assert len(committed) > WRITERS * TRANSACTIONS
    return (committed - found).total(), (found - committed).total()


@pytest.mark.timeout(600)
def test_every_committed_row_comes_once(
    tmp_path: Path, database: str, schedules: Callable[[int], int], seed: int
) -> None:
    for number in range(schedules(3)):
        table = tables.make(tmp_path, name=f"outbox_{number}")
        source = tables.source(tmp_path, name=f"outbox_{number}")
        source.open(None)
        result = lost_and_repeated(table, source, seed + number)
        source.close()
        assert result == (0, 0)


@pytest.mark.parametrize("safeguard", [controls.ordered_by_id_alone, controls.without_the_bound])
def test_without_a_safeguard_rows_are_lost(
    safeguard: Callable[[], None], table: str, source: OutboxSource, without: Any, seed: int
) -> None:
    without(safeguard)
    lost, _ = lost_and_repeated(table, source, seed)
    assert lost > 0


# ---------------------------------------------------------------------------------------------------- who is waited for


def test_the_transaction_that_is_waited_for_is_named(
    table: str, source: OutboxSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox_waiting, "WAIT_SECONDS", 0.0)
    with tables.connect(application_name="the long report") as older:
        older.execute("SELECT pg_current_xact_id()")
        with tables.connect() as younger:
            tables.insert(younger, table, 1)
        tables.take(source, {})
        tables.take(source, {})
        [finding] = source.check(None)
        pid = older.info.backend_pid
    said = [record.getMessage() for record in caplog.records if "rows have waited" in record.getMessage()]
    assert len(said) == 1, "once, not at every look"
    assert f"process {pid} (the long report)" in said[0]
    assert "begun 0 s ago" in said[0]
    assert finding.status == "warning"
    assert f"process {pid}" in finding.found


def test_a_forgotten_prepared_transaction_is_named(
    table: str, source: OutboxSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox_waiting, "WAIT_SECONDS", 0.0)
    gid = f"forgotten {table}"
    with tables.connect(autocommit=True) as connection:
        connection.execute("BEGIN")
        tables.insert(connection, table, 1)
        connection.execute(f"PREPARE TRANSACTION '{gid}'")
        try:
            tables.insert(connection, table, 2)
            tables.take(source, {})
        finally:
            connection.execute(f"ROLLBACK PREPARED '{gid}'")
    [said] = [record.getMessage() for record in caplog.records if "rows have waited" in record.getMessage()]
    assert f"prepared transaction '{gid}'" in said
    assert "ROLLBACK PREPARED ends it" in said
    assert tables.drained(source, {})[0] == [2]
