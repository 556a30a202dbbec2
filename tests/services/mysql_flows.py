"""Flows into MariaDB or MySQL that are killed, each with its judge. What is judged is read by the client alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import inputs
from tests.crash.oracle import Count
from tests.crash.subjects import may_lose, may_repeat
from tests.services import database_flows as common

VARIABLE = "ONEFOLD_MARIADB"
NO_DATABASE, NO_TABLE = 1049, 1146

database_of = common.place_of


def database(folder: Path) -> Any:
    """The server's first database, with tokens of the folder's own."""
    return of.mysql("${ONEFOLD_MARIADB}", tokens=f"{database_of(folder)} 100% tokens")


def table(folder: Path, name: str) -> Any:
    """A table in the folder's database."""
    return database(folder).table(name, database=database_of(folder), create=True)


def connect(url: str) -> Any:
    """A connection of the client's, in autocommit."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path[1:],
        autocommit=True,
        charset="utf8mb4",
    )


def ask(connection: Any, query: str, values: Any = None) -> list[tuple[Any, ...]]:
    """The rows of an answer."""
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return list(cursor.fetchall())


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query over the folder's tables gives; nothing where there is no table."""
    with connect(os.environ[VARIABLE]) as connection:
        try:
            ask(connection, f"USE {database_of(folder)}")
            return ask(connection, query)
        except pymysql.MySQLError as error:
            if error.args[0] in (NO_DATABASE, NO_TABLE):
                return []
            raise


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
