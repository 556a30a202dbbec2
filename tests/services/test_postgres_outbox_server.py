"""The server of an outbox goes away and comes back, is restored from a backup, is a standby, is promoted."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import onefold as of
from onefold.clock import SystemClock
from onefold.connectors.postgres import OutboxSource
from onefold.connectors.postgres import outbox as sources
from onefold.engines.embedded.losses import find_losses, skip_losses
from onefold.errors import InputLost, SourceRefused, SourceUnavailable
from onefold.types import PartitionId
from services.jars import ServiceMissing
from services.postgres import _STATUS_LINE, Postgres, _lines
from tests.crash import oracle
from tests.services import outbox_controls as controls
from tests.services import outbox_tables as tables
from tests.services.under_load import kill, running

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

SOON_SECONDS = 30.0


class Restorable(Postgres):
    """A server whose files can be put aside and brought back, and which may come up as a standby."""

    def put_aside(self) -> None:
        """As a backup of it would be: a standby's, if it is started again as one."""
        self.stop()
        self.kill()
        self._copy(self._storage, self._aside)
        self.start()

    def bring_back(self, *, as_standby: bool = False) -> None:
        self.kill()
        shutil.rmtree(self._storage)
        self._copy(self._aside, self._storage)
        if as_standby:
            self._copy(self._storage / "PG_VERSION", self._storage / "standby.signal")
        self.start()

    @property
    def _aside(self) -> Path:
        return self._path / "aside"

    def _copy(self, place: Path, to: Path) -> None:
        subprocess.run(["cp", "-a", str(place), str(to)], check=True)

    def _answers(self) -> bool:
        status = [line.strip() for line in _lines(self._pid_file)[_STATUS_LINE:]]
        return super()._answers() or status == ["standby"]


@pytest.fixture
def own_server() -> Iterator[Restorable]:
    """One that may be killed: not the one that the other tests share."""
    with started() as server:
        yield server


@contextlib.contextmanager
def started(**settings: str) -> Iterator[Restorable]:
    try:
        with Restorable(settings) as server:
            with psycopg.connect(server.url, autocommit=True) as sql:
                sql.execute(f"CREATE TABLE outbox (id bigserial PRIMARY KEY, n bigint, {tables.COLUMN})")
                sql.execute("CREATE INDEX ON outbox (transaction_id, id)")
            yield server
    except ServiceMissing as missing:
        pytest.skip(str(missing))


def insert(server: Postgres, count: int) -> None:
    """Rows, each in a transaction of its own."""
    with psycopg.connect(server.url, autocommit=True) as sql:
        for _ in range(count):
            sql.execute("INSERT INTO outbox (n) VALUES (1)")


def source_of(server: Postgres) -> OutboxSource:
    made: OutboxSource = of.postgres(server.url).outbox("outbox").as_source(None)
    return made


def flow_of(server: Postgres, folder: Path, **how: Any) -> of.Flow:
    flow = of.Flow("away", epoch_rows=500, **how)
    rows = flow.read(of.postgres(server.url).outbox("outbox"), schema={"id": "BIGINT", "n": "BIGINT"}, name="in")
    rows.append(of.sqlite(str(folder / "copy.sqlite")).table("copy"), name="copy")
    return flow


def copied(folder: Path) -> list[int]:
    return sorted(tables.numbers(oracle.sqlite_rows(folder / "copy.sqlite", "SELECT id FROM copy")))


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON_SECONDS
    pause = threading.Event()
    while not holds() and time.monotonic() < deadline:
        pause.wait(0.05)
    return holds()


# ---------------------------------------------------------------------------------------------------------------- away


def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(
    own_server: Restorable, tmp_path: Path, schedules: Callable[[int], int]
) -> None:
    """The flow goes on by itself. What a writer does not know the fate of, the table says."""
    stopping = threading.Event()
    writers = [threading.Thread(target=_write, args=(own_server, stopping), daemon=True) for _ in range(3)]
    for writer in writers:
        writer.start()
    flow = flow_of(own_server, tmp_path)
    try:
        with running(flow, tmp_path / "state"):
            kill([own_server] * schedules(10), up_seconds=0.8, down_seconds=0.3)
            stopping.set()
            for writer in writers:
                writer.join()
            with psycopg.connect(own_server.url) as sql:
                wanted = tables.numbers(sql.execute("SELECT id FROM outbox ORDER BY id").fetchall())
            assert until(lambda: len(copied(tmp_path)) >= len(wanted))
    finally:
        stopping.set()
    assert copied(tmp_path) == wanted
    assert len(wanted) > 200


def _write(server: Postgres, stopping: threading.Event) -> None:
    while not stopping.is_set():
        with contextlib.suppress(psycopg.Error), psycopg.connect(server.url, connect_timeout=2) as sql:
            while not stopping.wait(0.002):
                sql.execute("INSERT INTO outbox (n) SELECT generate_series(1, 3)")
                sql.commit()
        stopping.wait(0.05)


def test_a_session_that_is_ended_by_an_operator_is_opened_again(
    own_server: Restorable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with flow_of(own_server, tmp_path).start(state=tmp_path / "state") as run:
        with psycopg.connect(own_server.url, autocommit=True) as sql:
            for number in range(1, 4):
                sql.execute("INSERT INTO outbox (n) VALUES (1)")
                assert until(lambda wanted=number: len(copied_so_far(tmp_path)) == wanted)  # type: ignore[misc]
                ended = sql.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE application_name = 'onefold outbox'"
                )
                assert ended.fetchone() == (1,)
                assert until(lambda: caplog.text.count("the server is back") == number)
        assert run.is_running
    assert copied(tmp_path) == [1, 2, 3]


def copied_so_far(folder: Path) -> list[int]:
    return copied(folder) if (folder / "copy.sqlite").exists() else []


