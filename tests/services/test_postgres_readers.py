"""Tables of one database that commit together are never seen apart, whenever the flow is killed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest

from onefold.engines.embedded.status import status
from onefold.testing.harness import ForkServer, Schedule, chosen, play
from tests.services import postgres_controls as controls
from tests.services import postgres_flows as flows
from tests.services.postgres_flows import TOGETHER

pytestmark = pytest.mark.crash

Count = Callable[[int], int]


class Reader:
    """Looks at both tables in one snapshot, again and again while the block runs.

    torn: what it saw when one was ahead. prepared: the most prepared transactions it saw at once. looks: how often.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.torn: list[tuple[int, int]] = []
        self.prepared = 0
        self.looks = 0
        self._url = url
        self._schema = flows.schema_of(folder)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"SET search_path TO {self._schema}")
            while not self._ended.wait(0.001):
                try:
                    self._look(connection)
                except psycopg.errors.UndefinedTable:
                    connection.execute("ROLLBACK")

    def _look(self, connection: Any) -> None:
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        [ledger] = connection.execute("SELECT count(*) FROM ledger").fetchone()
        [totals] = connection.execute("SELECT coalesce(sum(payments), 0) FROM totals").fetchone()
        [prepared] = connection.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone()
        connection.execute("COMMIT")
        self.looks += 1
        self.prepared = max(self.prepared, prepared)
        if ledger != totals:
            self.torn.append((ledger, int(totals)))


PLACES = ("postgres.write#4", "postgres.prepare#2", "journal.seal#2", "postgres.commit#1", "postgres.commit#2")
RECOVERIES = ("postgres.fence#2", "postgres.create#1", "postgres.commit#1", "postgres.commit#2")
KILLS = [
    *(f"kill {moment} {place}" for place in PLACES for moment in ("before", "after")),
    *(
        f"kill after journal.seal#2 then kill {moment} {place}"
        for place in RECOVERIES
        for moment in ("before", "after")
    ),
    "kill after postgres.prepare#2 then kill before postgres.abort#1",
    "kill after postgres.prepare#2 then kill after postgres.abort#1",
]
APART = [f"kill {place}" for place in ("after postgres.commit#1", "before postgres.commit#2") for _ in range(2)]


@pytest.mark.parametrize(
    ("arrange", "kills", "most"),
    [((), KILLS, 1), ((controls.sessions_not_shared,), APART, 2)],
    ids=["as it is", "control"],
)
def test_no_reader_sees_one_table_ahead_of_the_other(
    arrange: tuple[Callable[[], None], ...],
    kills: Sequence[str],
    most: int,
    tmp_path: Path,
    database: str,
    database_server: ForkServer,
    schedules: Count,
    seed: int,
) -> None:
    """In one snapshot, while the flow runs, is killed, and is killed again as it recovers. In the control all is right
    but that: every table has a transaction of its own."""
    subject = replace(TOGETHER, arrange=arrange)
    torn, prepared = [], []
    for number, text in enumerate(chosen(kills, schedules(10), seed=seed)):
        folder = tmp_path / f"{number}"
        with Reader(database, folder) as reader:
            result = play(Schedule.parse(text), subject, folder, database_server)
        assert not result.complaints, (text, result.complaints)
        assert result.met, text
        assert reader.looks > 1
        torn += [(text, seen) for seen in reader.torn]
        prepared.append(reader.prepared)
        written = len(flows.rows(folder, "SELECT 1 FROM ledger"))
        books = status(flows.together(folder).plan, folder / "state").totals
        assert books["sinks"]["ledger"]["appended"] == written
    assert bool(torn) == bool(arrange), torn
    assert max(prepared) == most
