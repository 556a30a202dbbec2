"""What others do to a server while a flow writes: they lock, collide, hang up on us, and take all connections."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

import onefold as of
from tests.crash import oracle
from tests.services import outbox_tables
from tests.services import postgres_flows as flows
from tests.services.neighbours import FILES, KEYS, beside, fill, flow_of, judge
from tests.services.postgres_changes_flows import drop_slot


@pytest.mark.parametrize(("commit", "pause"), [("separately", 0.002), ("together", 0.01)])
def test_sessions_that_are_terminated_lose_and_double_nothing(
    commit: str, pause: float, database: str, tmp_path: Path
) -> None:
    """Together, one session writes both tables, and it is all of them that has to be done between two looks."""
    fill(tmp_path)
    ended: list[int] = []
    with psycopg.connect(database, autocommit=True) as other:

        def terminate() -> None:
            found = other.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'onefold %' "
                "AND (query ILIKE 'COPY%' OR query ILIKE 'COMMIT%' OR query ILIKE 'PREPARE%') AND state <> 'idle'"
            )
            ended.extend(pid for pid, _ in found.fetchall())

        with beside(terminate, pause):
            flow_of(flows, tmp_path, commit).run(until="drained", state=tmp_path / "state")
    assert ended
    judge(flows, tmp_path)


def test_deadlocks_with_a_foreign_writer_are_tried_again(database: str, tmp_path: Path) -> None:
    fill(tmp_path)
    schema = flows.schema_of(tmp_path)
    collisions = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("ALTER ROLE CURRENT_USER SET deadlock_timeout = '200ms'")
        [before] = other.execute(collisions).fetchone() or (0,)
        other.execute("SET deadlock_timeout = '20s'")  # the flow's session is the one that is ended

        def collide() -> None:
            try:
                with other.transaction():
                    for key in (KEYS - 1, 0):
                        other.execute(f"UPDATE {schema}.sums SET times = times WHERE id = {key}")
                        other.execute("SELECT pg_sleep(0.02)")
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                pass

        try:
            with beside(collide, 0.02):
                flow_of(flows, tmp_path).run(until="drained", state=tmp_path / "state")
        finally:
            other.execute("ALTER ROLE CURRENT_USER RESET deadlock_timeout")
        judge(flows, tmp_path)
        other.execute("SELECT pg_stat_force_next_flush()")
        [after] = other.execute(collisions).fetchone() or (0,)
    assert after > before


@pytest.fixture
def crowded(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A session of the server's owner; the flows' user, crowded, may have no connection."""
    parts = urlsplit(database)
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("CREATE ROLE crowded LOGIN PASSWORD 'secret' CONNECTION LIMIT 0 REPLICATION")
        try:
            other.execute(f"GRANT CREATE ON DATABASE {parts.path[1:]} TO crowded")
            way = f"postgresql://crowded:secret@{parts.hostname}:{parts.port}{parts.path}"
            monkeypatch.setenv(flows.PROXIED, way)
            yield other
        finally:
            other.execute("DROP OWNED BY crowded")
            other.execute("DROP ROLE crowded")


@pytest.mark.parametrize("commit", ["separately", "together"])
def test_a_server_without_a_free_connection_is_waited_for(commit: str, crowded: Any, tmp_path: Path) -> None:
    fill(tmp_path)
    with flow_of(flows, tmp_path, commit).start(state=tmp_path / "state") as run:
        with pytest.raises(TimeoutError):
            run.wait(1.5)
        assert flows.rows(tmp_path, "SELECT id FROM every") == []
        crowded.execute("ALTER ROLE crowded CONNECTION LIMIT 5")
        while len(flows.rows(tmp_path, "SELECT id FROM every")) < FILES * KEYS:
            assert run.is_running
        run.stop()
    flow_of(flows, tmp_path, commit).run(until="drained", state=tmp_path / "state")
    judge(flows, tmp_path)


@pytest.mark.parametrize("kind", ["outbox", "changes"])
def test_a_source_without_a_free_connection_says_so_and_reads_all_of_it_afterwards(
    kind: str, crowded: Any, tmp_path: Path
) -> None:
    """In the middle of its life: its sessions are ended, and it gets no other for a while."""
    schema = flows.schema_of(tmp_path)
    crowded.execute("ALTER ROLE crowded CONNECTION LIMIT 10")
    outbox_tables.make(tmp_path, name="source")
    for what in (f"SCHEMA {schema} OWNER TO crowded", f"TABLE {schema}.source OWNER TO crowded"):
        crowded.execute(f"ALTER {what}")
    flow = of.Flow("crowded")
    made = flows.database(tmp_path)
    slot = {"slot": f"{schema}_slot"} if kind == "changes" else {}
    rows = flow.read(getattr(made, kind)("source", schema=schema, **slot), name="in")
    columns = ("id", "n", "_op") if kind == "changes" else ("id", "n")
    copy = of.sqlite(str(tmp_path / "copy.sqlite")).table("copy")
    rows.select(*columns).upsert(copy, key="id")
    try:
        with flow.start(state=tmp_path / "state") as run:
            for first in (1, 101, 201):
                outbox_tables.insert(crowded, f"{schema}.source", *range(first, first + 100))
                if first == 101:
                    crowded.execute("ALTER ROLE crowded CONNECTION LIMIT 0")
                    crowded.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'crowded'")
                    with pytest.raises(TimeoutError):
                        run.wait(2.0)
            crowded.execute("ALTER ROLE crowded CONNECTION LIMIT 10")
            deadline = time.monotonic() + 60
            while len(found := oracle.sqlite_rows(tmp_path / "copy.sqlite", "SELECT id, n FROM copy")) < 300:
                assert run.is_running
                assert time.monotonic() < deadline
                time.sleep(0.05)
            run.stop()
        assert sorted(found) == [(number, 10 * number) for number in range(1, 301)]
    finally:
        crowded.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'crowded'")
        drop_slot(f"{schema}_slot")
