"""Tables of one database that commit together: one transaction, whatever dies, is lost or was left by whom."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import onefold as of
from onefold import disk
from onefold.connectors import preparing
from onefold.connectors.postgres.sink import PostgresSink
from onefold.engines.embedded import deliveries
from onefold.epoch import EpochCore
from onefold.errors import RowsRefused, SinkChanged, SinkRefused, SinkUnavailable, StateUnknown
from onefold.types import Handle
from tests.services import postgres_flows as flows

PATIENCE_SECONDS = 60

OURS = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, 'onefold:shared')"


class Died(BaseException):
    """As if the process were killed: no code survives it."""


@pytest.fixture
def sql(database: str, tmp_path: Path) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {flows.schema_of(tmp_path)}")
        connection.execute(f"SET search_path TO {flows.schema_of(tmp_path)}")
        yield connection
        for (name,) in connection.execute(OURS).fetchall():
            connection.execute(f"ROLLBACK PREPARED '{name}'")


def feed(folder: Path, name: str, *ids: int) -> None:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_text("".join(json.dumps({"id": number}) + "\n" for number in ids))


def flow_of(folder: Path, *extra: str, database: Any = None) -> of.Flow:
    """Every id into `every`, then into a data set, those of 100 and more into `big`. extra: more tables with all."""
    flow = of.Flow("shared", commit="together", fence_every="20 milliseconds")
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
    place = {"schema": flows.schema_of(folder), "create": True}
    rows.append(flows.database(folder).table("every", **place))
    rows.append(of.files(str(folder / "lake")), name="lake")
    rows.where("id >= 100").append((database or flows.database(folder)).table("big", **place))
    for name in extra:
        rows.append(flows.database(folder).table(name, **place))
    return flow


def carry(folder: Path, flow: of.Flow | None = None) -> None:
    (flow or flow_of(folder)).run(until="drained", state=folder / "state")


def ids(sql: Any, table: str) -> list[int]:
    return [row[0] for row in sql.execute(f"SELECT id FROM {table} ORDER BY id")]


def prepared(sql: Any) -> list[str]:
    return [row[0] for row in sql.execute("SELECT gid FROM pg_prepared_xacts ORDER BY gid")]


def observe(monkeypatch: pytest.MonkeyPatch, step: str, moment: str, count: int, act: Callable[[], None]) -> None:
    """Do something at a durable step, once."""
    met: list[None] = []

    def observer(name: str, when: disk.Moment) -> None:
        if (name, when) == (step, moment):
            met.append(None)
            if len(met) == count:
                act()

    monkeypatch.setattr(disk, "observer", observer)


def die() -> None:
    raise Died


def test_tables_share_by_what_the_url_says_and_by_the_schema_of_tokens(
    tmp_path: Path, sql: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = f"{flows.schema_of(tmp_path)} tokens"
    found: dict[str, int] = {}
    others = {
        "the same": flows.database(tmp_path),
        "another URL": of.postgres(database, tokens=tokens),
        "other tokens": of.postgres(f"${{{flows.VARIABLE}}}", tokens=f"{tokens} too"),
    }
    feed(tmp_path, "a.jsonl", 1, 200)
    for name, other in others.items():
        sql.execute("DROP TABLE IF EXISTS every, big")
        sql.execute(f'DROP SCHEMA IF EXISTS "{tokens}" CASCADE')
        shutil.rmtree(tmp_path / "lake", ignore_errors=True)
        observe(monkeypatch, "journal.seal", "before", 1, lambda: found.update({name: len(prepared(sql))}))
        flow_of(tmp_path, database=other).run(state=tmp_path / name)
        assert (ids(sql, "every"), ids(sql, "big"), prepared(sql)) == ([1, 200], [200], [])
    assert found == {"the same": 1, "another URL": 2, "other tokens": 2}


def test_what_was_prepared_is_found_however_the_url_is_written(
    tmp_path: Path, sql: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(tmp_path, "a.jsonl", 1, 200)
    observe(monkeypatch, "postgres.prepare", "after", 1, die)
    with pytest.raises(Died):
        flow_of(tmp_path).run(state=tmp_path / "state")
    assert len(prepared(sql)) == 1
    other = of.postgres(database, tokens=f"{flows.schema_of(tmp_path)} tokens")
    with pytest.raises(SinkChanged) as refused:  # that the two are one is not known before they are opened
        flow_of(tmp_path, database=other).run(state=tmp_path / "state")
    mark = tmp_path / "state" / "shared" / "undecided"
    assert str(mark) in str(refused.value.next_step)
    mark.unlink()
    flow_of(tmp_path, database=other).run(state=tmp_path / "state")
    assert (ids(sql, "every"), ids(sql, "big"), prepared(sql)) == ([1, 200], [200], [])


LOST = [
    *((step, moment, 1) for step in ("postgres.write", "postgres.prepare") for moment in ("before", "after")),
    *(("postgres.write", moment, 2) for moment in ("before", "after")),
    *(("postgres.commit", moment, 1) for moment in ("before", "after")),
    ("files.stage", "before", 1),
]


@pytest.mark.parametrize(("step", "moment", "count"), LOST)
def test_a_session_that_is_lost_leaves_no_epoch_with_a_part_of_its_rows(
    step: str, moment: str, count: int, tmp_path: Path, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set prepares between the two tables. What is lost is the session of both."""
    ended: list[Any] = []

    def hang_up() -> None:
        found = sql.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'onefold %'"
        )
        ended.extend(found.fetchall())

    observe(monkeypatch, step, moment, count, hang_up)
    feed(tmp_path, "a.jsonl", 1, 200)
    carry(tmp_path)
    assert ended == [(True,)]
    assert (ids(sql, "every"), ids(sql, "big"), prepared(sql)) == ([1, 200], [200], [])


