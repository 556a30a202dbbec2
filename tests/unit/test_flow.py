"""What the user writes becomes an immutable plan, or an error at the line that is wrong."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.errors import (
    BuildError,
    ExpressionError,
    NotSupported,
    OnefoldError,
    SchemaError,
)
from onefold.plan import AggregateNode, DedupNode, ReadNode, SelectNode, UnionNode, WhereNode
from onefold.protocols import Endpoint
from tests.unit.flow_fakes import SCHEMA, Fake, payments_of


@pytest.fixture
def flow() -> of.Flow:
    return of.Flow("revenue")


@pytest.fixture
def payments(flow: of.Flow) -> of.Stream:
    return payments_of(flow)


# ---------------------------------------------------------------------------------------------------- the whole thing


def test_the_twenty_lines_become_a_plan(flow: of.Flow, payments: of.Stream) -> None:
    valid = payments.where("amount > 0").dedup("event_id", within="7 days")
    hourly = valid.window("1 hour").group_by("merchant").agg(payments="count(*)", revenue="sum(amount)")
    valid.append(Fake("payments"))
    hourly.upsert(Fake("revenue_hourly"), key=["merchant", "window_start"])
    plan = flow.plan
    assert [(type(node), node.name, node.inputs) for node in plan.nodes] == [
        (ReadNode, "payments", ()),
        (WhereNode, "where", ("payments",)),
        (DedupNode, "dedup", ("where",)),
        (AggregateNode, "window", ("dedup",)),
    ]
    read, where, dedup, window = plan.nodes
    assert isinstance(read, ReadNode)
    assert (read.event_time, read.lateness_micros, read.max_ahead_micros) == ("paid_at", 600_000_000, None)
    assert read.format is not None
    assert (read.format.name, read.label) == ("json", "fake(payments)")
    assert isinstance(where, WhereNode)
    assert where.predicate == "(amount > 0)"
    assert isinstance(dedup, DedupNode)
    assert (dedup.key, dedup.within_micros, dedup.event_time) == (("event_id",), 604_800_000_000, "paid_at")
    assert isinstance(window, AggregateNode)
    assert (window.keys, window.window_micros, window.event_time) == (("merchant",), 3_600_000_000, "paid_at")
    assert window.schema.names == ["merchant", "window_start", "window_end", "payments", "revenue"]
    assert window.partial_schema.names[:3] == ["merchant", "window_start", "window_end"]
    assert [(o.name, o.input, o.mode, o.key) for o in plan.outputs] == [
        ("payments", "dedup", "append", ()),
        ("revenue_hourly", "window", "upsert", ("merchant", "window_start")),
    ]
    assert hourly.schema == {
        "merchant": "VARCHAR",
        "window_start": "TIMESTAMP",
        "window_end": "TIMESTAMP",
        "payments": "BIGINT",
        "revenue": "DECIMAL(38,2)",
    }


def test_a_plan_does_not_change_when_the_flow_grows(flow: of.Flow, payments: of.Stream) -> None:
    payments.append(Fake("one"))
    before = flow.plan
    fingerprint = before.fingerprint()
    payments.where("amount > 1")
    assert flow.plan.fingerprint() == fingerprint, "a step that nothing reads changes nothing"
    payments.where("amount > 2").append(Fake("two"))
    assert before.fingerprint() == fingerprint
    assert flow.build().fingerprint() != fingerprint


def test_the_same_text_gives_the_same_fingerprint() -> None:
    def built(condition: str) -> str:
        flow = of.Flow("f")
        payments_of(flow).where(condition).append(Fake("out"))
        return flow.plan.fingerprint()

    assert built("amount > 0") == built("amount>0 -- the same") != built("amount > 1")


def test_a_flow_without_outputs_cannot_be_built(flow: of.Flow, payments: of.Stream) -> None:
    with pytest.raises(BuildError, match="no outputs"):
        flow.build()


def test_an_error_is_raised_at_the_line_that_is_wrong(payments: of.Stream) -> None:
    with pytest.raises(ExpressionError) as caught:
        payments.where("amont > 0")
    lines = [frame.line for frame in traceback.extract_tb(caught.value.__traceback__) if frame.filename == __file__]
    assert lines == ['payments.where("amont > 0")']


# ------------------------------------------------------------------------------------------------------- flow and read


@pytest.mark.parametrize("name", ["", "a b", "_a", "-a", "a/b", "é", "a" * 121, None, 3])
def test_a_name_of_a_flow_is_checked(name: Any) -> None:
    with pytest.raises(BuildError):
        of.Flow(name)


def test_settings_take_friendly_units() -> None:
    flow = of.Flow("f", epoch_bytes="1 MiB", keep_settled="2 days", spool_quota="1 GB", max_dead="1%", epoch_rows=10)
    payments_of(flow).append(Fake("out"))
    settings = flow.plan.settings
    assert (settings.epoch_bytes, settings.keep_settled_seconds, settings.spool_quota_bytes) == (
        1 << 20,
        172_800.0,
        10**9,
    )
    assert (settings.max_dead, settings.epoch_rows) == (0.01, 10)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_daed": "1%"}, "max_dead"),
        ({"epoch_bytes": "many"}, "epoch_bytes"),
        ({"epoch_rows": 0}, "epoch_rows"),
        ({"epoch_bytes": 0}, "epoch_bytes"),
        ({"epoch_rows": "10"}, "epoch_rows"),
        ({"keep_settled": 1, "keep_settled_seconds": 2}, "twice"),
        ({"guarantee": "exactly_once"}, "at-least-once"),
        ({"commit": "sometimes"}, "together"),
    ],
)
def test_a_wrong_setting_is_an_error(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError) as caught:
        of.Flow("f", **settings)
    assert says in str(caught.value)


def test_bytes_need_a_schema_and_typed_rows_may_bring_theirs(flow: of.Flow) -> None:
    with pytest.raises(SchemaError, match="needs a schema"):
        flow.read(Fake("payments"))
    stream = flow.read(Fake("typed", "rows", inferred=pa.schema({"id": pa.int64(), "_op": pa.string()})))
    assert stream.schema == {"id": "BIGINT", "_op": "VARCHAR"}
    stream.upsert(Fake("t", deletes=True), key="id")
    read = flow.plan.nodes[0]
    assert isinstance(read, ReadNode)
    assert read.format is None


def test_a_schema_may_be_a_dataclass_or_an_arrow_schema(flow: of.Flow) -> None:
    @dataclass
    class Payment:
        event_id: str
        paid_at: datetime

    expected = {"event_id": "VARCHAR", "paid_at": "TIMESTAMP"}
    assert flow.read(Fake("a"), Payment).schema == expected
    assert flow.read(Fake("b"), pa.schema({"event_id": pa.string(), "paid_at": pa.timestamp("us")})).schema == expected


def test_columns_of_the_source_can_be_kept(flow: of.Flow) -> None:
    stream = flow.read(Fake("p"), SCHEMA, meta=["_file"])
    assert list(stream.schema) == [*SCHEMA, "_file"]
    stream.append(Fake("out"))
    read = flow.plan.reads()[0]
    assert read.declared.names == list(SCHEMA)
    with pytest.raises(SchemaError, match="_fil"):
        flow.read(Fake("p"), SCHEMA, meta=["_fil"])


@pytest.mark.parametrize(
    "options",
    [
        {"event_time": "paid"},
        {"event_time": "amount"},
        {"lateness": "1 s"},
        {"max_ahead": "1 s"},
        {"event_time": "paid_at", "lateness": "soon"},
        {"casts": "some"},
        {"format": "jsn"},
        {"format": 3},
        {"name": "_x"},
    ],
)
def test_wrong_options_of_a_read_are_errors(flow: of.Flow, options: dict[str, Any]) -> None:
    with pytest.raises(BuildError):
        flow.read(Fake("p"), SCHEMA, **options)


def test_what_is_no_endpoint_is_refused(flow: of.Flow, payments: of.Stream) -> None:
    with pytest.raises(BuildError, match="nothing to read from"):
        flow.read("payments.jsonl", SCHEMA)
    with pytest.raises(BuildError, match="nothing to write to"):
        payments.append("out")


def test_any_object_with_the_verbs_is_a_source_or_a_sink(flow: of.Flow) -> None:
    source, sink = Fake("x").as_source(None), Fake("x").as_sink("append", ())
    flow.read(source, SCHEMA, name="mine").append(sink, name="out")
    plan = flow.plan
    assert plan.reads()[0].source is source
    assert plan.outputs[0].sink is sink


# ----------------------------------------------------------------------------------------------------------- operators


def test_select_chooses_computes_and_renames(payments: of.Stream) -> None:
    stream = payments.select("event_id", "upper(merchant) AS shop", at="paid_at", fee="amount * 0.02")
    assert stream.schema == {"event_id": "VARCHAR", "shop": "VARCHAR", "at": "TIMESTAMP", "fee": "DECIMAL(18,4)"}
    assert list(payments.select("* EXCLUDE (amount)", cents="amount * 100").schema) == [
        "event_id", "merchant", "paid_at", "cents",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("positional", "named"),
    [
        (("*", "amount"), {}),
        (("*",), {"AMOUNT": "amount * 2"}),
        (("amount * 2",), {}),
        (("amount, merchant",), {}),
        ((), {}),
        (("amont",), {}),
        (("*",), {"n": "count(*)"}),
    ],
)
def test_a_wrong_select_is_an_error(payments: of.Stream, positional: tuple[str, ...], named: dict[str, str]) -> None:
    with pytest.raises(BuildError):
        payments.select(*positional, **named)


def test_event_time_is_followed_through_the_steps(payments: of.Stream) -> None:
    assert payments.where("amount > 0").event_time == "paid_at"
    assert payments.select("*", fee="amount").event_time == "paid_at"
    assert payments.select(at="paid_at").event_time == "at"
    assert payments.select("event_id", at="paid_at + INTERVAL 1 HOUR").event_time is None
    assert payments.select("event_id").event_time is None
    assert payments.dedup("event_id", within=None).event_time == "paid_at"
    assert payments.map(lambda rows: rows, schema=SCHEMA).event_time == "paid_at"
    assert payments.map(lambda rows: rows, schema={"paid_at": "VARCHAR"}).event_time is None
    assert payments.window("1 hour").agg(n="count(*)").event_time is None


def test_windows_of_zoned_times_are_zoned(flow: of.Flow) -> None:
    stream = (
        flow.read(Fake("p"), {"at": "TIMESTAMPTZ"}, event_time="at").window("1 day", offset="25 h").agg(n="count(*)")
    )
    assert stream.schema == {
        "window_start": "TIMESTAMPTZ",
        "window_end": "TIMESTAMPTZ",
        "n": "BIGINT",
    }
    stream.append(Fake("out"))
    window = flow.plan.nodes[-1]
    assert isinstance(window, AggregateNode)
    assert window.window_offset_micros == 3_600_000_000


def test_explode_gives_the_elements(flow: of.Flow) -> None:
    stream = flow.read(Fake("p"), {"id": "BIGINT", "tags": "STRUCT(a INTEGER)[]"})
    assert stream.explode("tags").schema == {"id": "BIGINT", "tags": 'STRUCT("a" INTEGER)'}
    for wrong in ("id", "tag"):
        with pytest.raises(SchemaError):
            stream.explode(wrong)


def test_a_union_takes_streams_of_the_same_columns_in_any_order(flow: of.Flow, payments: of.Stream) -> None:
    turned = payments_of(flow, endpoint="more").select("paid_at", "amount", "merchant", "event_id")
    both = flow.union(payments, turned)
    assert both.schema == payments.schema
    assert both.event_time == "paid_at"
    both.append(Fake("out"))
    assert [type(node) for node in flow.plan.nodes] == [ReadNode, ReadNode, SelectNode, SelectNode, UnionNode]
    assert payments.union(payments_of(flow, endpoint="x", event_time=None, lateness=None)).event_time is None


def test_a_union_of_different_columns_says_the_difference(payments: of.Stream) -> None:
    with pytest.raises(SchemaError) as caught:
        payments.union(payments.select("event_id", "merchant", "paid_at", amount="amount::DOUBLE"))
    assert caught.value.found == "amount is double, not decimal128(18, 2)"
    for others in ((), (payments,)):
        with pytest.raises(BuildError):
            payments.union(*others)
    with pytest.raises(BuildError, match="one flow"):
        payments.union(payments_of(of.Flow("other")))


def test_dedup_must_say_how_long(payments: of.Stream) -> None:
    with pytest.raises(BuildError, match="within"):
        payments.dedup("event_id")
    with pytest.raises(BuildError, match="event time"):
        payments.select("event_id").dedup("event_id", within="1 day")
    with pytest.raises(SchemaError, match="event_di"):
        payments.dedup("event_di", within=None)
    with pytest.raises(SchemaError):
        payments.dedup([], within=None)
    with pytest.raises(SchemaError):
        payments.dedup(["event_id", "event_id"], within=None)
    assert payments.select("event_id").dedup(["event_id"], within=None).schema == {"event_id": "VARCHAR"}


def test_keys_are_single_values(flow: of.Flow) -> None:
    stream = flow.read(Fake("p"), {"tags": "VARCHAR[]"})
    with pytest.raises(SchemaError, match="no single value"):
        stream.dedup("tags", within=None)


def test_windows_need_an_event_time_and_a_size(payments: of.Stream) -> None:
    with pytest.raises(BuildError, match="event time"):
        payments.select("amount").window("1 hour")
    with pytest.raises(BuildError, match="above zero"):
        payments.window("0 s")
    with pytest.raises(SchemaError):
        payments.window("1 hour").group_by("merchan")
    for verb in (payments.group_by, payments.window("1 h").group_by):
        with pytest.raises(BuildError, match="at least one column"):
            verb()


@pytest.mark.parametrize(
    ("sql", "kind", "says"),
    [
        ("median(amount)", NotSupported, "bool_or"),
        ("string_agg(merchant, ',')", NotSupported, "merged"),
        ("count(DISTINCT merchant)", NotSupported, "DISTINCT"),
        ("sum(amount ORDER BY paid_at)", NotSupported, "ORDER BY"),
        ("max(amount, 3)", NotSupported, "2 arguments"),
        ("max(merchant COLLATE NOCASE)", NotSupported, "collation"),
        ("avg(paid_at)", NotSupported, "epoch_us"),
        ("sum(sum(amount))", ExpressionError, "inside another"),
        ("amount", ExpressionError, "no aggregate"),
        ("sum(amount) / amount", ExpressionError, ""),
        ("sum(amount) OVER ()", ExpressionError, "window function"),
        ("sum(amont)", ExpressionError, "amount"),
        ("sum(merchant)", ExpressionError, "sum("),
        ("sum(amount) > 'x'", ExpressionError, "'x'"),
        ("(SELECT sum(1))", ExpressionError, "subquery"),
        ("sum(amount), count(*)", ExpressionError, "One expression"),
        ("geomean(amount)", ExpressionError, "no aggregate"),
    ],
)
def test_a_wrong_aggregate_is_refused_with_its_reason(
    payments: of.Stream, sql: str, kind: type[OnefoldError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        payments.group_by("merchant").agg(x=sql)
    assert says in str(caught.value)


def test_aggregates_must_have_names_of_their_own(payments: of.Stream) -> None:
    with pytest.raises(BuildError):
        payments.group_by("merchant").agg()
    with pytest.raises(SchemaError):
        payments.group_by("merchant").agg(merchant="count(*)")
    with pytest.raises(SchemaError):
        payments.window("1 h").agg(Window_Start="count(*)")


# -------------------------------------------------------------------------------------------------------------- people


def test_streams_and_flows_read_well(flow: of.Flow, payments: of.Stream) -> None:
    assert repr(payments.select("amount")) == "<Stream select of flow revenue: amount DECIMAL(18,2)>"
    assert "<td>amount</td><td>DECIMAL(18,2)</td>" in payments._repr_html_()
    assert flow._repr_html_().startswith("<p>Flow revenue, exactly-once</p><ul><li>")
    assert repr(payments.schema) == repr(SCHEMA)
    payments.append(Fake("out"))
    assert repr(flow) == "<Flow revenue: exactly-once, payments, out>"


def test_the_state_lives_where_it_was_said(flow: of.Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEFOLD_STATE", raising=False)
    assert flow.state_folder() == Path(__file__).parent / ".onefold" / flow.name
    monkeypatch.setenv("ONEFOLD_STATE", str(tmp_path))
    assert flow.state_folder() == tmp_path / flow.name
    assert flow.state_folder("here") == Path("here") / flow.name


def test_a_fake_is_an_endpoint() -> None:
    assert isinstance(Fake("x"), Endpoint)


def test_importing_onefold_is_silent_and_light() -> None:
    code = (
        "import sys, logging, onefold as of\n"
        "assert any(isinstance(h, logging.NullHandler) for h in logging.getLogger('onefold').handlers)\n"
        "heavy = {'pandas', 'polars', 'onefold.connectors.memory', 'onefold.engines.embedded'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "of.memory('x')\n"
        "assert 'files' in dir(of)\n"
        "try:\n    of.nothing\nexcept AttributeError as error:\n    assert 'nothing' in str(error)\n"
        "else:\n    raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
    assert logging.getLogger("onefold").level == logging.NOTSET
