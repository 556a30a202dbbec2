"""PostgreSQL and MariaDB as `services` starts them: what a kill leaves, and that none outlives its owner."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql
import pytest

from services import __main__ as main
from services import kafka, mariadb, postgres, registry, tied
from services.jars import ROOT, ServiceMissing
from services.mariadb import MariaDB
from services.postgres import Postgres
from tests.needs import need

pytestmark = pytest.mark.crash

SOON_SECONDS = 20.0
SILENT_SECONDS = 0.3
SHARED_MEMORY = Path("/proc/sysvipc/shm")


class OfPostgres:
    """What is PostgreSQL's own in these tests."""

    module = postgres
    refused = psycopg.OperationalError
    settings = {"work_mem": "5MB"}
    shown = ("SHOW work_mem", "5MB")

    def make(self) -> Postgres:
        return Postgres(self.settings)

    def connect(self, url: str) -> Any:
        return psycopg.connect(url)

    def prepare(self, connection: Any, name: str, insert: str) -> None:
        connection.autocommit = True
        run(connection, "BEGIN", insert, f"PREPARE TRANSACTION '{name}'")

    def prepared(self, connection: Any) -> list[str]:
        return [name for (name,) in run(connection, "SELECT gid FROM pg_prepared_xacts")]

    def commit(self, connection: Any, name: str) -> None:
        connection.autocommit = True
        run(connection, f"COMMIT PREPARED '{name}'")


class OfMariaDB:
    """What is MariaDB's own in these tests."""

    module = mariadb
    refused = pymysql.OperationalError
    settings = {"sort-buffer-size": "65536"}
    shown = ("SELECT @@sort_buffer_size", 65536)

    def make(self) -> MariaDB:
        return MariaDB(self.settings)

    def connect(self, url: str) -> Any:
        at = urlsplit(url)
        who = {"user": at.username, "password": unquote(at.password or "")}
        return pymysql.connect(host=at.hostname, port=at.port or 0, database=at.path.lstrip("/"), **who)

    def prepare(self, connection: Any, name: str, insert: str) -> None:
        run(connection, f"XA START '{name}'", insert, f"XA END '{name}'", f"XA PREPARE '{name}'")

    def prepared(self, connection: Any) -> list[str]:
        return [name.decode() for *_, name in run(connection, "XA RECOVER")]

    def commit(self, connection: Any, name: str) -> None:
        connection.autocommit(True)  # without it every session is in a transaction, and may not end another's
        run(connection, f"XA COMMIT '{name}'")


KINDS: dict[str, OfPostgres | OfMariaDB] = {"postgres": OfPostgres(), "mariadb": OfMariaDB()}


def run(connection: Any, *statements: str) -> Any:
    """The rows of the last statement, if it has any."""
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture(scope="module", params=KINDS)
def started(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """The kind, and a server of it."""
    kind = KINDS[request.param]
    try:
        with kind.make() as server:
            yield kind, server
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def table(started: tuple[Any, Any]) -> str:
    kind, server = started
    name = f"t_{uuid.uuid4().hex}"
    connection = kind.connect(server.url)
    run(connection, f"CREATE TABLE {name} (id INTEGER PRIMARY KEY)")
    connection.commit()
    connection.close()
    return name


def rows(kind: Any, server: Any, table: str) -> list[int]:
    connection = kind.connect(server.url)
    found = [number for (number,) in run(connection, f"SELECT id FROM {table} ORDER BY id")]
    connection.close()
    return found


# ------------------------------------------------------------------------------------------------------------- answers


def test_it_answers_sql_at_its_url_and_has_the_settings_given(started: tuple[Any, Any]) -> None:
    kind, server = started
    statement, value = kind.shown
    assert run(kind.connect(server.url), statement) == [(value,)]


def test_it_asks_for_the_password(started: tuple[Any, Any]) -> None:
    kind, server = started
    assert "one%40fold" in server.url
    with pytest.raises(kind.refused):
        kind.connect(server.url.replace("one%40fold", "other"))


def test_frozen_it_says_nothing_and_thawed_it_goes_on(started: tuple[Any, Any]) -> None:
    kind, server = started
    connection = kind.connect(server.url)
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        server.freeze()
        answer = other.submit(run, connection, "SELECT 7")
        with pytest.raises(concurrent.futures.TimeoutError):
            answer.result(SILENT_SECONDS)
        server.thaw()
        assert answer.result(SOON_SECONDS) == [(7,)]


# --------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_committed_row_survives_the_end_and_an_uncommitted_one_does_not(
    started: tuple[Any, Any], table: str, end: str
) -> None:
    kind, server = started
    connection = kind.connect(server.url)
    run(connection, f"INSERT INTO {table} VALUES (1)")
    connection.commit()
    run(connection, f"INSERT INTO {table} VALUES (2)")
    getattr(server, end)()
    with pytest.raises(kind.refused):
        kind.connect(server.url)
    server.start()
    with pytest.raises(kind.refused):
        run(connection, "SELECT 1")
    assert rows(kind, server, table) == [1]