def test_rows_that_are_refused_when_all_is_prepared_are_told_with_the_table_that_they_are_of(
    tmp_path: Path, sql: Any
) -> None:
    """A constraint of the first table, checked when all is prepared."""
    sql.execute("CREATE TABLE every (id bigint, UNIQUE (id) DEFERRABLE INITIALLY DEFERRED)")
    feed(tmp_path, "a.jsonl", 300, 300)
    with pytest.raises(RowsRefused, match="every") as refused:
        carry(tmp_path)
    assert refused.value.where["sink"] == "every"
    assert (ids(sql, "every"), ids(sql, "big"), prepared(sql)) == ([], [], [])


def test_rows_that_the_first_table_refuses_leave_nothing_prepared_in_another_database(tmp_path: Path, sql: Any) -> None:
    sql.execute("CREATE TABLE every (id bigint CHECK (id < 100))")
    feed(tmp_path, "a.jsonl", 300)
    other = of.postgres(f"${{{flows.VARIABLE}}}", tokens=f"{flows.schema_of(tmp_path)} others")
    for _ in range(3):
        with pytest.raises(RowsRefused):
            carry(tmp_path, flow_of(tmp_path, database=other))
        assert (ids(sql, "every"), ids(sql, "big"), prepared(sql)) == ([], [], [])


