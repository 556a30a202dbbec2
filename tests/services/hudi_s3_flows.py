"""The flows of hudi_flows with their tables in a store, which the environment names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onefold as of
from onefold.testing.harness import Subject
from tests.crash import inputs
from tests.crash.oracle import Count
from tests.services import hudi_flows
from tests.services.s3_server import BUCKET

STORE = "ONEFOLD_TEST_STORE"
"""Holds storage_options, as JSON."""


def options() -> dict[str, str]:
    """How to reach the store."""
    found: dict[str, str] = json.loads(os.environ[STORE])
    return found


def prefix(folder: Path, name: str) -> str:
    """A table of this folder's own."""
    return "".join(sign if sign.isalnum() else "-" for sign in str(folder / name)).strip("-")


def table(folder: Path, name: str) -> Any:
    """In the store, committed to as fast as can be."""
    return of.hudi(f"s3://{BUCKET}/{prefix(folder, name)}", storage_options=options(), commit_every=0)


def reader(folder: Path, name: str) -> Any:
    """hudi-rs' reader of a table; None where nothing was written."""
    import boto3
    from hudi import HudiTableBuilder

    known = options()
    store = boto3.client(
        "s3",
        endpoint_url=known["AWS_ENDPOINT_URL"],
        region_name=known["AWS_REGION"],
        aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
    )
    place = f"{prefix(folder, name)}/.hoodie/timeline/"
    listed = store.list_objects_v2(Bucket=BUCKET, Prefix=place).get("Contents", [])
    if not any(one["Key"].endswith(".commit") for one in listed):
        return None
    return HudiTableBuilder.from_base_uri(f"s3://{BUCKET}/{prefix(folder, name)}").with_storage_options(known).build()


def ledger(folder: Path) -> of.Flow:
    """Append and a running upsert."""
    return hudi_flows.ledger_into(folder, table)


def plain(folder: Path) -> of.Flow:
    """The ledger alone."""
    return hudi_flows.plain_into(folder, table)


def judge_ledger(folder: Path) -> Count:
    """Every row, every total."""
    return hudi_flows.judge_ledger_in(folder, reader)


def judge_plain(folder: Path) -> Count:
    """The ledger."""
    return hudi_flows.judge_plain_in(folder, reader)


LEDGERS = Subject(build=ledger, arrive=inputs.arrive, judge=judge_ledger)
PLAIN = Subject(build=plain, arrive=inputs.arrive, judge=judge_plain)
