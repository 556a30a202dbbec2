"""The primary dies for good, and a standby takes over; the URL names both."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

import onefold as of
from onefold.errors import InputLost
from services.jars import ServiceMissing
from services.postgres import Postgres, Standby
from tests.services.database_load import judge, kill_under_load

pytestmark = pytest.mark.crash

WAIT_SECONDS = 60.0


@dataclass
class Pair:
    """For `kill_under_load`: what is killed is the primary, and what comes back is the standby."""

    primary: Postgres
    standby: Standby

    @property
    def url(self) -> str:
        """libpq takes the one of the two that takes writes."""
        first, second = urlsplit(self.primary.url), urlsplit(self.standby.url)
        hosts = f"{first.netloc},{second.netloc.rpartition('@')[2]}"
        return f"postgresql://{hosts}{first.path}?target_session_attrs=read-write"

    def kill(self) -> None:
        self.primary.kill()

    def start(self) -> None:
        self.standby.promote()

    def make_synchronous(self) -> None:
        with psycopg.connect(self.primary.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
        self.await_that("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")

    def await_copied(self) -> None:
        self.await_that("SELECT bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication")

    def await_that(self, query: str) -> None:
        over_at = time.monotonic() + WAIT_SECONDS
        with psycopg.connect(self.primary.url, autocommit=True) as connection:
            while connection.execute(query).fetchone() != (True,):
                assert time.monotonic() < over_at, query
                time.sleep(0.05)


@pytest.fixture
def pair() -> Iterator[Pair]:
    try:
        with Postgres() as primary, Standby(primary) as standby:
            yield Pair(primary, standby)
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("commit", ["separately", "together"])
def test_a_synchronous_standby_that_takes_over_under_load_loses_and_doubles_nothing(
    commit: Any, pair: Pair, tmp_path: Path
) -> None:
    pair.make_synchronous()
    sent = kill_under_load(pair, of.postgres(pair.url), tmp_path, 1, commit=commit)
    with psycopg.connect(pair.standby.url) as connection:
        judge(sent, lambda query: connection.execute(query.replace("`", "")).fetchall())
        assert connection.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)


@pytest.mark.timeout(600)
def test_what_an_asynchronous_standby_lacks_is_delivered_again(pair: Pair, tmp_path: Path) -> None:
    flow = of.Flow("behind")
    rows = flow.read(of.files(str(tmp_path / "in" / "*.jsonl"), complete="rename"), schema={"id": "BIGINT"}, name="in")
    rows.append(of.postgres(pair.url).table("rows", create=True), name="rows")
    for part in range(4):
        feed(tmp_path, part)
        flow.run(state=tmp_path / "state")
        if part == 1:
            pair.await_copied()
            pair.standby.kill()
    pair.primary.kill()
    pair.standby.start()
    pair.standby.promote()
    assert stored(pair.standby) == list(range(200)), "the newest two parts are lost there"
    flow.run(state=tmp_path / "state")
    feed(tmp_path, 4)
    flow.run(state=tmp_path / "state")
    assert stored(pair.standby) == list(range(500))


def feed(folder: Path, part: int) -> None:
    (folder / "in").mkdir(exist_ok=True)
    lines = [json.dumps({"id": part * 100 + number}) + "\n" for number in range(100)]
    (folder / "in" / f"{part}.jsonl").write_text("".join(lines))


def stored(server: Postgres) -> list[int]:
    with psycopg.connect(server.url) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM rows ORDER BY id")]


LOST = {
    "it lacks what was read": (False, False, "timeline 2"),
    "it lacks what was read, and has a slot of the name": (False, True, "timeline 2"),
    "it has all, and no slot": (True, False, "no slot orders_slot"),
    "it has all, and a slot of the name": (True, True, "slot orders_slot at"),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("has_all", "has_slot", "found"), LOST.values(), ids=list(LOST))
def test_changes_that_a_promoted_standby_cannot_give_are_reported_as_lost(
    has_all: bool, has_slot: bool, found: str, pair: Pair, tmp_path: Path
) -> None:
    """The promise says so: a standby that takes over needs the slot and all that was read."""
    with psycopg.connect(pair.primary.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, n integer)")
        connection.execute("INSERT INTO orders VALUES (1, 1)")
    flow = of.Flow("changes")
    rows = flow.read(
        of.postgres(pair.url).changes("orders", slot="orders_slot"),
        schema={"id": "INTEGER", "n": "INTEGER", "_op": "VARCHAR"},
        name="in",
    )
    rows.upsert(of.sqlite(str(tmp_path / "copy.sqlite")).table("orders"), key="id", name="copy")
    flow.run(state=tmp_path / "state")
    pair.await_copied()
    if not has_all:
        pair.standby.kill()
    with psycopg.connect(pair.primary.url, autocommit=True) as connection:
        connection.execute("INSERT INTO orders VALUES (2, 2)")
    flow.run(state=tmp_path / "state")
    if has_all:
        pair.await_copied()
    pair.primary.kill()
    if not has_all:
        pair.standby.start()
    pair.standby.promote()
    if has_slot:
        with psycopg.connect(pair.standby.url, autocommit=True) as connection:
            connection.execute("SELECT pg_create_logical_replication_slot('orders_slot', 'pgoutput')")
    with pytest.raises(InputLost) as lost:
        flow.run(state=tmp_path / "state")
    assert found in str(lost.value.found)
    assert copied(tmp_path) == [1, 2]


def copied(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "copy.sqlite")) as opened:
        return [row[0] for row in opened.execute("SELECT id FROM orders ORDER BY id")]
