"""Hudi tables in an S3-compatible store: what is decided by the record is shown once, whoever completes it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold import disk
from onefold.connectors.hudi import sink
from onefold.connectors.hudi.deciding import Record
from onefold.connectors.hudi.jvm import HudiTable
from onefold.connectors.hudi.naming import PROPERTIES
from onefold.errors import SinkRefused, SinkUnavailable, TokenRefused
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered, token
from onefold.testing.contracts import sink_contracts
from onefold.testing.harness import ForkServer
from services import hudi
from tests.services import hudi_s3_controls as controls
from tests.services import hudi_s3_flows as flows
from tests.services.hudi_flows import BESIDE_SECONDS
from tests.services.lost_answers import is_none_while_the_store_is_down, lands_once
from tests.services.s3_server import BUCKET, S3
from tests.stage import Count, Stage

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ALLOW_HTTP")


@pytest.fixture(scope="module")
def store(s3_server: S3, hudi_jars: str) -> Iterator[S3]:
    """With a Java process of its own: Hadoop remembers how a bucket is reached."""
    before = os.environ.get(hudi.VARIABLE)
    os.environ[flows.STORE] = json.dumps({name: s3_server.options[name] for name in KEYS})
    with hudi.running() as told:
        os.environ[hudi.VARIABLE] = told
        yield s3_server
    del os.environ[flows.STORE], os.environ[hudi.VARIABLE]
    if before is not None:
        os.environ[hudi.VARIABLE] = before


@pytest.fixture
def s3(store: S3) -> Iterator[S3]:
    yield store
    store.mend()


@pytest.fixture(scope="module")
def s3_forks(store: S3) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture
def stage(s3_forks: ForkServer, tmp_path: Path, schedules: Count, seed: int) -> Stage:
    return Stage(tmp_path, s3_forks, schedules, seed)


def case() -> SinkCase:
    def make(folder: Path, table: str, mode: Any, key: tuple[str, ...]) -> Any:
        return of.hudi(f"s3://{BUCKET}/{flows.prefix(folder, table)}", storage_options=flows.options()).as_sink(
            mode, key
        )

    return SinkCase("hudi-s3", make, has_plain_columns=True)


def bench_of(folder: Path, mode: Any = "append") -> SinkBench:
    return SinkBench(case(), folder, mode, ("id",) if mode == "upsert" else ())


# ----------------------------------------------------------------------------------------------------------- contracts

QUICK = ("insert_if_absent", "deletes", "share")
"""Enough of them for every run: the server is slow, and the table the same as in a folder."""

CONTRACTS = [
    contract.name
    for contract in sink_contracts(
        SinkCase("hudi-s3", lambda *given: of.hudi("s3://b/x").as_sink(given[2], given[3]), has_plain_columns=True)
    )
    if not any(word in contract.name for word in ("kill", "rival", "what_is_prepared", "names_are"))
]
"""Without those that fork, and without names that a store does not take."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if any(word in name for word in QUICK) else pytest.mark.heavy) for name in CONTRACTS],
)
def test_the_sink_keeps(name: str, s3: S3, tmp_path: Path) -> None:
    [contract] = [one for one in sink_contracts(case()) if one.name == name]
    contract.run(tmp_path)


# -------------------------------------------------------------------------------------------------------- lost answers


@pytest.mark.parametrize("within", [r"onefold\.json$", r"/timeline/\d+_\d+\.commit$"], ids=["decision", "completion"])
@pytest.mark.parametrize("fate", [500, "cut"])
def test_a_commit_whose_answer_is_lost_lands_once(fate: Any, within: str, s3: S3, tmp_path: Path) -> None:
    lands_once(bench_of(tmp_path), s3, lambda: s3.lose(fate, within=within))


def test_a_store_that_is_down_is_unavailable_and_an_undecided_commit_is_none(s3: S3, tmp_path: Path) -> None:
    is_none_while_the_store_is_down(bench_of(tmp_path), s3, r"onefold\.json$")


# ------------------------------------------------------------------------------------------------------------- between


@contextlib.contextmanager
def meanwhile(step: str, do: Any) -> Iterator[None]:
    """Once, before that step: what another process does then."""

    def observe(met: str, moment: str) -> None:
        if (met, moment) == (step, "before"):
            disk.observer = None
            do()

    disk.observer = observe
    try:
        yield
    finally:
        disk.observer = None


