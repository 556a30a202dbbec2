"""Outputs: what may be written where, under which name, with which guarantee."""

from __future__ import annotations

import pytest

import onefold as of
from onefold.errors import (
    BuildError,
    GuaranteeRefused,
    NameTaken,
    NotSupported,
    SchemaError,
    TargetTaken,
)
from onefold.guarantee.declared import explain, guarantee_of, refuse_unkept
from onefold.types import CommitClass, Guarantee
from tests.unit.flow_fakes import SCHEMA, Fake, payments_of


@pytest.fixture
def flow() -> of.Flow:
    return of.Flow("revenue")


@pytest.fixture
def payments(flow: of.Flow) -> of.Stream:
    return payments_of(flow)


# ------------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("pattern", "target", "is_refused"),
    [
        ("in/*.jsonl", "in", True),
        ("in", "in", True),
        ("in/**/*.jsonl", "in/deep", True),
        ("in/*.jsonl", "in/deep", False),
        ("in/*.csv", "in", False),
        ("in/*.jsonl", "out", False),
    ],
)
def test_a_flow_that_would_read_what_it_writes_is_refused(
    flow: of.Flow, pattern: str, target: str, is_refused: bool
) -> None:
    rows = flow.read(of.files(pattern, format="csv" if "csv" in pattern else "json"), schema=SCHEMA, name="in")
    if is_refused:
        with pytest.raises(TargetTaken, match="read what it writes"):
            rows.append(of.files(target, format="json"), name="out")
        rows.append(of.files(target, format="json"), name="knowingly", shared=True)
    else:
        rows.append(of.files(target, format="json"), name="out")


def test_two_sinks_write_to_one_target_only_knowingly(payments: of.Stream) -> None:
    payments.append(of.files("lake"), name="one", shared=True)
    with pytest.raises(TargetTaken, match="one and two"):
        payments.append(of.files("./lake"), name="two")
    payments.append(of.files("lake"), name="three", shared=True)
    payments.append(of.console(), name="shown")
    payments.append(of.console(), name="shown-again")


def test_a_running_aggregate_is_upserted_by_its_groups_only(payments: of.Stream) -> None:
    totals = payments.group_by("merchant").agg(n="count(*)")
    with pytest.raises(NotSupported, match="cannot be appended"):
        totals.append(Fake("a"))
    with pytest.raises(NotSupported, match="needs its own key"):
        totals.upsert(Fake("b"), key="n")
    totals.select("n", shop="merchant").upsert(Fake("c"), key="shop")


def test_a_windowed_aggregate_is_upserted_by_group_and_window(payments: of.Stream) -> None:
    hourly = payments.window("1 hour").group_by("merchant").agg(n="count(*)")
    for key in (["merchant"], ["window_start"], ["merchant", "window_end"]):
        with pytest.raises(NotSupported) as caught:
            hourly.upsert(Fake("a"), key=key)
        assert caught.value.expected == "key=['merchant', 'window_start']"
    hourly.upsert(Fake("b"), key=["window_start", "window_end", "merchant"])
    hourly.where("n > 1").append(Fake("c"))


def test_a_step_that_hides_updates_cannot_be_upserted(payments: of.Stream) -> None:
    hourly = payments.window("1 hour").group_by("merchant").agg(n="count(*)")
    key = ["merchant", "window_start"]
    for stream in (hourly.where("n > 1"), hourly.map(lambda rows: rows, schema=hourly.schema.arrow)):
        with pytest.raises(NotSupported, match="stale"):
            stream.upsert(Fake("a"), key=key)
    with pytest.raises(NotSupported, match="merchant"):
        hourly.select("n", "window_start").upsert(Fake("a"), key="window_start")


def test_aggregates_do_not_feed_stateful_steps(payments: of.Stream) -> None:
    totals = payments.group_by("merchant").agg(n="count(*)")
    for refused in (
        lambda: totals.dedup("merchant", within=None),
        lambda: totals.group_by("n"),
        lambda: totals.window("1 h"),
        lambda: totals.union(totals.where("n > 1")),
    ):
        with pytest.raises(NotSupported, match="replace earlier ones"):
            refused()


def test_change_streams_flow_into_upserts_only(flow: of.Flow, payments: of.Stream) -> None:
    changes = payments.select("*", _op="CASE WHEN amount < 0 THEN 'delete' ELSE 'upsert' END")
    for refused in (
        lambda: changes.append(Fake("a")),
        lambda: changes.dedup("event_id", within=None),
        lambda: changes.group_by("merchant"),
        lambda: changes.window("1 h"),
        lambda: changes.upsert(Fake("b"), key="event_id"),
    ):
        with pytest.raises(NotSupported):
            refused()
    changes.upsert(Fake("c", deletes=True), key="event_id")
    with pytest.raises(SchemaError, match="VARCHAR"):
        payments.select("*", _op="1")
    assert flow.read(Fake("cdc"), SCHEMA | {"_op": "VARCHAR"}).schema == SCHEMA | {"_op": "VARCHAR"}


