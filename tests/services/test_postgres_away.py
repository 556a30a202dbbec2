"""A server, or a lock, that does not come back while an epoch is prepared ends the run; nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import onefold as of
from onefold import disk
from onefold.connectors import preparing
from onefold.connectors.postgres import connection
from onefold.errors import OutcomeUnknown, SinkUnavailable
from services.jars import ServiceMissing
from services.postgres import Postgres
from tests.services.postgres_flows import schema_of

pytestmark = pytest.mark.crash

AWAY_SECONDS = 0.5


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a server, or for a lock."""
    monkeypatch.setattr(preparing, "PREPARE_SECONDS", AWAY_SECONDS)
    monkeypatch.setattr(connection, "LOCK_SECONDS", AWAY_SECONDS)


@pytest.mark.usefixtures("hasty")
def test_a_server_that_stays_away_while_an_epoch_is_prepared_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the rows of both tables are written, or when they are prepared and the answer is on its way."""
    try:
        with Postgres() as server:
            for step in ("before postgres.prepare", "after postgres.prepare"):
                folder = tmp_path / step.partition(" ")[0]
                monkeypatch.setattr(disk, "observer", _once(step, lambda: _lose(server)))
                flow = _two_tables(folder, of.postgres(server.url, tokens=f"{folder.name} tokens"))
                with pytest.raises(OutcomeUnknown, match="took too long"):  # nobody heard whether it was prepared
                    flow.run(until="drained", state=folder / "state")
                server.start()
                flow.run(until="drained", state=folder / "state")
                with psycopg.connect(server.url, autocommit=True) as looking:
                    assert _found(looking, folder) == ([1, 2], [1, 2], 0)
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("locked", ["a", "b"])
def test_a_lock_that_others_keep_while_an_epoch_is_prepared_ends_the_run(
    locked: str, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken when the tokens are moved, and before rows are written."""
    with psycopg.connect(database, autocommit=True) as looking:
        flow = _two_tables(tmp_path, of.postgres(database, tokens=f"{schema_of(tmp_path)} tokens"))
        with psycopg.connect(database) as other:
            lock = f"LOCK TABLE {schema_of(tmp_path)}.{locked} IN SHARE MODE"  # it may be looked at, and not be written
            monkeypatch.setattr(disk, "observer", _once("before postgres.write", lambda: other.execute(lock)))
            with pytest.raises(SinkUnavailable, match="took too long") as ended:
                flow.run(until="drained", state=tmp_path / "state")
            assert "lock timeout" in str(ended.value.found)
            assert _found(looking, tmp_path) == ([], [], 0)
        flow.run(until="drained", state=tmp_path / "state")
        assert _found(looking, tmp_path) == ([1, 2], [1, 2], 0)


def _lose(server: Postgres) -> None:
    server.kill()
    raise psycopg.OperationalError("the server closed the connection unexpectedly")


def _two_tables(folder: Path, database: Any) -> of.Flow:
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "1.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    flow = of.Flow("two", commit="together")
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
    for name in ("a", "b"):
        rows.append(database.table(name, schema=schema_of(folder), create=True))
    return flow


def _once(step: str, act: Callable[[], None]) -> Callable[[str, disk.Moment], None]:
    met: list[str] = []

    def observer(name: str, moment: disk.Moment) -> None:
        if f"{moment} {name}" == step and not met:
            met.append(step)
            act()

    return observer


def _found(looking: Any, folder: Path) -> tuple[list[int], list[int], int]:
    looking.execute(f"SET search_path TO {schema_of(folder)}")
    a, b = ([row[0] for row in looking.execute(f"SELECT id FROM {table} ORDER BY id")] for table in ("a", "b"))
    return a, b, looking.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone()[0]
