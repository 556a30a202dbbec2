"""What an SQLSTATE means for a sink: no error that no later try mends is waited for."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors

from onefold.connectors.databases import hidden
from onefold.connectors.postgres.connection import Server
from onefold.connectors.postgres.refusal import failure_of, was_rolled_back
from onefold.connectors.postgres.tables import TableName
from onefold.errors import RowsRefused, SinkRefused, SinkUnavailable, SourceUnavailable

SERVER = Server("postgresql://me:p@db/shop")
TABLE = TableName("public", "t", "_onefold", "postgres(…).t")
STATES = sorted({kind.sqlstate for kind in vars(errors).values() if isinstance(getattr(kind, "sqlstate", None), str)})


def failure(state: str) -> Exception:
    return failure_of(errors.lookup(state)("told"), SERVER, TABLE, "out")


def test_only_what_may_pass_is_waited_for() -> None:
    waited_for = {state[:2] for state in STATES if isinstance(failure(state), SinkUnavailable)}
    assert waited_for == {"08", "25", "40", "53", "55", "57", "58", "XX"}
    assert isinstance(failure("XX000"), SinkUnavailable)
    assert isinstance(failure("XX001"), SinkRefused), "damaged pages do not mend themselves"
    assert isinstance(failure_of(psycopg.OperationalError("gone"), SERVER, TABLE, "out"), SinkUnavailable)


@pytest.mark.parametrize(
    ("state", "kind", "said"),
    [
        ("0A000", SinkRefused, "cannot be written so"),
        ("21000", RowsRefused, "refuses rows"),
        ("22003", RowsRefused, "refuses rows"),
        ("23514", RowsRefused, "refuses rows"),
        ("38000", RowsRefused, "refuses rows"),
        ("P0001", RowsRefused, "refuses rows"),
        ("P0004", RowsRefused, "refuses rows"),
        ("42703", SinkRefused, "was changed meanwhile"),
        ("42P10", SinkRefused, "was changed meanwhile"),
        ("42501", SinkRefused, "lacks a permission"),
        ("28P01", SinkRefused, "password is wrong"),
    ],
)
def test_what_cannot_pass_is_told_as_what_it_is(state: str, kind: type[Exception], said: str) -> None:
    found = failure(state)
    assert isinstance(found, kind)
    assert said in str(found)


@pytest.mark.parametrize(
    ("state", "is_certain"),
    [("23505", True), ("40001", True), ("40003", False), ("57P01", False), ("42704", False), ("0A000", True)],
)
def test_a_commit_that_failed_is_unknown_unless_it_surely_did_nothing(state: str, is_certain: bool) -> None:
    assert was_rolled_back(errors.lookup(state)("told")) is is_certain


def test_a_statement_that_the_client_does_not_take_is_a_bug_and_no_outage() -> None:
    bug = psycopg.ProgrammingError("only '%s' is allowed as a placeholder")
    assert SERVER.failure(bug, SourceUnavailable) is bug


def test_a_url_that_libpq_does_not_take_is_refused() -> None:
    with pytest.raises(SinkRefused, match="no URL that libpq takes"):
        Server("postgresql://me:secret@db/shop?no_such_option=1").connect(SinkUnavailable)


@pytest.mark.parametrize(
    ("text", "password", "shown"),
    [
        ("unsupported on postgresql://me:p@db/shop", "p", "unsupported on postgresql://me:(hidden)@db/shop"),
        ("password=p host=db", "p", "password=(hidden) host=db"),
        ('failed: "p"', "p", 'failed: "(hidden)"'),
        ("me:p!x@db", "p!x", "me:(hidden)@db"),
        ("xsecret-wordx", "secret-word", "x(hidden)x"),
    ],
)
def test_a_password_is_hidden_and_words_are_not(text: str, password: str, shown: str) -> None:
    found: Any = hidden(text, password)
    assert found == shown
