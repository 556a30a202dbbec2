"""The server is killed under load and comes back; the flow goes on by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import onefold as of
from services.jars import ServiceMissing
from services.postgres import Postgres
from tests.services.database_load import judge, kill_under_load

pytestmark = pytest.mark.crash


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
    sent = kill_under_load(own_server, of.postgres(own_server.url), tmp_path, schedules(10), commit=commit)
    with psycopg.connect(own_server.url) as connection:
        judge(sent, lambda query: connection.execute(query.replace("`", "")).fetchall())
        assert connection.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)
