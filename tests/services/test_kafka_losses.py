"""What others do to a flow's topics, offsets and groups: it goes on rightly, or stops and says what is missing."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from kafka import KafkaConsumer

import onefold as of
from onefold import disk
from onefold.clock import SystemClock
from onefold.connectors.kafka import sink as kafka_sink
from onefold.connectors.kafka.producing import Producing
from onefold.connectors.kafka.token import group_of
from onefold.engines.embedded.losses import find_losses, skip_losses
from onefold.errors import InputLost, SinkRestored
from services.kafka import Broker
from tests.services import kafka_topics as topics

pytestmark = pytest.mark.crash

SCHEMA = {"id": "BIGINT"}


def bridge(
    folder: Path,
    *,
    start: Literal["earliest", "latest"] = "earliest",
    read: str | None = None,
    options: Mapping[str, str] | None = None,
) -> of.Flow:
    """topic in -> topic out."""
    cluster = of.kafka("${ONEFOLD_KAFKA}", options=options)
    flow = of.Flow("losses", epoch_rows=10)
    topic = cluster.topic(read or topics.name_in(folder, "in"), start=start)
    events = flow.read(topic, schema=SCHEMA, format="json", name="in")
    events.append(cluster.topic(topics.name_in(folder, "out")), key="id", name="out")
    return flow


def accept_losses(folder: Path, **how: Any) -> None:
    plan, state = bridge(folder, **how).plan, folder / "state" / "losses"
    losses = find_losses(plan, state, SystemClock())
    assert len(losses) == 1
    skip_losses(plan, state, losses)


def feed(folder: Path, numbers: range, partition: int | None = None) -> None:
    values = [json.dumps({"id": number}).encode() for number in numbers]
    topics.produce(topics.name_in(folder, "in"), values, partition=partition)


def found(folder: Path) -> Counter[int]:
    return Counter(json.loads(record.value)["id"] for record in topics.records(topics.name_in(folder, "out")))


def made(folder: Path, partitions: int = 1) -> None:
    topics.make({topics.name_in(folder, "in"): partitions, topics.name_in(folder, "out"): 2})


@pytest.mark.usefixtures("cluster")
def test_a_preview_waits_for_the_first_rows(tmp_path: Path) -> None:
    made(tmp_path)
    cluster = of.kafka("${ONEFOLD_KAFKA}")
    rows = of.Flow("look").read(cluster.topic(topics.name_in(tmp_path, "in")), schema=SCHEMA, format="json")
    assert rows.preview(5).num_rows == 0
    feed(tmp_path, range(20))
    assert rows.preview(5).column("id").to_pylist() == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("cluster")
def test_what_kafka_says_of_a_record_can_be_kept(tmp_path: Path) -> None:
    made(tmp_path)
    before = datetime.now(UTC) - timedelta(seconds=1)
    topics.produce(topics.name_in(tmp_path, "in"), [b'{"id": 1}', b'{"id": 2}'], [b"one", None])
    cluster, meta = of.kafka("${ONEFOLD_KAFKA}"), ["_topic", "_partition", "_offset", "_timestamp", "_key", "_headers"]
    read = of.Flow("meta").read(cluster.topic(topics.name_in(tmp_path, "in")), schema=SCHEMA, format="json", meta=meta)
    rows = read.preview(5).to_pylist()
    assert [(row["id"], row["_partition"], row["_offset"], row["_key"]) for row in rows] == [
        (1, 0, 0, b"one"),
        (2, 0, 1, None),
    ]
    assert all(before <= row["_timestamp"] <= datetime.now(UTC) for row in rows)
    assert {row["_topic"] for row in rows} == {topics.name_in(tmp_path, "in")}
    assert [row["_headers"] for row in rows] == [[], []]


@pytest.mark.usefixtures("cluster")
def test_a_token_that_was_deleted_is_missed(tmp_path: Path) -> None:
    made(tmp_path)
    feed(tmp_path, range(20))
    bridge(tmp_path).run(state=tmp_path / "state")
    topics.delete_group(group_of("losses", "0", "out"))
    feed(tmp_path, range(20, 30))
    with pytest.raises(SinkRestored) as caught:
        bridge(tmp_path).run(state=tmp_path / "state")
    assert caught.value.where["sink"] == "out"
    assert found(tmp_path) == Counter(range(20)), "and nothing was written"


@pytest.mark.usefixtures("cluster")
def test_records_deleted_before_they_were_read_are_named(tmp_path: Path) -> None:
    made(tmp_path)
    feed(tmp_path, range(20))
    bridge(tmp_path).run(state=tmp_path / "state")
    feed(tmp_path, range(20, 40))
    topics.delete_before(topics.name_in(tmp_path, "in"), 0, 33)
    with pytest.raises(InputLost) as caught:
        bridge(tmp_path).run(state=tmp_path / "state")
    assert "offsets 20 to 32" in str(caught.value)
    assert "onefold recover --skip-lost" in caught.value.next_step
    assert found(tmp_path) == Counter(range(20))
    accept_losses(tmp_path)
    bridge(tmp_path).run(state=tmp_path / "state")
    assert found(tmp_path) == Counter([*range(20), *range(33, 40)])
    books = bridge(tmp_path).status(state=tmp_path / "state").totals["operators"]["in"]
    assert (books["read"], books["lost"]) == (27, 13)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_topic_that_was_deleted_and_made_anew_is_another_one(
    start: Literal["earliest", "latest"], tmp_path: Path
) -> None:
    made(tmp_path)
    bridge(tmp_path, start=start).run(state=tmp_path / "state")
    feed(tmp_path, range(20))
    bridge(tmp_path, start=start).run(state=tmp_path / "state")
    topics.delete(topics.name_in(tmp_path, "in"))
    topics.make({topics.name_in(tmp_path, "in"): 1})
    feed(tmp_path, range(20, 60))
    with pytest.raises(InputLost, match="deleted and made anew"):
        bridge(tmp_path, start=start).run(state=tmp_path / "state")
    assert found(tmp_path) == Counter(range(20))
    accept_losses(tmp_path, start=start)
    bridge(tmp_path, start=start).run(state=tmp_path / "state")
    assert found(tmp_path) == Counter(range(60))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_topic_of_a_pattern_that_is_gone_is_missed(start: Literal["earliest", "latest"], tmp_path: Path) -> None:
    names = [topics.name_in(tmp_path, "many") + suffix for suffix in ("-a", "-b")]
    topics.make({names[0]: 1, names[1]: 1, topics.name_in(tmp_path, "out"): 1})
    every = {"start": start, "read": f"^{topics.name_in(tmp_path, 'many')}-"}
    bridge(tmp_path, **every).run(state=tmp_path / "state")
    for name in names:
        topics.produce(name, [b'{"id": 1}'])
    bridge(tmp_path, **every).run(state=tmp_path / "state")
    topics.delete(names[0])
    topics.produce(names[1], [b'{"id": 2}'])
    with pytest.raises(InputLost, match="is gone"):
        bridge(tmp_path, **every).run(state=tmp_path / "state")
    accept_losses(tmp_path, **every)
    bridge(tmp_path, **every).run(state=tmp_path / "state")
    assert found(tmp_path) == Counter([1, 1, 2])
    topics.make({names[0]: 1})
    topics.produce(names[0], [b'{"id": 3}'])
    bridge(tmp_path, **every).run(state=tmp_path / "state")
    assert found(tmp_path) == Counter([1, 1, 2, 3]), "one that comes again is read from its beginning"


@pytest.mark.parametrize(
    ("others", "what"),
    [
        (range(100, 120), "what was before offset 20 is not what was processed"),
        (range(0), "offsets 10 to 19 were processed, and are gone from the log"),
    ],
    ids=["filled past the position", "not filled"],
)
def test_a_log_that_was_truncated_is_another_history(
    others: range, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an unclean election: 10 records lost, maybe others in their places, the position in their midst."""
    with Broker() as broker:
        monkeypatch.setenv(topics.VARIABLE, broker.address)
        made(tmp_path)
        feed(tmp_path, range(10))
        broker.stop()
        log = broker.folder_of(topics.name_in(tmp_path, "in"), 0)
        shutil.copytree(log, tmp_path / "older")
        broker.start()
        feed(tmp_path, range(10, 20))
        bridge(tmp_path).run(state=tmp_path / "state")
        assert found(tmp_path) == Counter(range(20))
        broker.stop()
        shutil.rmtree(log)
        shutil.copytree(tmp_path / "older", log)
        broker.start()
        feed(tmp_path, others)
        with pytest.raises(InputLost, match=what):
            bridge(tmp_path).run(state=tmp_path / "state")
        accept_losses(tmp_path)
        feed(tmp_path, range(200, 205))
        bridge(tmp_path).run(state=tmp_path / "state")
        assert found(tmp_path) == Counter([*range(20), *others, *range(200, 205)])