def test_a_sink_must_have_the_mode_and_the_key(payments: of.Stream) -> None:
    with pytest.raises(NotSupported, match="cannot upsert"):
        payments.upsert(Fake("a", modes=frozenset({"append"})), key="event_id")
    with pytest.raises(SchemaError, match="event_di"):
        payments.upsert(Fake("a"), key="event_di")
    with pytest.raises(SchemaError):
        payments.upsert(Fake("a"), key="event_id", latest_by="paid")
    with pytest.raises(SchemaError):
        payments.upsert(Fake("a"), key=[])
    endpoint = Fake("b")
    payments.upsert(endpoint, key="event_id", latest_by="paid_at")
    assert endpoint.made == [("upsert", ("event_id",))]


def test_two_equal_names_are_an_error(flow: of.Flow, payments: of.Stream) -> None:
    payments.append(Fake("out"))
    with pytest.raises(NameTaken) as caught:
        payments.where("amount > 0").append(Fake("out"))
    assert "'out'" in str(caught.value)
    payments.append(Fake("other"), name="out2")
    with pytest.raises(BuildError):
        payments.append(Fake("x"), name="_out3")


def test_two_stateful_steps_of_one_name_are_an_error(flow: of.Flow, payments: of.Stream) -> None:
    payments.dedup("event_id", within=None).append(Fake("a"))
    with pytest.raises(NameTaken, match="'dedup'"):
        payments.dedup("merchant", within=None).append(Fake("b"))
    payments.dedup("merchant", within=None, name="shops").append(Fake("b"))
    assert {node.name for node in flow.plan.nodes} == {"payments", "dedup", "shops"}


def test_two_reads_of_one_name_are_an_error(flow: of.Flow, payments: of.Stream) -> None:
    payments.append(Fake("a"))
    with pytest.raises(NameTaken, match="'payments'"):
        payments_of(flow).append(Fake("b"))


def test_stateless_steps_get_names_of_their_own(flow: of.Flow, payments: of.Stream) -> None:
    payments.where("amount > 0").where("amount < 9").where("amount <> 3", name="where-2").append(Fake("a"))
    assert [node.name for node in flow.plan.nodes] == ["payments", "where", "where-3", "where-2"]


# ---------------------------------------------------------------------------------------------------------- guarantees


@pytest.mark.parametrize(
    ("commit_class", "asked", "kept"),
    [
        (CommitClass.TRANSACTIONAL, "exactly-once", "exactly-once"),
        (CommitClass.TWO_PHASE, "exactly-once", "exactly-once"),
        (CommitClass.IDEMPOTENT, "exactly-once", "at-least-once"),
        (CommitClass.NONE, "exactly-once", "at-least-once"),
        (CommitClass.NONE, "at-least-once", "at-least-once"),
        (CommitClass.NONE, "at-most-once", "at-most-once"),
        (CommitClass.TRANSACTIONAL, "at-most-once", "at-most-once"),
    ],
)
def test_the_guarantee_follows_from_the_commit_class(
    flow: of.Flow, payments: of.Stream, commit_class: CommitClass, asked: str, kept: str
) -> None:
    payments.append(Fake("out", commit_class=commit_class), guarantee=asked)
    plan = flow.plan
    assert guarantee_of(plan.outputs[0]).guarantee is Guarantee(kept)
    verdict = explain(plan).verdicts[0]
    assert verdict.kept is Guarantee(kept)
    *of_the_journal, own = verdict.conditions
    assert own == "x < y"
    assert [("copied" in one) for one in of_the_journal] == ([] if kept == "exactly-once" else [True])
    if asked == kept:
        refuse_unkept(plan)
    else:
        with pytest.raises(GuaranteeRefused) as caught:
            refuse_unkept(plan)
        assert "out" in str(caught.value)
        assert 'guarantee="at-least-once"' in caught.value.next_step


def test_a_source_that_cannot_be_read_again_weakens_every_sink(flow: of.Flow) -> None:
    flow.read(Fake("once", is_replayable=False), SCHEMA).append(Fake("out"))
    explanation = flow.explain()
    assert explanation.verdicts[0].kept is Guarantee.AT_MOST_ONCE
    assert "fake(once)" in str(explanation)
    assert explanation.as_json()["sinks"][0]["kept"] == "at-most-once"
    with pytest.raises(GuaranteeRefused):
        refuse_unkept(flow.plan)


def test_committing_together_takes_sinks_that_can() -> None:
    flow = of.Flow("f", commit="together")
    payments = payments_of(flow)
    payments.append(Fake("a", together=True))
    with pytest.raises(GuaranteeRefused, match="cannot join"):
        payments.append(Fake("b"))
    with pytest.raises(GuaranteeRefused):
        payments.append(Fake("c", together=True), guarantee="at-least-once")
    with pytest.raises(GuaranteeRefused):
        of.Flow("g", commit="together", guarantee="at-least-once")
    assert flow.plan.commit == "together"
