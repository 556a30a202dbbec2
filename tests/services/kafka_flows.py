"""Flows over topics that are killed, each with its judge."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import flows, oracle
from tests.crash.oracle import Count
from tests.crash.subjects import may_lose, may_repeat
from tests.services import kafka_topics as topics

PER_FLOW = {**flows.SMALL}


def topic(folder: Path, what: str) -> object:
    """One of the folder's topics."""
    return of.kafka("${ONEFOLD_KAFKA}").topic(topics.name_in(folder, what))


def kept(flow: of.Flow, folder: Path) -> of.Stream:
    """topic -> where -> dedup."""
    read = flow.read(
        topic(folder, "in"), schema=flows.SCHEMA, format="json", event_time="paid_at", lateness="1 hour", name="in"
    )
    return read.where("amount > 0").dedup("event_id", within="7 days")


def topic_to_topic(folder: Path) -> of.Flow:
    """Kafka on both sides."""
    flow = of.Flow("bridge", **PER_FLOW)
    kept(flow, folder).append(topic(folder, "out"), key="event_id", name="out")
    return flow


def topic_to_sqlite(folder: Path) -> of.Flow:
    """Across Kafka's border, outwards."""
    flow = of.Flow("outwards", **PER_FLOW)
    kept(flow, folder).append(of.sqlite(str(folder / "ledger.sqlite")).table("ledger_sqlite"))
    return flow


def files_to_topic(folder: Path) -> of.Flow:
    """Across Kafka's border, inwards."""
    flow = of.Flow("inwards", **PER_FLOW)
    flows.kept(flow, folder).append(topic(folder, "out"), key="event_id", name="out")
    return flow


def weaker(folder: Path, guarantee: Literal["at-least-once", "at-most-once"]) -> of.Flow:
    """files -> topic, with a lower guarantee: acknowledged, or sent and forgotten."""
    flow = of.Flow("weaker", guarantee=guarantee, **PER_FLOW)
    flows.kept(flow, folder).append(topic(folder, "out"), key="event_id", name="out")
    return flow


def at_least_once(folder: Path) -> of.Flow:
    """A repeated delivery may show."""
    return weaker(folder, "at-least-once")


def at_most_once(folder: Path) -> of.Flow:
    """A delivery may be missing."""
    return weaker(folder, "at-most-once")


def judge_topic(folder: Path) -> Count:
    """Every kept row in the topic."""
    expected, count = flows._expect(folder)
    count.rows("topic", expected.ledger(), Counter(topics.rows(topics.name_in(folder, "out"))))
    return count


def judge_sqlite(folder: Path) -> Count:
    """Every kept row in the table."""
    expected, count = flows._expect(folder)
    lite = oracle.sqlite_rows(folder / "ledger.sqlite", flows.LEDGER.format("ledger_sqlite"))
    count.rows("sqlite", expected.ledger(), Counter(map(oracle.typed, lite)))
    return count


SUBJECTS = {
    "topic-to-topic": Subject(build=topic_to_topic, arrive=topics.arrive, judge=judge_topic),
    "topic-to-sqlite": Subject(build=topic_to_sqlite, arrive=topics.arrive, judge=judge_sqlite),
    "files-to-topic": Subject(build=files_to_topic, arrive=topics.arrive_out_only, judge=judge_topic),
}

AT_LEAST_ONCE = Subject(build=at_least_once, arrive=topics.arrive_out_only, judge=judge_topic, accept=may_repeat)
AT_MOST_ONCE = Subject(build=at_most_once, arrive=topics.arrive_out_only, judge=judge_topic, accept=may_lose)