def test_a_partition_that_was_truncated_is_noticed_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka validates by itself only what it assigns before it has heard of the topic: often the first alone."""
    with Broker() as broker:
        monkeypatch.setenv(topics.VARIABLE, broker.address)
        made(tmp_path, partitions=4)
        for partition in range(4):
            feed(tmp_path, range(10), partition)
        broker.stop()
        log = broker.folder_of(topics.name_in(tmp_path, "in"), 3)
        shutil.copytree(log, tmp_path / "older")
        broker.start()
        for partition in range(4):
            feed(tmp_path, range(10, 20), partition)
        bridge(tmp_path).run(state=tmp_path / "state")
        broker.stop()
        shutil.rmtree(log)
        shutil.copytree(tmp_path / "older", log)
        broker.start()
        feed(tmp_path, range(100, 120), 3)
        with pytest.raises(InputLost, match="what was before offset 20 is not what was processed"):
            bridge(tmp_path).run(state=tmp_path / "state")


@pytest.mark.usefixtures("cluster")
def test_records_deleted_behind_the_position_do_not_matter(tmp_path: Path) -> None:
    made(tmp_path)
    feed(tmp_path, range(20))
    bridge(tmp_path).run(state=tmp_path / "state")
    feed(tmp_path, range(20, 40))
    topics.delete_before(topics.name_in(tmp_path, "in"), 0, 20)
    bridge(tmp_path).run(state=tmp_path / "state")
    assert found(tmp_path) == Counter(range(40))


@pytest.mark.usefixtures("cluster")
def test_partitions_that_are_added_while_it_runs_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onefold.connectors.kafka.source.REFRESH_SECONDS", 0.2)
    made(tmp_path)
    feed(tmp_path, range(10))
    with bridge(tmp_path).start(state=tmp_path / "state") as run:
        topics.add_partitions(topics.name_in(tmp_path, "in"), 4)
        lines = [json.dumps({"id": number}).encode() for number in range(10, 50)]
        topics.produce(topics.name_in(tmp_path, "in"), lines, [str(number).encode() for number in range(10, 50)])
        deadline = time.monotonic() + 30
        while len(found(tmp_path)) < 50 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert run.is_running
    assert found(tmp_path) == Counter(range(50))
    assert len({record.partition for record in topics.records(topics.name_in(tmp_path, "in"))}) > 1


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("group", ["onefold", "somebody-else"])
def test_groups_of_others_that_rebalance_change_nothing(group: str, tmp_path: Path) -> None:
    """Not even when they use the group whose offsets we commit for lag tools."""
    made(tmp_path, partitions=3)
    stopping = threading.Event()
    foreign = threading.Thread(target=_join_and_leave, args=(topics.name_in(tmp_path, "in"), group, stopping))
    foreign.start()
    try:
        with bridge(tmp_path).start(state=tmp_path / "state") as run:
            for first in range(0, 100, 10):
                keys = [str(number).encode() for number in range(first, first + 10)]
                lines = [json.dumps({"id": number}).encode() for number in range(first, first + 10)]
                topics.produce(topics.name_in(tmp_path, "in"), lines, keys)
                time.sleep(0.3)
            assert run.is_running
    finally:
        stopping.set()
        foreign.join()
    bridge(tmp_path).run(state=tmp_path / "state")
    assert found(tmp_path) == Counter(range(100))


def _join_and_leave(topic: str, group: str, stopping: threading.Event) -> None:
    while not stopping.is_set():
        consumer = KafkaConsumer(topic, bootstrap_servers=topics.address(), group_id=group, auto_offset_reset="latest")
        consumer.poll(timeout_ms=500)
        consumer.close()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("step", ["before kafka.send", "after kafka.send", "before kafka.commit"])
def test_a_delivery_that_outlives_the_transaction_is_done_again(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker aborts what is open for longer than transaction.timeout.ms."""
    made(tmp_path)
    feed(tmp_path, range(30))
    when, name = step.split(" ", 1)
    slept: list[str] = []

    def sleep_once(what: str, moment: str) -> None:
        if (moment, what) == (when, name) and not slept:
            slept.append(what)
            time.sleep(4)

    monkeypatch.setattr(disk, "observer", sleep_once)
    bridge(tmp_path, options={"transaction.timeout.ms": "1500"}).run(state=tmp_path / "state")
    assert slept
    assert found(tmp_path) == Counter(range(30))


