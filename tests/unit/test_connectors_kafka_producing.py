"""A producer in doubt begins no second transaction, and a call that stays away holds nobody up."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from onefold.clock import SystemClock
from onefold.connectors.kafka import producing
from onefold.connectors.kafka.connection import Connection
from onefold.connectors.kafka.producing import Producing
from onefold.engines.embedded.inline import ManualClock

FAULT = SimpleNamespace(text="disconnected", is_fatal=False)
IN_DOUBT = [
    ("log", 6, "FAIL", "Disconnected"),
    ("log", 5, "REQTMOUT", "Timed out EndTxnRequest in flight"),
    ("error", FAULT),
    ("stats", '{"brokers": {"one": {"txretries": 1}}}'),
    ("stats", '{"brokers": {"one": {"req_timeouts": 1}}}'),
]


class Client:
    """What the bridge gives, so far as it is used."""

    def __init__(self, settings: object, token: object) -> None:
        self.told: list[Any] = []
        self.returns = threading.Event()
        self.returns.set()
        self.closed = threading.Event()

    def poll(self, timeout_ms: int) -> list[Any]:
        told, self.told = self.told, []
        return told

    def begin_transaction(self) -> None:
        pass

    def send_offsets(self, group: str, offsets: object, timeout_ms: int) -> None:
        self.returns.wait(30)

    def commit_transaction(self, timeout_ms: int) -> None:
        pass

    def close(self) -> None:
        assert self.returns.is_set(), "destroyed under a call"
        self.closed.set()


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Producing:
    monkeypatch.setattr(producing, "bridge", lambda: SimpleNamespace(Producer=Client))
    monkeypatch.setattr(producing, "LATE_SECONDS", 0.01)
    return Producing({}, Connection("localhost:1"), SystemClock())


@pytest.mark.parametrize("told", IN_DOUBT, ids=lambda told: f"{told[0]} {str(told[-1])[-20:]}")
def test_a_producer_that_may_have_repeated_a_request_is_spent(one: Producing, told: Any) -> None:
    one.transact()
    one._producer.told = [told]
    assert one.is_spent()


def test_doubt_from_before_the_first_transaction_lets_it_run_and_no_other(one: Producing) -> None:
    one._producer.told = [IN_DOUBT[0]]
    assert not one.is_spent()
    one.transact()
    assert one.is_spent()


def test_without_doubt_a_producer_goes_on(one: Producing) -> None:
    one._producer.told = [("log", 6, "GETPID", "Acquired"), ("stats", '{"brokers": {"one": {"txretries": 0}}}')]
    one.transact()
    one.finish({"group": ("topic", 0, 1, b"")}, 1.0)
    assert not one.is_spent()


def test_a_call_that_stays_away_is_given_up_and_closes_when_it_is_back(one: Producing) -> None:
    client = one._producer
    client.returns.clear()
    one.transact()
    with pytest.raises(TimeoutError):
        one.finish({"group": ("topic", 0, 1, b"")}, 0.01)
    one.close()
    assert not client.closed.is_set()
    client.returns.set()
    assert client.closed.wait(30)


def test_an_offset_alone_waits_until_the_transaction_before_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sooner the broker turns it away, the client sends it again, and the producer looks as if it were in doubt."""
    clock = ManualClock()
    at: list[float] = []
    monkeypatch.setattr(producing, "bridge", lambda: SimpleNamespace(Producer=Client))
    monkeypatch.setattr(Client, "poll", lambda client, timeout_ms: clock.advance(timeout_ms / 1000) or [])
    monkeypatch.setattr(Client, "send_offsets", lambda client, *_: at.append(clock.monotonic()))
    one = Producing({}, Connection("localhost:1"), clock)
    for _ in range(2):
        one.transact()
        one.finish({"group": ("topic", 0, 1, b"")}, 1.0)
    assert at[1] - at[0] == pytest.approx(producing.MARKERS_SECONDS, abs=0.002)
