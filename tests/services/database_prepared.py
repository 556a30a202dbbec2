"""A small flow that commits together, and what processes that died have left prepared of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

import onefold as of
from onefold.engines.embedded.examination import examine
from onefold.engines.embedded.outputs import binding_of
from onefold.engines.embedded.status import history_of
from onefold.plan import Plan
from onefold.protocols import CheckResult
from onefold.spool import FolderSpool
from onefold.types import Binding, EpochHead, EpochNumber, Incarnation, SealId, Token, TokenMove


def feed(folder: Path, name: str, *ids: int) -> None:
    """A file of numbered rows."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_text("".join(json.dumps({"id": number}) + "\n" for number in ids))


def flow_of(folder: Path, *targets: Any) -> of.Flow:
    """A data set first, then tables: when one of them refuses, the other has staged its rows already."""
    flow = of.Flow("both", commit="together")
    rows = flow.read(of.files(str(folder / "in" / "*.jsonl")), schema={"id": "BIGINT"}, name="in")
    rows.append(of.files(str(folder / "lake")), name="lake")
    for target in targets:
        rows.append(target, name=target.name)
    return flow


def lake_files(folder: Path) -> list[Path]:
    """Files of the data set, staged ones included."""
    return sorted((folder / "lake").rglob("*.parquet*"))


def findings(plan: Plan, folder: Path) -> list[CheckResult]:
    """What doctor says of prepared transactions."""
    return [found for found in examine(plan, folder) if found.what.endswith("prepared transactions")]


def leave_prepared(plan: Plan, folder: Path, *ids: int) -> None:
    """As a process leaves the last sink that dies before its seal."""
    sink, _, head = begun(plan, folder, seal="f" * 32)
    sink.prepare(head, [batch_of(plan, *ids)])
    sink.close()


def begun(plan: Plan, folder: Path, *, seal: str) -> tuple[Any, Token | None, EpochHead]:
    """The last sink opened by the process that began last, its token, and the head of the next epoch."""
    history, _ = history_of(plan.flow, folder)
    sink = plan.outputs[-1].sink
    token = sink.open(binding_in(plan, folder))
    number = EpochNumber(history.head + 1)
    return sink, token, EpochHead(number, SealId(seal), TokenMove(token, Token(number, SealId(seal))))


def binding_in(plan: Plan, folder: Path) -> Binding:
    """Of the last sink and the process that began last."""
    history, journal = history_of(plan.flow, folder)
    output, spool = plan.outputs[-1], FolderSpool(folder / "spool")
    return binding_of(output, plan, journal=journal, incarnation=Incarnation(history.incarnation), spool=spool)


def batch_of(plan: Plan, *ids: int) -> pa.RecordBatch:
    """Rows of the last sink."""
    return pa.RecordBatch.from_pylist([{"id": number} for number in ids], plan.outputs[-1].schema)