class Died(BaseException):
    """As a kill, as far as the broker sees it."""


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("cluster")
def test_what_died_between_token_and_commit_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker would hide both the token and the owners of the topic until the transaction's timeout."""
    made(tmp_path)
    feed(tmp_path, range(30))

    def die(self: Producing, offsets: Mapping[str, tuple[str, int, int, bytes]], timeout_seconds: float) -> None:
        for group, offset in offsets.items():
            self._producer.send_offsets(group, [offset], 10_000)
        raise Died

    slow = {"transaction.timeout.ms": "600000"}
    with monkeypatch.context() as dying:
        dying.setattr(Producing, "finish", die)
        with pytest.raises(Died):
            bridge(tmp_path, options=slow).run(state=tmp_path / "state")
    bridge(tmp_path, options=slow).run(state=tmp_path / "state")
    assert found(tmp_path) == Counter(range(30))


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker that forgets the offsets of idle groups after a minute."""
    settings = {"offsets.retention.minutes": "1", "offsets.retention.check.interval.ms": "1000"}
    with Broker(settings) as broker:
        monkeypatch.setenv(topics.VARIABLE, broker.address)
        yield broker


@pytest.mark.heavy
@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("is_renewed", [True, False])
def test_a_token_outlives_the_brokers_memory_while_the_flow_stands_idle(
    is_renewed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without writing it again it is gone, and that is noticed."""
    monkeypatch.setattr(kafka_sink, "RENEW_SECONDS", 20.0 if is_renewed else 3600.0)
    made(tmp_path)
    feed(tmp_path, range(10))
    with bridge(tmp_path).start(state=tmp_path / "state"):
        time.sleep(100)
    feed(tmp_path, range(10, 20))
    if not is_renewed:
        with pytest.raises(SinkRestored):
            bridge(tmp_path).run(state=tmp_path / "state")
        return
    bridge(tmp_path).run(state=tmp_path / "state")
    assert found(tmp_path) == Counter(range(20))