def test_who_opens_before_the_decision_has_ended_it(s3: S3, tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    with meanwhile("hudi.decide", lambda: bench.instance(2)), pytest.raises(SinkUnavailable, match="rolled back"):
        ours.commit([receipt], move(0, 1))
    assert bench.ids() == []
    ours.commit([receipt], move(0, 1))
    assert bench.ids() == [1]


Overtaking = tuple[SinkBench, Any, Any, Any]


@pytest.fixture
def overtaking(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Overtaking:
    """An instance with a receipt, and what another does that was opened before: so that nobody rolls back."""
    monkeypatch.setattr(sink, "_alone", lambda *_: contextlib.nullcontext())  # as two processes
    bench = bench_of(tmp_path)
    ours, _ = bench.instance()
    other, _ = bench.instance(2)
    given = bench.prepare(other, 1, numbered(7))
    return bench, ours, bench.prepare(ours, 1, numbered(1)), lambda: other.commit([given], move(0, 1))


def test_who_commits_before_the_decision_has_moved_the_token(overtaking: Overtaking) -> None:
    bench, ours, receipt, overtake = overtaking
    with meanwhile("hudi.decide", overtake), pytest.raises(SinkUnavailable):
        ours.commit([receipt], move(0, 1))
    with pytest.raises(TokenRefused):
        ours.commit([receipt], move(0, 1))
    assert bench.ids() == [7]


def test_without_the_comparison_both_commit(overtaking: Overtaking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "replace", Record.replace)
    controls.decided_uncompared()
    bench, ours, receipt, overtake = overtaking
    with meanwhile("hudi.decide", overtake):
        ours.commit([receipt], move(0, 1))
    assert bench.ids() == [1, 7]


def test_what_is_decided_is_completed_by_who_opens(s3: S3, tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    found: list[Any] = []
    with meanwhile("hudi.complete", lambda: found.append(bench.instance(2)[1])):
        ours.commit([receipt], move(0, 1))
    assert found == [token(1)]
    assert (bench.ids(), bench.look()[1]) == ([1], token(1))


def test_what_began_after_an_opening_looked_is_not_rolled_back(s3: S3, tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    with meanwhile("hudi.turn", lambda: ours.commit([receipt], move(0, 1))):
        _, found = bench.instance(2)
    assert (bench.ids(), found) == ([1], token(1))


def test_an_undecided_instant_is_rolled_back_with_its_files(s3: S3, tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    ours, _ = bench.instance()

    def die() -> None:
        raise KeyboardInterrupt

    with meanwhile("hudi.decide", die), pytest.raises(KeyboardInterrupt):
        ours.commit([bench.prepare(ours, 1, numbered(1))], move(0, 1))
    later, found = bench.instance(2)
    assert found is None
    assert not [name for name in later._place.names() if name.endswith(".parquet")]  # type: ignore[attr-defined]


def test_a_decision_that_another_took_up_at_once_is_ours(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two requests landed; the other process opened before the second one was refused."""
    bench = bench_of(tmp_path)
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    replace = Record.replace

    def overtaken(self: Record, tag: str | None, decided: Any) -> bool:
        assert replace(self, tag, decided)
        monkeypatch.undo()
        bench.instance(2)
        return False

    monkeypatch.setattr(Record, "replace", overtaken)
    ours.commit([receipt], move(0, 1))
    assert (bench.ids(), bench.look()[1]) == ([1], token(1))


def test_two_that_complete_an_instant_make_the_same_object(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(tmp_path)
    ours, _ = bench.instance()
    given: list[Any] = []
    complete = HudiTable.complete

    def twice(self: HudiTable, *decided: str) -> str:
        given.append(decided)
        return complete(self, *decided)

    monkeypatch.setattr(HudiTable, "complete", twice)
    ours.commit([bench.prepare(ours, 1, numbered(1, 2))], move(0, 1))
    place: Any = ours._place  # type: ignore[attr-defined]
    [name] = [name for name in place.names(".hoodie/timeline") if name.endswith(".commit")]
    [(instant, completion, _)] = given
    assert name.rpartition("/")[2] == f"{instant}_{completion}.commit"
    place.remove(name, step="test")  # as the other saw it
    assert complete(ours._opened._table, *given[0]) == "done"  # type: ignore[attr-defined]
    assert [name] == [name for name in place.names(".hoodie/timeline") if name.endswith(".commit")]
    assert (bench.ids(), bench.look()[1]) == ([1, 2], token(1))


def test_an_instant_of_two_completions_is_one(s3: S3, tmp_path: Path) -> None:
    """Whatever made the second."""
    import obstore
    from hudi import HudiTableBuilder

    bench = bench_of(tmp_path)
    ours, _ = bench.instance()
    ours.commit([bench.prepare(ours, 1, numbered(1, 2))], move(0, 1))
    place: Any = ours._place  # type: ignore[attr-defined]
    [name] = [name for name in place.names(".hoodie/timeline") if name.endswith(".commit")]
    begun, done = name.removesuffix(".commit").split("_")
    obstore.copy(place.store, name, f"{begun}_{int(done) + 17}.commit")
    again, found = bench.instance(2)
    assert (bench.ids(), found) == ([1, 2], token(1))
    again.commit([bench.prepare(again, 2, numbered(3))], move(1, 2))
    assert (bench.ids(), bench.look()[1]) == ([1, 2, 3], token(2))
    table = HudiTableBuilder.from_base_uri(place.uri).with_storage_options(flows.options()).build()
    assert sorted(row["id"] for batch in table.read() for row in batch.to_pylist()) == [1, 2, 3]


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_bucket_that_is_not_there_is_told_without_secrets(s3: S3, tmp_path: Path) -> None:
    ours = of.hudi("s3://nowhere/x", storage_options=flows.options()).as_sink("append", ())
    with pytest.raises(SinkRefused) as caught:
        ours.open(bench_of(tmp_path).binding())
    assert "s3cr3t" not in str(caught.value)


def test_a_store_that_ignores_conditions_is_refused(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Record, name: str, body: bytes, tag: str | None) -> bool:
        return True

    monkeypatch.setattr(Record, "_put", careless)
    with pytest.raises(SinkRefused, match="ignores If-None-Match"):
        bench_of(tmp_path).instance()


def test_a_table_with_a_metadata_table_is_refused(s3: S3, tmp_path: Path) -> None:
    import obstore

    bench = bench_of(tmp_path)
    ours, _ = bench.instance()
    store: Any = ours._place.store  # type: ignore[attr-defined]
    known = bytes(obstore.get(store, PROPERTIES).bytes())
    obstore.put(store, PROPERTIES, known + b"hoodie.table.metadata.partitions=files\n")
    with pytest.raises(SinkRefused, match="metadata table"):
        bench.instance(2)


def test_an_instant_is_claimed_once(s3: S3, tmp_path: Path) -> None:
    ours, _ = bench_of(tmp_path).instance()
    record = Record(ours._place)  # type: ignore[attr-defined]
    s3.lose(500, within="onefold.begun")
    assert record.claim("20261201000000000"), "the first request had landed"
    assert s3.mend() == 1
    assert not record.claim("20261201000000000")
    record.let_go("20261201000000000")
    assert record.claimed() == []


def test_rows_are_read_and_maintained_in_the_store(s3: S3, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, "upsert")
    ours, _ = bench.instance()
    for epoch in (1, 2):
        ours.commit([bench.prepare(ours, epoch, numbered(epoch, 9))], move(epoch - 1, epoch))
    [told] = ours.maintain(bench.binding(), is_dry=False)  # type: ignore[attr-defined]
    assert told.what == "cleaned"
    flow = of.Flow("copy")
    table = of.hudi(f"s3://{BUCKET}/{flows.prefix(tmp_path, 'target')}", storage_options=flows.options())
    flow.read(table).upsert(of.sqlite(str(tmp_path / "copy.sqlite")).table("copy"), key="id")
    assert flow.run(until="drained", state=tmp_path / "state").events == 3


# --------------------------------------------------------------------------------------------------------------- killed

ZOMBIES = [
    "before hudi.complete#1",
    pytest.param("before hudi.decide#1", marks=pytest.mark.heavy),
    pytest.param("after hudi.decide#2", marks=pytest.mark.heavy),
]


@pytest.mark.crash
def test_killed_at_any_durable_step_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    stage.at_every_step(flows.LEDGERS, 5)


@pytest.mark.heavy
@pytest.mark.crash
def test_killed_again_inside_recovery_nothing_is_lost_or_duplicated(stage: Stage) -> None:
    stage.inside_recovery(flows.LEDGERS, 4)


@pytest.mark.crash
@pytest.mark.parametrize("step", ZOMBIES)
def test_a_zombie_that_wakes_changes_nothing(step: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onefold.testing.harness_stage.BESIDE_SECONDS", BESIDE_SECONDS)
    stage.wake_a_zombie(flows.LEDGERS, step)


@pytest.mark.heavy
@pytest.mark.crash
def test_a_decision_that_nobody_else_completes_is_missed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onefold.testing.harness_stage.BESIDE_SECONDS", BESIDE_SECONDS)
    stage.miss_a_safeguard(flows.PLAIN, controls.decided_not_completed, ["freeze before hudi.complete#1"])
