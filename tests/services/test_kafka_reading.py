"""Where reading begins, what of transactions is read, and what lag tools are told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from confluent_kafka import Producer
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

import onefold as of
from tests.services import kafka_topics as topics

pytestmark = pytest.mark.usefixtures("cluster")


def read(folder: Path, **how: Any) -> list[int]:
    """The ids that a flow has read by now."""
    flow = of.Flow("reading")
    topic = of.kafka("${ONEFOLD_KAFKA}").topic(topics.name_in(folder, "in"), **how)
    target = of.memory(f"read {folder}")
    flow.read(topic, schema={"id": "BIGINT"}, format="json", name="in").append(target, name="out")
    flow.run(state=folder / "state")
    return [row["id"] for row in target.rows()]


def feed(folder: Path, *ids: int) -> None:
    topics.produce(topics.name_in(folder, "in"), [_value(number) for number in ids])


def _value(number: int) -> bytes:
    return json.dumps({"id": number}).encode()


@pytest.mark.parametrize(
    ("start", "first"),
    [
        (lambda between: "earliest", [1, 2, 3, 4]),
        (lambda between: "latest", []),
        (lambda between: between, [3, 4]),
        (lambda between: 0, [1, 2, 3, 4]),
        (lambda between: between + 3_600_000, []),
    ],
    ids=["earliest", "latest", "between", "before all", "after all"],
)
def test_a_new_flow_begins_where_it_is_told_and_a_later_run_where_the_journal_says(
    start: Callable[[int], Any], first: list[int], tmp_path: Path
) -> None:
    topics.make({topics.name_in(tmp_path, "in"): 1})
    feed(tmp_path, 1, 2)
    time.sleep(0.05)
    between = time.time_ns() // 1_000_000
    time.sleep(0.05)
    feed(tmp_path, 3, 4)
    assert read(tmp_path, start=start(between)) == first
    feed(tmp_path, 5)
    assert read(tmp_path, start=start(between)) == [*first, 5]
    feed(tmp_path, 6)
    for other in ("earliest", "latest"):
        assert read(tmp_path, start=other) == [*first, 5, 6], "the journal has a position"


@pytest.mark.parametrize(
    ("how", "ids"), [({}, [1, 3]), ({"isolation": "read_uncommitted"}, [1, 2, 3])], ids=["usual", "read_uncommitted"]
)
def test_what_was_aborted_is_read_only_by_who_asks_for_it(
    how: dict[str, Literal["read_uncommitted"]], ids: list[int], tmp_path: Path
) -> None:
    name = topics.name_in(tmp_path, "in")
    topics.make({name: 1})
    feed(tmp_path, 1)
    producer = Producer({"bootstrap.servers": topics.address(), "transactional.id": name})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(name, _value(2))
    producer.flush()
    producer.abort_transaction()
    feed(tmp_path, 3)
    assert read(tmp_path, **how) == ids


def test_lag_tools_are_told_what_is_settled_and_nobody_reads_it_again(tmp_path: Path) -> None:
    name, group = topics.name_in(tmp_path, "in"), f"tools-{topics.name_in(tmp_path, 'in')}"
    topics.make({name: 1})
    feed(tmp_path, 1, 2, 3)
    assert read(tmp_path, group=group) == [1, 2, 3]
    assert _committed(group, name) == 3
    topics.delete_group(group)
    feed(tmp_path, 4)
    assert read(tmp_path, group=group) == [1, 2, 3, 4]
    assert _committed(group, name) == 4


def _committed(group: str, topic: str) -> int:
    admin = KafkaAdminClient(bootstrap_servers=topics.address())
    found = admin.list_group_offsets({group: None})[group]
    admin.close()
    offset: int = found[TopicPartition(topic, 0)].offset
    return offset
