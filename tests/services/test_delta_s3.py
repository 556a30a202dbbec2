"""Delta tables in an S3-compatible store, whose answers get lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onefold.connectors.delta import delta, sink
from onefold.errors import SinkRefused, SinkUnavailable, TokenRefused
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered, token
from onefold.testing.contracts import sink_contracts
from tests.services.lost_answers import is_none_while_the_store_is_down, lands_once
from tests.services.s3_server import BUCKET, S3


def case_of(s3: S3) -> SinkCase:
    def make(folder: Path, table: str, mode: Any, key: tuple[str, ...]) -> Any:
        place = "".join(sign if sign.isalnum() else "_" for sign in f"{folder.name}-{table}")
        return delta(f"s3://{BUCKET}/{place}", storage_options=s3.options).as_sink(mode, key)

    return SinkCase("delta-s3", make, fences=True)


def bench_of(s3: S3, folder: Path, mode: Any = "append") -> SinkBench:
    return SinkBench(case_of(s3), folder, mode, ("id",) if mode == "upsert" else ())


CONTRACTS = [
    contract
    for contract in sink_contracts(SinkCase("delta-s3", lambda *given: delta("s3://b/x").as_sink(given[2], given[3])))
    if not any(word in contract.name for word in ("kill", "rival", "what_is_prepared", "names_are"))
]
"""Without those that fork, and without names that S3 does not take."""

QUICK = ("insert_if_absent", "empty_commit", "receipt_is_enough", "last_row", "deletes", "values_are", "handles")
"""Enough of them for every run: the server is slow, and the table the same."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(one.name, marks=() if any(word in one.name for word in QUICK) else pytest.mark.heavy)
        for one in CONTRACTS
    ],
)
def test_the_sink_keeps(name: str, s3: S3, tmp_path: Path) -> None:
    [contract] = [one for one in sink_contracts(case_of(s3)) if one.name == name]
    contract.run(tmp_path)


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("fate", [500, 502, 503, 504, "cut"])
def test_a_commit_whose_answer_is_lost_lands_once(fate: Any, mode: str, s3: S3, tmp_path: Path) -> None:
    lands_once(bench_of(s3, tmp_path, mode), s3, lambda: s3.lose(fate))


@pytest.mark.parametrize("fate", [500, 503])
def test_a_commit_that_the_store_refuses_for_a_moment_lands_once(fate: Any, s3: S3, tmp_path: Path) -> None:
    bench = bench_of(s3, tmp_path)
    ours, _ = bench.instance()
    s3.refuse(fate, within="/_delta_log/", method="PUT", times=1)
    ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    assert bench.ids() == [1]


def test_a_store_that_is_down_is_unavailable_and_then_unknown(s3: S3, tmp_path: Path) -> None:
    is_none_while_the_store_is_down(bench_of(s3, tmp_path), s3, "/_delta_log/")


def test_a_request_that_comes_late_finds_its_version_taken(s3: S3, tmp_path: Path) -> None:
    """The client has given up; the store carries it out when somebody else has opened the table."""
    bench = bench_of(s3, tmp_path)
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    from onefold import disk

    def overtake(step: str, moment: str) -> None:
        if (step, moment) == ("delta.commit", "before"):
            disk.observer = None
            bench.instance(2)

    disk.observer = overtake
    with pytest.raises(TokenRefused):
        ours.commit([receipt], move(0, 1))
    assert bench.ids() == []


def test_large_epochs_are_staged_in_the_store(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", 1000)
    monkeypatch.setattr(sink, "FILE_BYTES", 20_000)
    bench = bench_of(s3, tmp_path)
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, [{"id": n, "name": f"{n:064d}"} for n in range(2000)])
    assert receipt.kind == "native"
    later, _ = bench.instance(2)
    assert {handle.seal for handle in later.handles()} == {token(1).seal}  # type: ignore[attr-defined]
    later.commit([receipt], move(0, 1))
    assert bench.ids() == list(range(2000))
    assert later.handles() == []  # type: ignore[attr-defined]


def test_a_store_that_is_down_while_staging_has_the_rows_spooled(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "NATIVE_BYTES", 0)
    bench = bench_of(s3, tmp_path)
    ours, _ = bench.instance()
    s3.refuse(503)
    receipt = bench.prepare(ours, 1, numbered(1))
    s3.mend()
    assert receipt.kind == "spool"
    ours.commit([receipt], move(0, 1))
    assert bench.ids() == [1]


def test_a_bucket_that_is_not_there_is_told(s3: S3, tmp_path: Path) -> None:
    ours = delta("s3://nowhere/x", storage_options=s3.options).as_sink("append", ())
    with pytest.raises((SinkRefused, SinkUnavailable)) as caught:
        ours.open(bench_of(s3, tmp_path).binding())
    assert "s3cr3t" not in str(caught.value)


def test_maintenance_removes_leftovers_in_the_store(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(s3, tmp_path)
    ours, _ = bench.instance()
    for epoch in range(1, 13):
        ours.commit([bench.prepare(ours, epoch, numbered(epoch))], move(epoch - 1, epoch))
    found = {one.what for one in ours.maintain(bench.binding(), is_dry=False)}  # type: ignore[attr-defined]
    assert found == {"compacted", "checkpoint"}
    assert bench.ids() == list(range(1, 13))