def test_what_two_users_prepared_in_one_database_is_forgotten_by_each(
    tmp_path: Path, sql: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each finds what both prepared, and may forget its own alone."""
    place = flows.schema_of(tmp_path)
    users = [f"{place}_{letter}" for letter in "ab"]
    sql.execute(f'CREATE SCHEMA "{place} tokens"')
    for user, other in (users, users[::-1]):
        sql.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'x'")
        sql.execute(f'GRANT ALL ON SCHEMA {place}, "{place} tokens" TO {user}')
    for user, other in (users, users[::-1]):
        sql.execute(
            f'ALTER DEFAULT PRIVILEGES FOR ROLE {user} IN SCHEMA "{place} tokens" GRANT ALL ON TABLES TO {other}'
        )

    def carry_both() -> None:
        flow = of.Flow("shared", commit="together")
        stream = flow.read(of.files(str(tmp_path / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
        for user in users:
            server = of.postgres(database.replace("onefold:one%40fold", f"{user}:x"), tokens=f"{place} tokens")
            stream.append(server.table(f"of_{user}", schema=place, create=True))
        flow.run(state=tmp_path / "state")

    feed(tmp_path, "a.jsonl", 1)
    carry_both()
    feed(tmp_path, "b.jsonl", 2)
    with monkeypatch.context() as patch:
        observe(patch, "journal.seal", "before", 1, die)
        with pytest.raises(Died):
            carry_both()
    assert len(prepared(sql)) == 2
    carry_both()
    assert [ids(sql, f"of_{user}") for user in users] == [[1, 2], [1, 2]]
    assert prepared(sql) == []


def test_a_table_that_cannot_be_prepared_is_told_so_at_once(
    tmp_path: Path, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql.execute("CREATE TABLE every (id bigint)")
    sql.execute(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_notify('x', 'y'); RETURN NEW; END $$"
    )
    sql.execute("CREATE TRIGGER tell AFTER INSERT ON every FOR EACH ROW EXECUTE FUNCTION tell()")
    feed(tmp_path, "a.jsonl", 1)
    monkeypatch.setattr(preparing, "PREPARE_SECONDS", 1e9)
    with pytest.raises(SinkRefused, match="cannot be written") as refused:
        carry(tmp_path)
    assert "NOTIFY" in str(refused.value.found)


def test_a_server_that_is_away_while_leftovers_are_forgotten_is_asked_again(
    tmp_path: Path, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(tmp_path, "a.jsonl", 1)
    with monkeypatch.context() as patch:
        observe(patch, "journal.seal", "before", 1, die)
        with pytest.raises(Died):
            carry(tmp_path)
    abort, failures = PostgresSink.abort, [SinkUnavailable("Not now.")] * 2

    def fail_first(self: PostgresSink, handle: Handle) -> None:
        if failures:
            raise failures.pop()
        abort(self, handle)

    monkeypatch.setattr(PostgresSink, "abort", fail_first)
    carry(tmp_path)
    assert (ids(sql, "every"), prepared(sql)) == ([1], [])
    monkeypatch.setattr(deliveries, "ABORT_PAUSES", (0.0,))
    feed(tmp_path, "b.jsonl", 2)
    with monkeypatch.context() as patch:
        observe(patch, "journal.seal", "before", 1, die)
        with pytest.raises(Died):
            carry(tmp_path)
    failures += [SinkUnavailable("Not now.")] * 9
    with pytest.raises(SinkUnavailable, match="could not be forgotten"):
        carry(tmp_path)
    failures.clear()
    carry(tmp_path)
    assert (ids(sql, "every"), prepared(sql)) == ([1, 2], [])


def test_a_sink_may_not_leave_while_something_may_be_prepared_in_it(
    tmp_path: Path, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would ask it again, and what it keeps would stay locked."""

    def flow(target: Any) -> of.Flow:
        flow = of.Flow("shared", commit="together")
        stream = flow.read(of.files(str(tmp_path / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
        stream.append(target, name="out")
        return flow

    feed(tmp_path, "a.jsonl", 1)
    before, after = flow(flows.table(tmp_path, "former")), flow(of.files(str(tmp_path / "lake")))
    before.run(state=tmp_path / "state")
    feed(tmp_path, "b.jsonl", 2)
    with monkeypatch.context() as patch:
        observe(patch, "journal.seal", "before", 1, die)
        with pytest.raises(Died):
            before.run(state=tmp_path / "state")
    assert len(prepared(sql)) == 1
    with pytest.raises(SinkChanged, match="may have been prepared"):
        after.run(state=tmp_path / "state")
    before.run(state=tmp_path / "state", until="drained")
    assert (ids(sql, "former"), prepared(sql)) == ([1, 2], [])
    after.run(state=tmp_path / "state", until="drained")


# ------------------------------------------------------------------------------------------ INV-10: whose is a handle


def judged_by_its_lister(core: EpochCore, sink: str, handle: Handle) -> bool:
    """The control: as it is right where no handle holds the rows of two sinks."""
    header = core.chain.get(handle.epoch)
    is_sealed = header is not None and header.seal == handle.seal
    is_ours = handle.journal == core.chain.journal and handle.incarnation < core._incarnation
    return is_ours and not (is_sealed and handle.epoch > core.courses[sink].cursor)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is prepared is committed a second after the others had time to abort it."""
    aborted = threading.Event()
    commit, abort = PostgresSink._commit_prepared, PostgresSink.abort

    def wait(self: PostgresSink, name: str, move: Any) -> None:
        with_lock = self._session.lock
        with_lock.release()
        aborted.wait(1)
        with_lock.acquire()
        commit(self, name, move)

    def tell(self: PostgresSink, handle: Handle) -> None:
        abort(self, handle)
        aborted.set()

    monkeypatch.setattr(PostgresSink, "_commit_prepared", wait)
    monkeypatch.setattr(PostgresSink, "abort", tell)


RULES = pytest.mark.parametrize("control", [None, judged_by_its_lister], ids=["as it is", "control"])


def decide(folder: Path, sql: Any, flow: of.Flow, monkeypatch: pytest.MonkeyPatch, control: Any) -> None:
    """Another process decides what is prepared: by the seal. The control forgets it."""
    if control is None:
        carry(folder, flow)
        return
    monkeypatch.setattr(EpochCore, "_is_orphan", control)
    monkeypatch.setattr(preparing, "PREPARE_SECONDS", 0)
    with pytest.raises(StateUnknown, match="no longer there"):
        carry(folder, flow)
    assert prepared(sql) == []


@RULES
@pytest.mark.usefixtures("late")
def test_rows_of_one_table_are_not_aborted_through_the_other_whose_token_has_passed_them(
    control: Any, tmp_path: Path, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(tmp_path, "a.jsonl", 1, 200)
    carry(tmp_path)
    feed(tmp_path, "b.jsonl", 2)
    with monkeypatch.context() as patch:
        patch.setattr(PostgresSink, "_commit_prepared", _unavailable)
        with flow_of(tmp_path).start(state=tmp_path / "state"):
            _await(lambda: _token_of(sql, tmp_path, "big") == 2)
    assert (_token_of(sql, tmp_path, "every"), len(prepared(sql))) == (1, 1)
    decide(tmp_path, sql, flow_of(tmp_path), monkeypatch, control)
    assert ids(sql, "every") == [1, 200] if control else [1, 2, 200]


@RULES
@pytest.mark.usefixtures("late")
def test_rows_are_not_aborted_through_a_table_that_joined_after_they_were_sealed(
    control: Any, tmp_path: Path, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(tmp_path, "a.jsonl", 1, 200)
    with monkeypatch.context() as patch:
        observe(patch, "journal.seal", "after", 1, die)
        with pytest.raises(Died):
            carry(tmp_path)
    assert len(prepared(sql)) == 1
    decide(tmp_path, sql, flow_of(tmp_path, "later"), monkeypatch, control)
    feed(tmp_path, "b.jsonl", 300)
    if control is None:
        carry(tmp_path, flow_of(tmp_path, "later"))
        found = [ids(sql, table) for table in ("every", "big", "later")]
        assert found == [[1, 200, 300], [200, 300], [300]]


def _unavailable(self: PostgresSink, name: str, move: Any) -> None:
    raise SinkUnavailable("Not now.", sink=self.binding.sink)


def _token_of(sql: Any, folder: Path, sink: str) -> int:
    tokens = f'"{flows.schema_of(folder)} tokens"."_onefold_tokens"'
    return int(sql.execute(f"SELECT epoch FROM {tokens} WHERE sink = %s", [sink]).fetchone()[0])


def _await(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 50):
        if holds():
            return
        pause.wait(0.02)
    raise TimeoutError
