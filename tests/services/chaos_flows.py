"""Flows whose every word with the broker passes the chaos proxy, and a judge that goes around it."""

from __future__ import annotations

from pathlib import Path

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import flows, oracle
from tests.crash.oracle import Count
from tests.services import kafka_topics as topics

PROXIED = "ONEFOLD_CHAOS"

QUICK = {"reconnect.backoff.ms": "10", "reconnect.backoff.max.ms": "50"}
HASTY = {**QUICK, "socket.timeout.ms": "1200", "transaction.timeout.ms": "6000"}
"""The client gives a request up, and sends it again by itself within a delivery."""

PATIENT = {**QUICK, "transaction.timeout.ms": "3000"}
"""A delivery is given up before any of its requests: its outcome is unknown."""

SMALL = {**flows.SMALL, "deliver_bytes": 1}
"""Every epoch is a delivery of its own."""


def _topic(folder: Path, what: str, options: dict[str, str]) -> object:
    return of.kafka(f"${{{PROXIED}}}", options=options).topic(topics.name_in(folder, what))


def _from_files(folder: Path, options: dict[str, str]) -> of.Flow:
    flow = of.Flow("inwards", **SMALL)
    flows.kept(flow, folder).append(_topic(folder, "out", options), key="merchant", name="out")
    return flow


def _from_topic(folder: Path, options: dict[str, str]) -> of.Flow:
    flow = of.Flow("bridge", **SMALL)
    read = flow.read(
        _topic(folder, "in", options),
        schema=flows.SCHEMA,
        format="json",
        event_time="paid_at",
        lateness="1 hour",
        name="in",
    )
    kept = read.where("amount > 0").dedup("event_id", within="7 days")
    kept.append(_topic(folder, "out", options), key="merchant", name="out")
    return flow


def files_hasty(folder: Path) -> of.Flow:
    """Files to a topic."""
    return _from_files(folder, HASTY)


def files_patient(folder: Path) -> of.Flow:
    """Files to a topic."""
    return _from_files(folder, PATIENT)


def topic_hasty(folder: Path) -> of.Flow:
    """Topic to topic."""
    return _from_topic(folder, HASTY)


def topic_patient(folder: Path) -> of.Flow:
    """Topic to topic."""
    return _from_topic(folder, PATIENT)


def judge_order(folder: Path) -> Count:
    """Every kept row once, and those of a merchant in the order in which they came."""
    expected, count = flows._expect(folder)
    found = topics.rows(topics.name_in(folder, "out"))
    count.rows("topic", expected.ledger(), oracle.Counter(found))
    for merchant in sorted({row[1] for row in expected.kept}):
        came = [row[0] for row in expected.kept if row[1] == merchant]
        stands = [row[0] for row in found if row[1] == merchant]
        if stands != came:
            first = next((n for n, pair in enumerate(zip(came, stands, strict=False)) if len(set(pair)) > 1), -1)
            count.wrong.append(f"topic: the order of {merchant} is not kept from its row {first} on")
    return count


SUBJECTS = {
    "files-hasty": Subject(build=files_hasty, arrive=topics.arrive_out_only, judge=judge_order),
    "files-patient": Subject(build=files_patient, arrive=topics.arrive_out_only, judge=judge_order),
    "topic-hasty": Subject(build=topic_hasty, arrive=topics.arrive, judge=judge_order),
    "topic-patient": Subject(build=topic_patient, arrive=topics.arrive, judge=judge_order),
}