def test_a_server_that_stays_away_ends_the_flow_in_the_end(
    own_server: Restorable, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(own_server)
    source.open(None)
    own_server.kill()
    found, read = tables.take(source, {})
    assert (found, read.next, read.is_idle) == ([], {}, False), "nobody knows"
    assert source.partitions()[tables.PARTITION][0] == {}
    monkeypatch.setattr(sources, "OUTAGE_SECONDS", 0.0)
    with pytest.raises(SourceUnavailable):
        source.read(tables.PARTITION, {}, tables.AMPLE, 5.0)
    source.close()
    with pytest.raises(SourceUnavailable):
        source.open(None)


def test_a_flow_goes_on_over_restarts_of_both(own_server: Restorable, tmp_path: Path) -> None:
    for round_ in range(1, 4):
        insert(own_server, 10)
        flow_of(own_server, tmp_path).run(state=tmp_path / "state")
        own_server.kill()
        own_server.start()
        with psycopg.connect(own_server.url) as sql:
            wanted = tables.numbers(sql.execute("SELECT id FROM outbox ORDER BY id").fetchall())
        assert copied(tmp_path) == wanted
        assert len(wanted) == 10 * round_


# ------------------------------------------------------------------------------------------------------------ restored


def test_a_server_restored_from_a_backup_is_noticed_and_may_be_accepted(own_server: Restorable, tmp_path: Path) -> None:
    insert(own_server, 5)
    own_server.put_aside()
    insert(own_server, 20)
    flow_of(own_server, tmp_path).run(state=tmp_path / "state")
    assert len(copied(tmp_path)) == 25
    own_server.bring_back()
    flow = flow_of(own_server, tmp_path)
    with pytest.raises(InputLost, match="it was restored from a backup") as error:
        flow.run(state=tmp_path / "state")
    assert "--skip-lost" in error.value.next_step
    losses = find_losses(flow.plan, tmp_path / "state" / "away", SystemClock())
    assert [(loss.read, loss.partition) for loss in losses] == [("in", PartitionId("0"))]
    skip_losses(flow_of(own_server, tmp_path).plan, tmp_path / "state" / "away", losses)
    insert(own_server, 1)
    flow_of(own_server, tmp_path).run(state=tmp_path / "state")
    with psycopg.connect(own_server.url) as sql:
        [newest] = sql.execute("SELECT max(id) FROM outbox").fetchone() or [0]
    assert len(copied(tmp_path)) == 26, "the new row, and no old one again"
    assert newest in copied(tmp_path)


# ------------------------------------------------------------------------------------------------------------- standby


def test_a_standby_is_refused_and_once_promoted_read_on_with_a_warning(
    own_server: Restorable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    insert(own_server, 5)
    flow_of(own_server, tmp_path).run(state=tmp_path / "state")
    own_server.put_aside()
    own_server.bring_back(as_standby=True)
    with pytest.raises(SourceRefused, match="is on a standby") as error:
        flow_of(own_server, tmp_path).run(state=tmp_path / "state")
    assert "target_session_attrs=read-write" in error.value.next_step
    with psycopg.connect(own_server.url, autocommit=True) as sql:
        sql.execute("SELECT pg_promote()")
    insert(own_server, 3)
    flow_of(own_server, tmp_path).run(state=tmp_path / "state")
    with psycopg.connect(own_server.url) as sql:
        assert copied(tmp_path) == tables.numbers(sql.execute("SELECT id FROM outbox ORDER BY id").fetchall())
    assert "went from timeline 1 to 2" in caplog.text
    caplog.clear()
    insert(own_server, 1)
    flow_of(own_server, tmp_path).run(state=tmp_path / "state")
    assert "timeline" not in caplog.text, "once"


def test_a_standby_that_is_met_while_reading_is_waited_for(own_server: Restorable) -> None:
    """It may be the one that is about to be promoted."""
    insert(own_server, 2)
    source = source_of(own_server)
    source.open(None)
    found, read = tables.take(source, {})
    own_server.put_aside()
    own_server.bring_back(as_standby=True)
    for _ in range(3):
        assert source.read(tables.PARTITION, read.next, tables.AMPLE, 1.0).is_idle is False
    with psycopg.connect(own_server.url, autocommit=True) as sql:
        sql.execute("SELECT pg_promote()")
    insert(own_server, 1)
    later = source.read(tables.PARTITION, read.next, tables.AMPLE, SOON_SECONDS)
    source.close()
    assert found == [1, 2]
    assert len(tables.ids_of(later)) == 1


# -------------------------------------------------------------------------------------------------------- asynchronous


@pytest.mark.parametrize("is_safe", [True, False], ids=["safe", "control"])
def test_what_a_crash_of_the_server_may_take_back_is_not_read(is_safe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits that are not waited for are visible before they are on disk. Without the safeguard they are read."""
    monkeypatch.setattr(OutboxSource, "_survives", OutboxSource._survives)  # put back, whatever becomes of it
    if not is_safe:
        controls.read_before_it_is_on_disk()
    with started(synchronous_commit="off", wal_writer_delay="10s", wal_writer_flush_after="1GB") as server:
        insert(server, 5)
        source = source_of(server)
        source.open(None)
        start: Any = {}
        found: list[int] = []

        def reads_all() -> bool:
            nonlocal start
            ids, read = tables.take(source, start)
            found.extend(ids)
            start = read.next
            return read.is_idle

        assert until(reads_all), "they are on disk after a while"
        insert(server, 5)
        reads_all()
        server.kill()
        server.start()
        with psycopg.connect(server.url) as sql:
            there = set(tables.numbers(sql.execute("SELECT id FROM outbox").fetchall()))
        source.close()
    assert (set(found) <= there) is is_safe
