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
PROXIED = "ONEFOLD_MARIADB_PROXIED"
"""Names the way that flows take to the database, where it is not the judge's."""

NO_DATABASE, NO_TABLE = 1049, 1146

database_of = common.place_of


def database(folder: Path) -> Any:
    """The server's first database, with tokens of the folder's own."""
    way = PROXIED if PROXIED in os.environ else VARIABLE
    return of.mysql(f"${{{way}}}", tokens=f"{database_of(folder)} 100% tokens")


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


def execute(folder: Path, *statements: str) -> None:
    """Each by itself, in the folder's database, which is made."""
    with connect(os.environ[VARIABLE]) as connection:
        ask(connection, f"CREATE DATABASE IF NOT EXISTS {database_of(folder)}")
        ask(connection, f"USE {database_of(folder)}")
        for statement in statements:
            ask(connection, statement)


def is_altering_held_up() -> bool:
    """Whether an ALTER TABLE waits for somebody."""
    states = "state LIKE '%metadata lock%' OR state = 'preparing for alter table'"
    with connect(os.environ[VARIABLE]) as connection:
        query = f"SELECT 1 FROM information_schema.processlist WHERE info LIKE 'ALTER%' AND ({states})"
        return bool(ask(connection, query))


def left(url: str | None = None) -> list[str]:
    """The names of what is prepared and undecided on the server. url: another one."""
    with connect(url or os.environ[VARIABLE]) as connection:
        return [str(row[3]) for row in ask(connection, "XA RECOVER")]


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
        execute(folder, common.SIFTED_TABLE.format("datetime(6)"))
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
