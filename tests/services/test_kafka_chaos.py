"""Acknowledgements are lost, requests are kept and come late: nothing is lost, doubled or put out of order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import onefold as of
from onefold.errors import SinkRefused
from onefold.testing.chaos import KafkaFramer, Proxy, faults_of
from onefold.testing.harness import ForkServer
from services.jars import ServiceMissing
from services.kafka import Broker, free_port
from tests.services import kafka_controls as controls
from tests.services import kafka_naive as naive
from tests.services import kafka_topics as topics
from tests.services.chaos_flows import PROXIED, SUBJECTS
from tests.services.chaos_schedules import Case, Chaos, drawn

pytestmark = pytest.mark.crash

FOUND = (
    "files-hasty: strand request EndTxn#1 until request TxnOffsetCommit#1",
    "topic-hasty: strand request EndTxn#2 until request TxnOffsetCommit#1",
    "files-hasty: strand request TxnOffsetCommit#3 until request EndTxn#2; kill after kafka.commit#3",
)
"""These found that a producer was used again before its statistics told that a request had been repeated."""

HUNG = ("topic-hasty: strand request Produce#4 until answer InitProducerId#1",)
"""This found that the client may never come back from a call that was given a time."""

UNKNOWN = ("files-patient: drop answer EndTxn#1", "topic-patient: cut answer EndTxn#2 and drop answer EndTxn#3")
"""What landed is not known until the token is read back."""

CONTROLS = {controls.producer_reused: FOUND, controls.token_not_read_back: UNKNOWN}

LEAST_MET = 0.8
"""So much of the schedules must have had its faults; what comes after a kill may not come at all."""


def proxied(features: dict[str, int] | None = None) -> Iterator[Proxy]:
    """A broker whose clients are told the proxy's address, but for those that come to its own."""
    port = free_port()
    try:
        with (
            Broker(proxy_port=port, features=features) as broker,
            Proxy(broker.port_behind_proxy, KafkaFramer, port=port) as proxy,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setenv(topics.VARIABLE, broker.address)
            patch.setenv(PROXIED, proxy.address)
            yield proxy
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    yield from proxied()


@pytest.fixture(scope="module")
def forks(proxy: Proxy) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture
def chaos(
    proxy: Proxy, forks: ForkServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> Iterator[Chaos]:
    playing = Chaos(proxy, forks, tmp_path)
    yield playing
    record_property("chaos schedules", len(playing.played))


def play(chaos: Chaos, cases: list[Case]) -> None:
    """All of them, or the one in ONEFOLD_CHAOS_CASE; what is right leaves nothing behind."""
    only = os.environ.get("ONEFOLD_CHAOS_CASE")
    cases = [Case.parse(only)] if only else cases
    for case in cases:
        chaos.play(case, SUBJECTS[case.subject])
    print(chaos.text())
    assert not chaos.failures, chaos.text()
    assert len(chaos.unmet) <= (1 - LEAST_MET) * len(cases), chaos.text()


def test_what_was_found_stays_mended(chaos: Chaos) -> None:
    play(chaos, [Case.parse(text) for text in (*FOUND, *HUNG, *UNKNOWN)])
    assert not chaos.unmet


def test_whatever_is_lost_or_late_nothing_is_lost_or_duplicated(
    chaos: Chaos, schedules: Callable[[int], int], seed: int
) -> None:
    play(chaos, drawn(list(SUBJECTS), schedules(9), seed=seed))


@pytest.mark.heavy
@pytest.mark.parametrize("subject", SUBJECTS)
def test_many_schedules_lose_and_duplicate_nothing(
    subject: str, chaos: Chaos, schedules: Callable[[int], int], seed: int
) -> None:
    play(chaos, drawn([subject], schedules(70), seed=seed))


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.__name__)
def test_a_safeguard_that_is_taken_out_is_missed(control: Callable[[], None], chaos: Chaos) -> None:
    found = []
    for text in CONTROLS[control]:
        case = Case.parse(text)
        result = chaos.play(case, replace(SUBJECTS[case.subject], arrange=(control,)))
        found.append(result.judgement)
    assert all(judgement is not None and judgement.duplicated > 0 for judgement in found), chaos.text()


# ------------------------------------------------------------------------------------------------------ naive writing


def naively(proxy: Proxy, name: str, act: Callable[[naive.NaiveWriter, Callable[[], None]], None]) -> list[bytes]:
    """What stands in a topic after a naive writer whose first EndTxn was kept by the network for a while."""
    topics.make({name: 2})
    proxy.order(faults_of("strand request EndTxn#1"))
    act(naive.NaiveWriter(proxy.address, name), proxy.release)
    assert proxy.met == ["strand request EndTxn#1"]
    return sorted(record.value for record in topics.records(name))


def lose_and_double(proxy: Proxy) -> None:
    assert naively(proxy, "late-abort", naive.late_abort) == [b"b"], "a was in a transaction that was committed"
    assert naively(proxy, "late-commit", naive.late_commit) == [b"a", b"a", b"b", b"first"], "a was written once"


def test_a_writer_that_uses_its_producer_again_loses_and_doubles(proxy: Proxy) -> None:
    lose_and_double(proxy)


@pytest.mark.heavy
@pytest.mark.parametrize("level", [0, 1, 2])
def test_no_version_of_transactions_saves_it_with_this_client(level: int) -> None:
    for proxy in proxied({"transaction.version": level}):
        lose_and_double(proxy)


# ------------------------------------------------------------------------------------------------------------ settings


def test_settings_that_cannot_be_are_refused_and_not_retried(proxy: Proxy, tmp_path: Path) -> None:
    topics.make({"refused": 1})
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n')
    flow = of.Flow("refused")
    options = {"socket.timeout.ms": "10000", "transaction.timeout.ms": "3000"}
    topic = of.kafka(os.environ[topics.VARIABLE], options=options).topic("refused")
    flow.read(of.files(str(tmp_path / "in.jsonl")), schema={"n": "BIGINT"}).append(topic, name="out")
    with pytest.raises(SinkRefused, match=r"socket\.timeout\.ms"):
        flow.run(until="drained", state=tmp_path / "state")
