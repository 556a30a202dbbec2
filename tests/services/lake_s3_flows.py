"""Flows into Delta and Iceberg tables of an S3-compatible store that are killed, each with its judge.

Delta's tables are in the store alone; Iceberg's are named by a Glue catalog. Judged by deltalake and by pyiceberg.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import delta_flows, flows, iceberg_flows, iceberg_oracle, inputs
from tests.crash.oracle import COLUMNS, Count
from tests.services.s3_server import BUCKET, KEYS

STORE = "ONEFOLD_TEST_LAKE_STORE"
"""Holds the server's address, so that the processes under test find it."""

TOTALS = ("merchant", "payments", "revenue")

EVENTS = 90
SMALL = {"epoch_rows": 45, "settle_every": "20 milliseconds", "fence_every": "50 milliseconds"}
"""Two epochs, and one of what arrives later: each costs dozens of requests, and more the more there were."""


def store_options(address: str) -> dict[str, str]:
    """For deltalake."""
    return {**KEYS, "AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}


def glue_of(address: str) -> dict[str, str]:
    """A Glue catalog beside the store, as pyiceberg and onefold are given it."""
    key, secret = KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]
    places = {}
    for service in ("glue", "s3"):
        places |= {f"{service}.endpoint": address, f"{service}.region": "us-east-1"}
        places |= {f"{service}.access-key-id": key, f"{service}.secret-access-key": secret}
    return {"type": "glue", "warehouse": f"s3://{BUCKET}/warehouse", **places}


def prefix_of(folder: Path) -> str:
    """Each folder's own, in the store that all share; a namespace as well."""
    return f"n{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"


def delta_table(folder: Path, name: str) -> Any:
    """In the store, committed to whenever an epoch is there."""
    options = store_options(f"${{{STORE}}}")
    return of.delta(_uri(folder, name), storage_options=options, commit_every=0)


def iceberg_table(folder: Path, name: str) -> Any:
    """Of the Glue catalog, committed to whenever an epoch is there."""
    return of.iceberg((prefix_of(folder), name), glue_of(f"${{{STORE}}}"), commit_every=0)


def _uri(folder: Path, name: str) -> str:
    return f"s3://{BUCKET}/{prefix_of(folder)}/{name}"


# -------------------------------------------------------------------------------------------------------------- flows

Table = Callable[[Path, str], Any]


def arrive(folder: Path, life: int) -> bool:
    """Three of four files before the first process starts."""
    return inputs.arrive(folder, life, events=EVENTS)


def ledger_into(folder: Path, table: Table) -> of.Flow:
    """Append: what is delivered twice shows."""
    flow = of.Flow("ledger", **SMALL)
    flows.kept(flow, folder).append(table(folder, "ledger"))
    return flow


def totals_into(folder: Path, table: Table) -> of.Flow:
    """A running upsert."""
    flow = of.Flow("totals", **SMALL)
    totals = flows.kept(flow, folder).group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    totals.upsert(table(folder, "totals"), key="merchant")
    return flow


def delta_ledger(folder: Path) -> of.Flow:
    """Into Delta."""
    return ledger_into(folder, delta_table)


def delta_totals(folder: Path) -> of.Flow:
    """Into Delta."""
    return totals_into(folder, delta_table)


def iceberg_ledger(folder: Path) -> of.Flow:
    """Into Iceberg."""
    return ledger_into(folder, iceberg_table)


def iceberg_totals(folder: Path) -> of.Flow:
    """Into Iceberg."""
    return totals_into(folder, iceberg_table)


# ------------------------------------------------------------------------------------------------------------- judges

Read = Callable[[Path, str, Sequence[str]], list[tuple[Any, ...]]]
"""(folder, table, columns) -> its rows."""


def rows_by_deltalake(folder: Path, name: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """None when the table is not there."""
    from deltalake import DeltaTable

    options, uri = store_options(os.environ[STORE]), _uri(folder, name)
    if not DeltaTable.is_deltatable(uri, options):
        return []
    found = DeltaTable(uri, storage_options=options).to_pyarrow_table(columns=list(columns))
    return list(zip(*(found.column(column).to_pylist() for column in columns), strict=True))


def rows_by_pyiceberg(folder: Path, name: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """None when the table is not there."""
    from pyiceberg.exceptions import NoSuchTableError

    try:
        return iceberg_oracle.scanned(glue_of(os.environ[STORE]), (prefix_of(folder), name), columns)
    except NoSuchTableError:
        return []


def ledger_in(folder: Path, read: Read) -> Count:
    """Every row."""
    expected, count = flows._expect(folder)
    count.rows("ledger", expected.ledger(), Counter(read(folder, "ledger", COLUMNS)))
    return count


def totals_in(folder: Path, read: Read) -> Count:
    """Every total."""
    expected, count = flows._expect(folder)
    count.groups("totals", expected.running(), [(row[0], row[1:]) for row in read(folder, "totals", TOTALS)])
    return count


def judge_delta_ledger(folder: Path) -> Count:
    """Every row."""
    return ledger_in(folder, rows_by_deltalake)


def judge_delta_totals(folder: Path) -> Count:
    """Every total."""
    return totals_in(folder, rows_by_deltalake)


def judge_iceberg_ledger(folder: Path) -> Count:
    """Every row."""
    return ledger_in(folder, rows_by_pyiceberg)


def judge_iceberg_totals(folder: Path) -> Count:
    """Every total."""
    return totals_in(folder, rows_by_pyiceberg)


DELTA_LEDGER = Subject(build=delta_ledger, arrive=arrive, judge=judge_delta_ledger)
DELTA_STAGED = replace(DELTA_LEDGER, arrange=(delta_flows.staged,))
DELTA_TOTALS = Subject(build=delta_totals, arrive=arrive, judge=judge_delta_totals)
ICEBERG_LEDGER = Subject(build=iceberg_ledger, arrive=arrive, judge=judge_iceberg_ledger)
ICEBERG_STAGED = replace(ICEBERG_LEDGER, arrange=(iceberg_flows.everything_staged,))
ICEBERG_TOTALS = Subject(build=iceberg_totals, arrive=arrive, judge=judge_iceberg_totals)
