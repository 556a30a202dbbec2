"""The server is killed under load and comes back; the flow goes on by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import onefold as of
from services.jars import ServiceMissing
from services.postgres import Postgres

pytestmark = pytest.mark.crash

PAUSE_SECONDS = 0.7
BATCH = 200


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """One that may be killed: not the one that the other tests share."""
    try:
        with Postgres() as started:
            yield started
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("commit", ["separately", "together"])
def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(
    commit: Any, own_server: Postgres, tmp_path: Path, schedules: Callable[[int], int]
) -> None:
    kills = schedules(10)
    (tmp_path / "in").mkdir()
    stopping = threading.Event()
    sent: list[int] = []
    feeding = threading.Thread(target=_feed, args=(tmp_path / "in", stopping, sent), daemon=True)
    flow = of.Flow("under-load", commit=commit, epoch_rows=500)
    rows = flow.read(of.files(str(tmp_path / "in" / "*.jsonl"), complete="rename"), schema={"id": "BIGINT"}, name="in")
    database = of.postgres(own_server.url)
    rows.append(database.table("rows", create=True), name="rows")
    counted = rows.select(third="id % 3").group_by("third").agg(n="count(*)")
    counted.upsert(database.table("counts", create=True), key="third", name="counts")
    feeding.start()
    try:
        with flow.start(state=tmp_path / "state") as run:
            for _ in range(kills):
                stopping.wait(PAUSE_SECONDS)
                own_server.kill()
                stopping.wait(PAUSE_SECONDS / 2)
                own_server.start()
            stopping.set()
            feeding.join()
            assert run.is_running
    finally:
        stopping.set()
    flow.run(until="drained", state=tmp_path / "state")
    with psycopg.connect(own_server.url) as connection:
        found = [row[0] for row in connection.execute("SELECT id FROM rows ORDER BY id")]
        counts = dict(connection.execute("SELECT third, n FROM counts").fetchall())
        assert connection.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)
    assert found == sorted(sent)
    assert counts == {third: sum(number % 3 == third for number in sent) for third in range(3)}
    assert len(sent) > kills * BATCH, "there was load"


def _feed(folder: Path, stopping: threading.Event, sent: list[int]) -> None:
    number = 0
    while not stopping.wait(0.02):
        lines = "".join(json.dumps({"id": each}) + "\n" for each in range(number, number + BATCH))
        part = folder / f"{number:09d}.part"
        part.write_text(lines)
        part.rename(part.with_suffix(".jsonl"))
        sent += range(number, number + BATCH)
        number += BATCH
