"""What others do to MariaDB while a flow writes: they hang up on us, collide, and take all connections."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pymysql
import pytest

from tests.services import mysql_flows as flows
from tests.services.neighbours import FILES, KEYS, beside, fill, flow_of, judge


@pytest.mark.parametrize(("commit", "pause"), [("separately", 0.002), ("together", 0.01)])
def test_sessions_that_are_killed_lose_and_double_nothing(
    commit: str, pause: float, mysql_database: str, tmp_path: Path
) -> None:
    """Killed while they write, and while they prepare or commit."""
    fill(tmp_path)
    ended: list[int] = []
    busy = (
        "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND command = 'Query' "
        "AND (info LIKE 'INSERT%%' OR info LIKE 'COMMIT%%' OR info LIKE 'XA %%')"
    )
    with flows.connect(mysql_database) as other:

        def kill() -> None:
            for (number,) in flows.ask(other, busy):
                with suppress(pymysql.MySQLError):
                    flows.ask(other, f"KILL CONNECTION {number}")
                    ended.append(number)

        with beside(kill, pause):
            flow_of(flows, tmp_path, commit).run(until="drained", state=tmp_path / "state")
    assert ended
    assert flows.left() == []
    judge(flows, tmp_path)


def test_deadlocks_with_a_foreign_writer_are_tried_again(mysql_database: str, tmp_path: Path) -> None:
    fill(tmp_path)
    place = flows.database_of(tmp_path)
    counted = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'innodb_deadlocks'"
    with flows.connect(mysql_database) as other, flows.connect(mysql_database) as asking:
        [(before,)] = flows.ask(asking, counted)

        def collide() -> None:
            with suppress(pymysql.MySQLError):
                flows.ask(other, "BEGIN")
                for key in (KEYS - 1, 0):
                    flows.ask(other, f"UPDATE {place}.sums SET times = times WHERE id = {key}")
                    flows.ask(other, "DO SLEEP(0.02)")
            with suppress(pymysql.MySQLError):
                flows.ask(other, "ROLLBACK")

        with beside(collide, 0.01):
            flow_of(flows, tmp_path).run(until="drained", state=tmp_path / "state")
        [(after,)] = flows.ask(asking, counted)
    judge(flows, tmp_path)
    assert int(after) > int(before)


def test_a_server_without_a_free_connection_is_waited_for(
    mysql_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user has one, and somebody else holds it."""
    fill(tmp_path)
    parts = urlsplit(mysql_database)
    crowded = f"mysql://crowded:secret@{parts.hostname}:{parts.port}{parts.path}"
    with flows.connect(mysql_database) as other:
        flows.ask(other, "CREATE USER crowded IDENTIFIED BY 'secret' WITH MAX_USER_CONNECTIONS 1")
        try:
            flows.ask(other, "GRANT ALL ON *.* TO crowded")
            monkeypatch.setenv(flows.PROXIED, crowded)
            with flows.connect(crowded), flow_of(flows, tmp_path).start(state=tmp_path / "state") as run:
                with pytest.raises(TimeoutError):
                    run.wait(1.5)
                assert flows.rows(tmp_path, "SELECT id FROM every") == []
                flows.ask(other, "ALTER USER crowded WITH MAX_USER_CONNECTIONS 10")
                while len(flows.rows(tmp_path, "SELECT id FROM every")) < FILES * KEYS:
                    assert run.is_running
                run.stop()
            flow_of(flows, tmp_path).run(until="drained", state=tmp_path / "state")
            judge(flows, tmp_path)
        finally:
            flows.ask(other, "DROP USER crowded")