def test_a_prepared_transaction_survives_kill_and_start(started: tuple[Any, Any], table: str) -> None:
    kind, server = started
    kind.prepare(kind.connect(server.url), table, f"INSERT INTO {table} VALUES (1)")
    server.kill()
    server.start()
    assert rows(kind, server, table) == []
    again = kind.connect(server.url)
    assert kind.prepared(again) == [table]
    again.commit()
    kind.commit(again, table)
    assert kind.prepared(again) == []
    assert rows(kind, server, table) == [1]


def test_a_frozen_server_can_be_killed_and_comes_back(started: tuple[Any, Any], table: str) -> None:
    kind, server = started
    run(connection := kind.connect(server.url), f"INSERT INTO {table} VALUES (1)")
    connection.commit()
    server.freeze()
    server.kill()
    server.start()
    assert rows(kind, server, table) == [1]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_if_the_first_process_ends_by_itself_kill_leaves_no_other(
    started: tuple[Any, Any], table: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    kind, server = started
    open_one = kind.connect(server.url)
    run(open_one, f"INSERT INTO {table} VALUES (1)")
    first = server._process.pid
    family = tied.family(first, watcher=server._watcher)
    send = tied.send

    def end_when_all_are_stopped(number: signal.Signals, processes: list[int]) -> None:
        send(number, processes)
        if number is signal.SIGSTOP and processes != [first]:
            os.kill(first, signal.SIGKILL)
            wait_for_the_end_of([first])

    if when == "before":
        os.kill(first, signal.SIGKILL)
    else:
        monkeypatch.setattr(tied, "send", end_when_all_are_stopped)
    server.kill()
    monkeypatch.undo()
    wait_for_the_end_of(family)
    server.start()
    assert rows(kind, server, table) == []


def wait_for_the_end_of(processes: list[int]) -> None:
    deadline = time.monotonic() + SOON_SECONDS
    while left := set(processes) & tied.living().keys():
        assert time.monotonic() < deadline, f"{left} live on"


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    try:
        with Postgres() as server:
            yield server
    except ServiceMissing as missing:
        pytest.skip(str(missing))


def test_a_killed_postgres_starts_though_its_number_is_another_process_now(own_postgres: Postgres) -> None:
    own_postgres.kill()
    whose = own_postgres._user.of_process() if own_postgres._user else {}
    other = subprocess.Popen(["sleep", "600"], cwd="/", **whose)
    pid_file = own_postgres._pid_file
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(other.pid), *lines[1:], ""]))
    try:
        own_postgres.start()
    finally:
        other.kill()
        other.wait()
    assert run(psycopg.connect(own_postgres.url), "SELECT 1") == [(1,)]


