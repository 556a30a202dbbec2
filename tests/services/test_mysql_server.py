"""The server is killed under load and comes back; the flow goes on by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from services.jars import ServiceMissing
from services.mariadb import MariaDB
from tests.services import mysql_flows as flows
from tests.services.database_load import judge, kill_under_load

pytestmark = pytest.mark.crash


@pytest.fixture
def own_server() -> Iterator[MariaDB]:
    """One that may be killed: not the one that the other tests share."""
    try:
        with MariaDB() as started:
            yield started
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("commit", ["separately", "together"])
def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(
    commit: Any, own_server: MariaDB, tmp_path: Path, schedules: Callable[[int], int]
) -> None:
    sent = kill_under_load(own_server, of.mysql(own_server.url), tmp_path, schedules(10), commit=commit)
    assert flows.left(own_server.url) == []
    with flows.connect(own_server.url) as connection:
        judge(sent, lambda query: flows.ask(connection, query))
