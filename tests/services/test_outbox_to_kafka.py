"""An outbox into a topic: each row one message, in order, also when flow, broker or database is killed in between."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

import onefold as of
from onefold.testing.harness import ForkServer, Subject, at_every_step, chosen, run_schedules, steps_of
from services.jars import ServiceMissing
from services.kafka import Broker
from services.postgres import Postgres
from tests.crash import flows as crash_flows
from tests.crash.oracle import Count
from tests.services import kafka_topics as topics
from tests.services import outbox_flows, outbox_tables
from tests.services import postgres_flows as flows
from tests.services.under_load import kill, running

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def both(cluster: str, database: str) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


def arrive(folder: Path, life: int) -> bool:
    """The rows of an outbox, and the topic."""
    if life == 0:
        topics.make({topics.name_in(folder, "out"): 3})
    return outbox_flows.arrive(folder, life)


def to_topic(folder: Path) -> of.Flow:
    flow = of.Flow("outbox-out", **crash_flows.TINY)
    rows = outbox_flows._read(folder, flow)
    topic = of.kafka("${ONEFOLD_KAFKA}").topic(topics.name_in(folder, "out"))
    rows.append(topic, key="merchant", name="out")
    return flow


def judge(folder: Path) -> Count:
    """Every committed row once; those of a key in the order of their transactions."""
    truth = flows.rows(folder, "SELECT id, merchant, amount FROM truth")
    count = Count(events=len(truth))
    found = [json.loads(record.value, parse_float=Decimal) for record in topics.records(topics.name_in(folder, "out"))]
    rows = Counter((row["id"], row["merchant"], Decimal(row["amount"])) for row in found)
    count.rows("topic", Counter(truth), rows)
    wanted, told = defaultdict(list), defaultdict(list)
    for number, merchant in flows.rows(folder, "SELECT id, merchant FROM outbox ORDER BY transaction_id, id"):
        wanted[merchant].append(number)
    for row in found:
        told[row["merchant"]].append(row["id"])
    count.wrong += [f"{merchant}: out of order" for merchant in wanted if told[merchant] != wanted[merchant]]
    return count


TO_TOPIC = Subject(build=to_topic, arrive=arrive, judge=judge)


def test_killed_at_any_durable_step_each_row_is_one_message(
    tmp_path: Path, both: ForkServer, schedules: Callable[[int], int], seed: int
) -> None:
    steps = chosen(steps_of(TO_TOPIC, tmp_path / "untouched", both), schedules(8), seed=seed)
    results = run_schedules(TO_TOPIC, at_every_step(steps), tmp_path, both)
    print(results.text())
    assert not results.failures, results.text()


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    try:
        with Broker() as started:
            yield started
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    try:
        with Postgres() as started:
            yield started
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.timeout(600)
def test_broker_and_database_killed_under_load_each_row_is_one_message(
    own_broker: Broker, own_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(topics.VARIABLE, own_broker.address)
    topics.make({"out": 2})
    with psycopg.connect(own_server.url, autocommit=True) as sql:
        sql.execute(f"CREATE TABLE outbox (id bigserial PRIMARY KEY, n bigint, {outbox_tables.COLUMN})")
        sql.execute("CREATE INDEX ON outbox (transaction_id, id)")
    stopping = threading.Event()
    writing = threading.Thread(target=_write, args=(own_server.url, stopping), daemon=True)
    flow = of.Flow("under-load", epoch_rows=200)
    rows = flow.read(of.postgres(own_server.url).outbox("outbox"), schema={"id": "BIGINT", "n": "BIGINT"}, name="in")
    rows.append(of.kafka(own_broker.address).topic("out"), key="n", name="out")
    writing.start()
    try:
        with running(flow, tmp_path / "state"):
            kill([own_broker, own_server], up_seconds=2.0, down_seconds=0.5)
            stopping.wait(2.0)
            stopping.set()
            writing.join()
    finally:
        stopping.set()
    flow.run(until="drained", state=tmp_path / "state")
    with psycopg.connect(own_server.url) as sql:
        wanted = [number for (number,) in sql.execute("SELECT id FROM outbox ORDER BY id").fetchall()]
    assert len(wanted) > 100, "there was load"
    assert sorted(json.loads(record.value)["id"] for record in topics.records("out")) == wanted


def _write(url: str, stopping: threading.Event) -> None:
    """What it does not know the fate of, the table says."""
    while not stopping.is_set():
        try:
            with psycopg.connect(url, connect_timeout=2) as sql:
                while not stopping.wait(0.005):
                    sql.execute("INSERT INTO outbox (n) SELECT g % 7 FROM generate_series(1, 3) g")
                    sql.commit()
        except psycopg.Error:
            stopping.wait(0.05)
