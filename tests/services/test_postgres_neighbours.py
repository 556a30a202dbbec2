"""What others do to a server while a flow writes: they lock, collide, hang up on us, and take all connections."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

import onefold as of
from tests.services import postgres_flows as flows

FILES = 40
KEYS = 60


def fill(folder: Path) -> None:
    """Every file has every key once, with the file's number."""
    (folder / "in").mkdir()
    for number in range(FILES):
        lines = "".join(json.dumps({"id": key, "seen": number}) + "\n" for key in range(KEYS))
        (folder / "in" / f"{number:03d}.jsonl").write_text(lines)


def flow_of(folder: Path, commit: Any = "separately") -> of.Flow:
    flow = of.Flow("neighbours", commit=commit, epoch_rows=KEYS, deliver_bytes=1)
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl")), schema={"id": "BIGINT", "seen": "BIGINT"}, name="in")
    rows.append(flows.table(folder, "every"), name="every")
    sums = rows.group_by("id").agg(times="count(*)", total="sum(seen)")
    sums.upsert(flows.table(folder, "sums"), key="id", name="sums")
    return flow


def judge(folder: Path) -> None:
    every = flows.rows(folder, "SELECT id, seen FROM every ORDER BY seen, id")
    assert every == [(key, number) for number in range(FILES) for key in range(KEYS)]
    sums = flows.rows(folder, "SELECT id, times, total FROM sums ORDER BY id")
    assert sums == [(key, FILES, sum(range(FILES))) for key in range(KEYS)]


@contextmanager
def beside(work: Callable[[], None], pause: float) -> Iterator[None]:
    """Done again and again while the block runs."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(pause):
            work()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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
            flow_of(tmp_path, commit).run(until="drained", state=tmp_path / "state")
    assert ended
    judge(tmp_path)


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
                flow_of(tmp_path).run(until="drained", state=tmp_path / "state")
        finally:
            other.execute("ALTER ROLE CURRENT_USER RESET deadlock_timeout")
        judge(tmp_path)
        other.execute("SELECT pg_stat_force_next_flush()")
        [after] = other.execute(collisions).fetchone() or (0,)
    assert after > before


def test_a_server_without_a_free_connection_is_waited_for(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    parts = urlsplit(database)
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("CREATE ROLE crowded LOGIN PASSWORD 'secret' CONNECTION LIMIT 0")
        try:
            other.execute(f"GRANT CREATE ON DATABASE {parts.path[1:]} TO crowded")
            way = f"postgresql://crowded:secret@{parts.hostname}:{parts.port}{parts.path}"
            monkeypatch.setenv(flows.PROXIED, way)
            with flow_of(tmp_path).start(state=tmp_path / "state") as run:
                with pytest.raises(TimeoutError):
                    run.wait(1.5)
                assert flows.rows(tmp_path, "SELECT id FROM every") == []
                other.execute("ALTER ROLE crowded CONNECTION LIMIT 5")
                while len(flows.rows(tmp_path, "SELECT id FROM every")) < FILES * KEYS:
                    assert run.is_running
                run.stop()
            flow_of(tmp_path).run(until="drained", state=tmp_path / "state")
            judge(tmp_path)
        finally:
            other.execute("DROP OWNED BY crowded")
            other.execute("DROP ROLE crowded")
