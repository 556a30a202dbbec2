"""A flow whose rows a table refuses in part, killed, with a judge that knows which."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

import onefold as of
from onefold.connectors.postgres.sink import PostgresSink
from onefold.protocols import RefusedRow
from onefold.testing.harness import Subject
from tests.crash import flows, inputs, oracle
from tests.crash.oracle import Count
from tests.services.postgres_flows import VARIABLE, rows, schema_of, table

TABLE = """
CREATE SCHEMA {0};
CREATE TABLE {0}.ledger (
    event_id text, merchant text, amount numeric(18,2), paid_at timestamp,
    CHECK (mod(amount * 100, 5) <> 0)
)
"""


def arrive(folder: Path, life: int) -> bool:
    """The table before the first process starts."""
    if life == 0:
        with psycopg.connect(os.environ[VARIABLE], autocommit=True) as connection:
            connection.execute(TABLE.format(schema_of(folder)))
    return inputs.arrive(folder, life)


def sifted(folder: Path) -> of.Flow:
    """The table takes what it takes; the data set has all."""
    flow = of.Flow("sifted", commit="together", **flows.SMALL)
    kept = flows.kept(flow, folder)
    kept.append(table(folder, "ledger"), refused="dead-letter")
    kept.append(of.files(str(folder / "ledger")), name="lake")
    return flow


def judge(folder: Path) -> Count:
    """Every row is in the table or a dead letter, as the constraint says, and once."""
    expected = oracle.expect(folder)
    count = Count(events=expected.events)
    bad = Counter(row for row in expected.kept if row[2] * 100 % 5 == 0)
    count.rows("ledger", expected.ledger() - bad, Counter(rows(folder, flows.LEDGER.format("ledger"))))
    count.rows("data set", expected.ledger(), Counter(oracle.parquet_rows(folder / "ledger")))
    letters = oracle.sqlite_rows(
        oracle.state_of(folder) / "dead-letters.sqlite", "SELECT raw FROM dead_letters WHERE reason = 'refused'"
    )
    refused = Counter(str(json.loads(raw)["event_id"]) for (raw,) in letters)
    count.rows("dead letters", Counter(row[0] for row in bad.elements()), refused)
    return count


def refused_rows_forgotten() -> None:
    """Negative control: what is left out is told nobody."""

    def refused(self: Any) -> Sequence[RefusedRow]:
        return ()

    PostgresSink.refused = refused  # type: ignore[method-assign]


SIFTED = Subject(build=sifted, arrive=arrive, judge=judge)
