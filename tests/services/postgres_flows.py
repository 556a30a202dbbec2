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
PROXIED = "ONEFOLD_POSTGRES_PROXIED"
"""Names the way that flows take to the database, where it is not the judge's."""

schema_of = common.place_of


def database(folder: Path) -> Any:
    """The database, with tokens of the folder's own."""
    way = PROXIED if PROXIED in os.environ else VARIABLE
    return of.postgres(f"${{{way}}}", tokens=f"{schema_of(folder)} tokens")


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


def execute(folder: Path, *statements: str) -> None:
    """Each by itself, in the folder's schema, which is made."""
    with psycopg.connect(os.environ[VARIABLE], autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema_of(folder)}")
        connection.execute(f"SET search_path TO {schema_of(folder)}")
        for statement in statements:
            connection.execute(statement)


def is_altering_held_up() -> bool:
    """Whether an ALTER TABLE waits for somebody."""
    query = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'ALTER%' AND wait_event_type = 'Lock'"
    with psycopg.connect(os.environ[VARIABLE]) as connection:
        return bool(connection.execute(query).fetchall())


def left() -> list[str]:
    """The names of what is prepared and undecided on the server."""
    with psycopg.connect(os.environ[VARIABLE]) as connection:
        return [name for (name,) in connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall()]


def ledger(folder: Path) -> of.Flow:
    """Append, a running upsert, and closed windows."""
    return common.ledger(folder, table)


def together(folder: Path) -> of.Flow:
    """Two tables and a data set that show every epoch or none of it."""
    return common.together(folder, table)


def plain(folder: Path) -> of.Flow:
    """One table: what negative controls are tried on."""
    return common.plain(folder, table)


def sifted(folder: Path) -> of.Flow:
    """A table that takes most rows, and a data set that takes all."""
    return common.sifted(folder, table)


def arrive_sifted(folder: Path, life: int) -> bool:
    """The table before the first process starts."""
    if life == 0:
        execute(folder, common.SIFTED_TABLE.format("timestamp"))
    return inputs.arrive(folder, life)


def at_least_once(folder: Path) -> of.Flow:
    """A repeated delivery may show."""
    return common.plain(folder, table, "at-least-once")


def at_most_once(folder: Path) -> of.Flow:
    """A delivery may be missing."""
    return common.plain(folder, table, "at-most-once")


def judge_ledger(folder: Path) -> Count:
    """Every row, every total, every window."""
    return common.judge_ledger(folder, rows)


def judge_together(folder: Path) -> Count:
    """All of it everywhere, and nothing is left prepared."""
    return common.judge_left(common.judge_together(folder, rows), left())


def judge_sifted(folder: Path) -> Count:
    """Every row is in the table or a dead letter, and nothing is left prepared."""
    return common.judge_left(common.judge_sifted(folder, rows), left())


def judge_plain(folder: Path) -> Count:
    """The ledger; what of it a lower guarantee promises, the test says."""
    return common.judge_plain(folder, rows)


LEDGER = Subject(build=ledger, arrive=inputs.arrive, judge=judge_ledger, close=True)
TOGETHER = Subject(build=together, arrive=inputs.arrive, judge=judge_together)
SIFTED = Subject(build=sifted, arrive=arrive_sifted, judge=judge_sifted)
PLAIN = Subject(build=plain, arrive=inputs.arrive, judge=judge_plain)
AT_LEAST_ONCE = Subject(build=at_least_once, arrive=inputs.arrive, judge=judge_plain, accept=may_repeat)
AT_MOST_ONCE = Subject(build=at_most_once, arrive=inputs.arrive, judge=judge_plain, accept=may_lose)
