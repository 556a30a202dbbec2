"""Flows into PostgreSQL that are killed, each with its judge. What is judged is read by the client alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import inputs
from tests.crash.oracle import Count
from tests.crash.subjects import may_lose, may_repeat
from tests.services import database_flows as common

VARIABLE = "ONEFOLD_POSTGRES"

schema_of = common.place_of


def database(folder: Path) -> Any:
    """The database, with tokens of the folder's own."""
    return of.postgres("${ONEFOLD_POSTGRES}", tokens=f"{schema_of(folder)} tokens")


def table(folder: Path, name: str) -> Any:
    """A table in the folder's schema."""
    return database(folder).table(name, schema=schema_of(folder), create=True)


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query over the folder's tables gives; nothing where there is no table."""
    with psycopg.connect(os.environ[VARIABLE]) as connection:
        connection.execute(f"SET search_path TO {schema_of(folder)}")
        try:
            return connection.execute(query).fetchall()
        except psycopg.errors.UndefinedTable:
            return []


def ledger(folder: Path) -> of.Flow:
    """Append, a running upsert, and closed windows."""
    return common.ledger(folder, table)


def at_least_once(folder: Path) -> of.Flow:
    """A repeated delivery may show."""
    return common.weaker(folder, table, "at-least-once")


def at_most_once(folder: Path) -> of.Flow:
    """A delivery may be missing."""
    return common.weaker(folder, table, "at-most-once")


def judge_ledger(folder: Path) -> Count:
    """Every row, every total, every window."""
    return common.judge_ledger(folder, rows)


def judge_weaker(folder: Path) -> Count:
    """The ledger; what of it is promised, the test says."""
    return common.judge_weaker(folder, rows)


LEDGER = Subject(build=ledger, arrive=inputs.arrive, judge=judge_ledger, close=True)
AT_LEAST_ONCE = Subject(build=at_least_once, arrive=inputs.arrive, judge=judge_weaker, accept=may_repeat)
AT_MOST_ONCE = Subject(build=at_most_once, arrive=inputs.arrive, judge=judge_weaker, accept=may_lose)
