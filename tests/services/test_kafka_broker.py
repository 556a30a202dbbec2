"""The broker is killed under load and comes back; the flow goes on by itself."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

import onefold as of
from services.jars import ServiceMissing
from services.kafka import Broker
from tests.services import kafka_topics as topics
from tests.services.under_load import kill, running

pytestmark = pytest.mark.crash

EVENTS = 20_000
PAUSE_SECONDS = 2.0
BATCH = 50


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """One that may be killed: not the one that the other tests share."""
    try:
        with Broker() as started:
            monkeypatch.setenv(topics.VARIABLE, started.address)
            yield started
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.timeout(1800)
def test_a_broker_that_is_killed_again_and_again_loses_and_doubles_nothing(
    broker: Broker, tmp_path: Path, schedules: Callable[[int], int]
) -> None:
    kills = schedules(3)
    topics.make({"in": 2, "out": 2})
    stopping = threading.Event()
    sent: list[int] = []
    feeding = threading.Thread(target=_feed, args=(broker.address, stopping, sent), daemon=True)
    flow = of.Flow("under-load", epoch_rows=500)
    connection = of.kafka(broker.address)
    events = flow.read(connection.topic("in"), schema={"id": "BIGINT", "note": "VARCHAR"}, name="in")
    events.dedup("id", within=None).append(connection.topic("out"), key="id", name="out")
    feeding.start()
    try:
        with running(flow, tmp_path):
            kill([broker] * kills, up_seconds=PAUSE_SECONDS, down_seconds=PAUSE_SECONDS / 2)
            stopping.set()
            feeding.join()
    finally:
        stopping.set()
    flow.run(until="drained", state=tmp_path)
    found = [json.loads(record.value)["id"] for record in topics.records("out")]
    assert len(found) == len(set(found)), "nothing twice"
    assert set(found) == set(sent), "nothing lost"
    assert len(sent) > kills, "there was load"


def _feed(address: str, stopping: threading.Event, sent: list[int]) -> None:
    """Whatever is acknowledged counts; the client repeats what is not, so that the input holds some twice."""
    quiet = {"log_level": 0, "message.timeout.ms": 300_000}
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, **quiet})
    number = 0
    while not stopping.is_set():
        for each in range(number, number + BATCH):
            told = functools.partial(_count, sent, each)
            producer.produce("in", json.dumps({"id": each, "note": "x" * 100}).encode(), on_delivery=told)
        number += BATCH
        while len(producer):
            producer.poll(0.1)


def _count(sent: list[int], number: int, error: object, _: object) -> None:
    assert error is None
    sent.append(number)
