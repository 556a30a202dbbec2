"""Shares of an epoch that sinks of one session leave, and the names of what they prepare. No server."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from onefold.connectors.postgres.connection import Server
from onefold.connectors.postgres.prepared import handle_name
from onefold.connectors.postgres.sessions import Session, Share, session_of, shared_name
from onefold.connectors.postgres.tables import TableName
from onefold.errors import InvariantBroken
from onefold.types import Binding, EpochHead, EpochNumber, Guarantee, Incarnation, SealId

SERVER = Server("postgresql://user@host/db")
TABLE = TableName("public", "a", "_onefold", "a")
BINDING = Binding(
    "0" * 32, "flow", "0", "a", Incarnation(1), None, "append", (), Guarantee.EXACTLY_ONCE, object(), is_together=True
)


def epoch(seal: str, *sinks: str) -> EpochHead:
    return EpochHead(EpochNumber(1), SealId(seal), None, sinks)


def share() -> Share:
    return Share(*[lambda *_: None] * 5)  # type: ignore[arg-type]


def test_the_last_share_brings_all_in_the_order_of_the_flow() -> None:
    session = Session()
    session.members |= {"a", "b", "c"}
    first, second = share(), share()
    head = epoch("one", "b", "elsewhere", "a")
    assert session.gather(head, "a", first) == ()
    assert session.gather(head, "b", second) == [second, first]
    assert session.gather(epoch("two", "c"), "c", first) == [first]
    assert session.gather(epoch("three"), "a", first) == [first]


def test_shares_of_an_epoch_that_was_given_up_are_forgotten() -> None:
    session = Session()
    session.members |= {"a", "b"}
    given_up, first, second = share(), share(), share()
    session.gather(epoch("one", "a", "b"), "a", given_up)
    assert session.gather(epoch("two", "a", "b"), "b", second) == ()
    assert session.gather(epoch("two", "a", "b"), "a", first) == [first, second]


def test_a_sink_that_the_epoch_does_not_name_has_no_share() -> None:
    session = Session()
    session.members |= {"a", "b"}
    with pytest.raises(InvariantBroken):
        session.gather(epoch("one", "a"), "b", share())


def test_sinks_share_within_one_instance_of_a_flow_one_database_and_one_schema_of_tokens() -> None:
    ours = session_of(SERVER, TABLE, BINDING)
    assert (
        session_of(Server("postgresql://user@host:5432/db?sslmode=disable"), TABLE, replace(BINDING, sink="b")) is ours
    )
    others = [
        session_of(SERVER, TABLE, replace(BINDING, is_together=False)),
        session_of(SERVER, TABLE, replace(BINDING, spool=object())),
        session_of(SERVER, TABLE, replace(BINDING, flow="another")),
        session_of(Server("postgresql://other@host/db"), TABLE, BINDING),
        session_of(Server("postgresql://user@host/other"), TABLE, BINDING),
        session_of(Server(SERVER.url, "other"), TABLE, BINDING),
    ]
    assert ours not in others


def test_the_name_of_a_session_outlives_its_instance_and_a_change_of_sinks() -> None:
    later = replace(BINDING, sink="b", incarnation=Incarnation(9), spool=object(), journal="1" * 32)
    assert shared_name(SERVER, later) == shared_name(SERVER, BINDING)
    assert len(shared_name(SERVER, BINDING)) < 64


def test_names_of_prepared_transactions_tell_sinks_apart_and_are_short_enough() -> None:
    """The server takes 199 bytes."""
    head = EpochHead(EpochNumber(10**10), SealId("f" * 32))
    long = replace(BINDING, flow="ü " * 100, incarnation=Incarnation(10**10))
    assert len(handle_name(SERVER, long, head, ["a", "b"]).encode()) < 200
    names = {handle_name(SERVER, BINDING, head, sinks) for sinks in (["a"], ["b"], ["a", "b"])}
    assert len(names) == 3
    assert handle_name(SERVER, BINDING, head, ["b", "a"]) in names


def test_a_connection_that_the_client_knows_is_lost_is_made_anew() -> None:
    made: list[SimpleNamespace] = []

    class Reached(Server):
        def connect(self, *args: object, **named: object) -> SimpleNamespace:
            made.append(SimpleNamespace(closed=False, close=lambda: None))
            return made[-1]

    session, server = Session(), Reached(SERVER.url)
    assert session.join(server, "a") is session.join(server, "b") is made[0]
    made[0].closed = True
    assert session.join(server, "a") is made[1]
    session.leave("a")
    assert session.connection is made[1]
    session.leave("b")
    assert session.connection is None