def test_a_postgres_that_is_killed_for_good_leaves_no_shared_memory() -> None:
    need(SHARED_MEMORY.exists(), "no /proc/sysvipc of Linux")
    try:
        with Postgres() as server:
            piece = server._pid_file.read_text().splitlines()[6].split()[1]
            assert piece in pieces_of_memory()
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    assert piece not in pieces_of_memory()


def pieces_of_memory() -> set[str]:
    return {line.split()[1] for line in SHARED_MEMORY.read_text().splitlines()}


# --------------------------------------------------------------------------------------------------------------- owners

OWNER = """
import json
from services import tied
from services.{module} import {name}
with {name}() as server:
    number = server._process.pid
    all = [number, server._watcher, *tied.family(number, watcher=server._watcher)]
    {then}
    print(json.dumps([str(server._path), all]), flush=True)
    input()
"""


@pytest.mark.parametrize("then", ["pass", "server.freeze()"], ids=["running", "frozen"])
@pytest.mark.parametrize("name", ["Postgres", "MariaDB"])
def test_no_process_of_the_server_outlives_its_owner(name: str, then: str) -> None:
    code = OWNER.format(module=name.lower(), name=name, then=then)
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, **streams) as owner:  # type: ignore[call-overload]
        line = owner.stdout.readline()
        if not line:
            text = owner.stderr.read()
            need("ServiceMissing" not in text, text.strip().splitlines()[-1])
            pytest.fail(text)
        folder, numbers = json.loads(line)
        assert set(numbers[:2]) <= tied.living().keys(), "the server and its watcher"
        owner.kill()
    wait_for_the_end_of(numbers)
    postgres.forget(Path(folder) / "data")
    shutil.rmtree(folder)


# ----------------------------------------------------------------------------------------------------- other people's


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without any server, and no variable that names one."""
    monkeypatch.setenv("PATH", "")
    for module in (kafka, registry, postgres, mariadb):
        monkeypatch.delenv(module.VARIABLE, raising=False)
        if hasattr(module, "PLACES"):
            monkeypatch.setattr(module, "PLACES", ())
    return monkeypatch


@pytest.mark.parametrize("module", [postgres, mariadb], ids=["postgres", "mariadb"])
def test_the_one_that_the_variable_names_is_used_instead(bare: pytest.MonkeyPatch, module: ModuleType) -> None:
    bare.setenv(module.VARIABLE, "scheme://user:password@elsewhere/database")
    with module.running() as url:
        assert url == "scheme://user:password@elsewhere/database"


@pytest.mark.parametrize("module", [postgres, mariadb], ids=["postgres", "mariadb"])
def test_a_missing_server_says_what_to_install_or_to_name(bare: pytest.MonkeyPatch, module: ModuleType) -> None:
    with pytest.raises(ServiceMissing, match=rf"install the package \S+, or name .* {module.VARIABLE}"):
        module.running().__enter__()


def test_make_services_names_what_is_missing_and_starts_the_rest(
    bare: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bare.setenv(kafka.VARIABLE, "elsewhere:9092")
    bare.setenv(registry.VARIABLE, "http://elsewhere")
    bare.setenv(mariadb.VARIABLE, "mysql://elsewhere/database?a=1&b=2")
    seen = "import os; print(os.environ['ONEFOLD_MARIADB'], 'ONEFOLD_POSTGRES' in os.environ)"
    bare.setattr(sys, "argv", ["services", sys.executable, "-c", seen])
    assert main.main() == 0
    told = capfd.readouterr()
    assert "export ONEFOLD_MARIADB='mysql://elsewhere/database?a=1&b=2'\n" in told.out
    assert told.out.endswith("\nmysql://elsewhere/database?a=1&b=2 False\n")
    assert told.err.startswith("without ONEFOLD_POSTGRES: no PostgreSQL server: install")


def test_make_services_fails_where_there_is_no_server_at_all(
    bare: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bare.setattr(main, "SERVERS", (postgres, mariadb))
    assert main.main() == 1
    assert capfd.readouterr().err.count("without ") == 2
