"""Changes of PostgreSQL's tables keep every contract of sources, on a real server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from onefold.connectors.postgres.changes import ChangesSource
from onefold.testing.contracts import Contract, SourceCase, source_contracts
from tests.services import postgres_flows as flows

_FIRST_READING_MOVES = ("reading_has_no_effect", "a_read_ends_where_it_is_told", "lost_input_is_an_error")
"""Not of the first reading: each marks the log anew, so its places differ; and rows that are still there cannot be
lost with the slot."""


def _ready(folder: Path) -> str:
    """The folder's schema with its table, both made when they are missing."""
    schema = flows.schema_of(folder)
    if flows.VARIABLE in os.environ:
        with psycopg.connect(os.environ[flows.VARIABLE], autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            connection.execute(f"CREATE TABLE IF NOT EXISTS {schema}.numbers (place serial PRIMARY KEY, n integer)")
    return schema


def _made(folder: Path, *, snapshot: bool) -> ChangesSource:
    wanted = flows.database(folder).changes("numbers", schema=_ready(folder), slot=_slot(folder), snapshot=snapshot)
    source: ChangesSource = wanted.as_source(None)
    return source


def _slot(folder: Path) -> str:
    return f"{flows.schema_of(folder)}_slot"


def _begun(folder: Path) -> ChangesSource:
    """From the slot's beginning on."""
    return _made(folder, snapshot=False)


def _whole(folder: Path) -> ChangesSource:
    """From the rows that are there."""
    return _made(folder, snapshot=True)


def _feed_whole(folder: Path, numbers: Sequence[int]) -> None:
    """One transaction."""
    schema = _ready(folder)
    with psycopg.connect(os.environ[flows.VARIABLE]) as connection, connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {schema}.numbers (n) VALUES (%s)", [(number,) for number in numbers])


def _feed(folder: Path, numbers: Sequence[int]) -> None:
    """The slot is there before the first."""
    schema = _ready(folder)
    with psycopg.connect(os.environ[flows.VARIABLE], autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [_slot(folder)])
        if found.fetchone() is None:
            connection.execute(f'CREATE PUBLICATION "{_slot(folder)}" FOR TABLE ONLY {schema}.numbers')
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [_slot(folder)])
    _feed_whole(folder, numbers)


def _numbers(batch: pa.RecordBatch) -> list[int]:
    assert batch.column("_op").to_pylist() == ["upsert"] * len(batch)
    found: list[int] = batch.column("n").to_pylist()
    return found


def _lose(folder: Path) -> None:
    with psycopg.connect(os.environ[flows.VARIABLE], autocommit=True) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [_slot(folder)])


SOURCE = SourceCase("changes", _begun, _feed, _numbers, _lose)
WHOLE = SourceCase("first reading", _whole, _feed_whole, _numbers)
_OF_WHOLE = [each for each in source_contracts(WHOLE) if each.name not in _FIRST_READING_MOVES]
_OF_WHOLE = [each for each in _OF_WHOLE if each.name != "an_empty_source_is_idle"]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("contract", source_contracts(SOURCE), ids=lambda contract: contract.name)
def test_the_source_keeps(contract: Contract, tmp_path: Path) -> None:
    _kept(contract, tmp_path)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("contract", _OF_WHOLE, ids=lambda contract: contract.name)
def test_the_first_reading_keeps(contract: Contract, tmp_path: Path) -> None:
    _kept(contract, tmp_path)


def _kept(contract: Contract, folder: Path) -> None:
    try:
        contract.run(folder)
    finally:
        with psycopg.connect(os.environ[flows.VARIABLE], autocommit=True) as connection:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s "
                "AND NOT active", [_slot(folder)],
            )  # fmt: skip
