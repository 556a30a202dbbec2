"""Tables in two databases of PostgreSQL that commit together, killed at durable steps: two transactions, one epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

import onefold as of
from onefold.testing.harness import ForkServer, Subject
from tests.crash import inputs
from tests.crash.oracle import Count
from tests.services import database_flows as common
from tests.services import postgres_flows as flows
from tests.stage import Count as Schedules
from tests.stage import Stage

pytestmark = pytest.mark.crash

OTHER = "ONEFOLD_POSTGRES_OTHER"


@pytest.fixture(scope="module")
def other_server(database: str) -> Iterator[ForkServer]:
    """Processes that know both databases."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE DATABASE other")
        os.environ[OTHER] = urlsplit(database)._replace(path="/other").geturl()
        try:
            with ForkServer() as started:
                yield started
        finally:
            del os.environ[OTHER]
            connection.execute("DROP DATABASE other WITH (FORCE)")


def other_table(folder: Path, name: str) -> Any:
    """A table in the folder's schema of the other database."""
    schema = flows.schema_of(folder)
    return of.postgres(f"${{{OTHER}}}", tokens=f"{schema} tokens").table(name, schema=schema, create=True)


def other_rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(os.environ[OTHER]) as connection:
        connection.execute(f"SET search_path TO {flows.schema_of(folder)}")
        try:
            return connection.execute(query).fetchall()
        except psycopg.errors.UndefinedTable:
            return []


def together(folder: Path) -> of.Flow:
    """A table in each database and a data set."""
    return common.together(folder, flows.table, other_table)


def judge(folder: Path) -> Count:
    """All of it everywhere, and nothing is left prepared."""
    return common.judge_left(common.judge_together(folder, flows.rows, other_rows), flows.left())


TOGETHER = Subject(build=together, arrive=inputs.arrive, judge=judge)


def test_killed_at_any_durable_step_both_databases_show_an_epoch_or_neither(
    tmp_path: Path, other_server: ForkServer, schedules: Schedules, seed: int
) -> None:
    stage = Stage(tmp_path, other_server, schedules, seed)
    steps = stage.steps(TOGETHER)
    assert sum(step.startswith("before postgres.prepare") for step in steps) >= 4, "two transactions an epoch"
    stage.at_every_step(TOGETHER, 10, steps=steps)
