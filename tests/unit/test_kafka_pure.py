"""What of the Kafka connector needs no broker: options, tokens, positions."""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onefold as of
from onefold.connectors.kafka.connection import FREE_OPTIONS, HIDDEN, OWN_OPTIONS, SECRET_OPTIONS
from onefold.connectors.kafka.messages import Layout, Messages, rows_of
from onefold.connectors.kafka.place import Place
from onefold.connectors.kafka.refusal import refusal_of
from onefold.connectors.kafka.sizes import Limits, largest_message, limits_of, suspects
from onefold.connectors.kafka.token import (
    MOST_METADATA_BYTES,
    from_metadata,
    owners_from_metadata,
    owners_to_metadata,
    to_metadata,
)
from onefold.errors import BuildError, NotSupported, RowsRefused, SchemaError, SettingMissing
from onefold.formats import format_named
from onefold.formats.schema import to_schema
from onefold.formats.write import json_values
from onefold.types import Binding, EpochNumber, SealId, Token

pytest.importorskip("confluent_kafka")


def token(partitions: int = 2, noise: int = 4) -> Token:
    ends = {f"topic:{n}": {"at": n * 7919, "epoch": n % 5, "topic": f"{n:x}" * noise} for n in range(partitions)}
    return Token(EpochNumber(7), SealId("a" * 32), {"in": ends})


@pytest.mark.parametrize("partitions", [0, 2, 40, 4000])
def test_a_token_comes_back_from_an_offsets_metadata(partitions: int) -> None:
    written = to_metadata(token(partitions), [("id", "int64")])
    assert len(written) <= MOST_METADATA_BYTES
    found, columns = from_metadata(7, written)
    assert found == token(partitions)
    if partitions <= 40:
        assert found.ends == token(partitions).ends
        assert columns == {"id": "int64"}


@pytest.mark.parametrize("text", [b"", b"x", b"j[]", b"j{}", b"z!!", b"\xff\xff"])
def test_what_is_no_token_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        from_metadata(7, text)


def test_a_token_of_another_epoch_than_its_offset_is_none() -> None:
    with pytest.raises(ValueError, match="epoch"):
        from_metadata(8, to_metadata(token(), []))


def test_owners_that_do_not_fit_are_forgotten_from_the_oldest_on() -> None:
    owners = [(f"flow{number}" * 10, "0", "sink") for number in range(400)]
    kept = [tuple(owner) for owner in owners_from_metadata(owners_to_metadata(owners))]
    assert kept == owners[-len(kept) :]
    assert owners_from_metadata(b"") == []


def test_positions_come_back() -> None:
    for place in (Place("id", 5, 3), Place("", 0)):
        assert Place.of(place.position()) == place


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("acks", "guarantee decides"),
        ("ssl.endpoint.identification.algorithm", "who it says"),
        ("linger.msx", "no option"),
    ],
)
def test_options_that_guarantees_hang_on_are_refused(option: str, says: str) -> None:
    with pytest.raises(BuildError, match=says):
        of.kafka("localhost:9092", options={option: "1"})


def test_secrets_are_settings_and_show_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = of.kafka("${BROKERS}", username="me", password="${SECRET}", tls=True)
    with pytest.raises(SettingMissing):
        kafka.connection.settings()
    monkeypatch.setenv("BROKERS", "localhost:1")
    monkeypatch.setenv("SECRET", "hunter2")
    settings = kafka.connection.settings()
    assert (settings["sasl.password"], settings["security.protocol"]) == ("hunter2", "SASL_SSL")
    assert "hunter2" not in repr(kafka) + kafka.topic("t").label
    assert "SECRET" not in repr(kafka)


def test_what_cannot_be_written_or_read_is_refused_when_the_flow_is_built() -> None:
    kafka = of.kafka("localhost:9092")
    with pytest.raises(NotSupported, match="no single topic"):
        kafka.topic(["a", "b"]).as_sink("append", ())
    with pytest.raises(NotSupported, match="needs a key"):
        kafka.topic("a").as_sink("upsert", ())
    for wrong in ([], "", [""]):
        with pytest.raises(BuildError, match="Which topic"):
            kafka.topic(wrong)
    with pytest.raises(BuildError):
        kafka.topic("a", start="yesterday")  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="Which brokers"):
        of.kafka("")


# --------------------------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mechanism": "GSSAPI"}, "no such mechanism"),
        ({"mechanism": "SCRAM-SHA-512"}, "needs a user name"),
        ({"mechanism": "OAUTHBEARER"}, "needs a token"),
        ({"token": lambda: ("", 0.0)}, "belongs to mechanism OAUTHBEARER"),
        ({"username": "me"}, "belong together"),
        ({"certificate": "me.pem"}, "belong together"),
        ({"username": "me", "password": "x", "options": {"security.protocol": "SSL"}}, "contradicts"),
        (
            {"username": "me", "password": "x", "tls": True, "options": {"security.protocol": "SASL_PLAINTEXT"}},
            "contrad",
        ),
        ({"ca": "ca.pem", "options": {"security.protocol": "plaintext"}}, "contradicts"),
    ],
)
def test_a_connection_that_could_not_work_or_would_be_open_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        of.kafka("localhost:9092", **arguments)


def test_every_secret_is_hidden_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {name: f"hunter{place}" for place, name in enumerate(sorted(SECRET_OPTIONS), 3)}
    monkeypatch.setenv("SECRET", "hunter2")
    kafka = of.kafka("localhost:9092", username="me", password="${SECRET}", options=options)
    shown = repr(kafka) + repr(kafka.topic("t")) + str(kafka.topic("t").as_source(None)) + kafka.topic("t").label
    shown += kafka.connection.clean("librdkafka says hunter2, and " + ", ".join(options.values()))
    assert "hunter" not in shown
    assert HIDDEN in shown


def test_secrets_are_options_and_no_option_is_both_free_and_ours() -> None:
    assert SECRET_OPTIONS <= FREE_OPTIONS
    assert not FREE_OPTIONS & set(OWN_OPTIONS)
    assert {name for name in FREE_OPTIONS if "password" in name or "secret" in name} <= SECRET_OPTIONS


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("_AUTHENTICATION", "SASL authentication error: Invalid username or password", "who"),
        ("_SSL", "SSL handshake failed: certificate verify failed: broker certificate", "trust"),
        ("_TRANSPORT", "Receive failed: tls alert bad certificate: SSL alert number 42", "certificate"),
        ("_AUTHENTICATION", 'Failed to acquire SASL OAUTHBEARER token: {"error": "invalid_client"}', "token"),
        ("_AUTHENTICATION", "Failed to acquire SASL OAUTHBEARER token: Could not connect to server", None),
        ("_TRANSPORT", "Connect to ipv4#127.0.0.1:1 failed: Connection refused", None),
        ("_ALL_BROKERS_DOWN", "1/1 brokers are down", None),
        ("_TIMED_OUT", "Failed while waiting for controller", None),
    ],
)
def test_what_may_pass_by_itself_is_no_refusal(name: str, text: str, kind: str | None) -> None:
    found = refusal_of(name, text)
    assert (found.kind if found else None) == kind


def test_a_secret_without_a_value_is_a_finding_of_doctor_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET", raising=False)
    topic = of.kafka("localhost:9092", username="me", password="${SECRET}").topic("t")
    for part in (topic.as_source(None), topic.as_sink("append", ())):
        (found,) = part.check(None)
        assert (found.status, "SECRET" in found.found) == ("failed", True)


# -------------------------------------------------------------------------------------------------------------- sizes


def limits(topic_bytes: int | None, *, is_keyed: bool = False, **options: str) -> Limits:
    named = {name.replace("_", "."): text for name, text in options.items()}
    return limits_of(of.kafka("localhost:9092", options=named).connection, topic_bytes, is_keyed=is_keyed)


def test_the_smaller_of_the_topics_and_the_clients_limit_counts() -> None:
    assert limits(None).size_bytes == 1_000_000 - 36
    assert limits(2_000).size_bytes == 1930
    assert limits(2_000, is_keyed=True).size_bytes < 1930
    assert limits(10_000_000).size_bytes == 1_000_000 - 36
    assert limits(10_000_000, message_max_bytes="5000000").size_bytes == 5_000_000 - 36


def test_what_the_client_compresses_may_still_fit_into_the_topic() -> None:
    assert limits(2_000, compression_type="zstd").size_bytes == 1_000_000 - 36


def test_batches_stay_below_what_the_topic_takes() -> None:
    assert int(limits(2_000).batching["batch.size"]) <= 2_000
    assert not limits(10_000_000).batching
    assert limits(None).one_by_one().is_one_by_one


@given(
    texts=st.lists(st.one_of(st.none(), st.text(max_size=60)), max_size=300),
    limit=st.integers(40, 4_000),
    at=st.integers(0, 299),
    size=st.integers(0, 5_000),
    letter=st.sampled_from(["x", "\x01", '"', "ü", "😀"]),
)
def test_no_row_that_is_too_large_is_overlooked(
    texts: list[str | None], limit: int, at: int, size: int, letter: str
) -> None:
    texts = [*texts[:at], letter * size, *texts[at:]]
    batch = pa.record_batch({"id": pa.array(range(len(texts)), pa.int64()), "note": pa.array(texts, pa.string())})
    batch = batch.slice(len(texts) // 3)  # what is shared with rows that are cut away does not count
    if not batch.num_rows:
        return
    largest = largest_message(json_values(batch), None)
    judged = [largest_message(json_values(part), None) for part in suspects(batch, limit)]
    assert (largest > limit) == any(found > limit for found in judged)


def test_few_rows_are_looked_at_when_one_is_large() -> None:
    notes = ["x" * 100] * 100_000
    notes[70_000] = "x" * 2_000_000
    batch = pa.record_batch({"note": notes})
    assert 1 <= sum(part.num_rows for part in suspects(batch, 1_000_000)) <= 16
    assert not list(suspects(batch.slice(0, 70_000), 1_000_000))


def test_small_limits_are_measured_in_few_slices() -> None:
    batch = pa.record_batch({"note": ["x" * 1_000] * 20_000})
    parts = list(suspects(batch, 2_000))
    assert sum(part.num_rows for part in parts) == 20_000
    assert len(parts) <= 6


def test_rows_with_parts_are_always_looked_at() -> None:
    batch = pa.record_batch({"parts": [[{"a-very-long-name": None}] * 50]})
    assert [part.num_rows for part in suspects(batch, 10_000)] == [1]


def layout(columns: dict[str, str], *, mode: str = "append", **more: Any) -> Layout:
    key, word = more.pop("key", ()), more.pop("word", "json")
    binding = Binding(
        journal="j", flow="f", lane="0", sink="s", incarnation=cast("Any", 1), schema=to_schema(columns),
        mode=cast("Any", mode), key=key, guarantee=cast("Any", None), spool=cast("Any", None),
    )  # fmt: skip
    return Layout(binding, cast("Any", format_named(word)), "topic", **more)


COLUMNS = {"k": "VARCHAR", "n": "BIGINT", "body": "BLOB", "h": "MAP(VARCHAR, BLOB)"}
ROWS = [
    {"k": "a", "n": 1, "body": b"x", "h": [("t", b"1"), ("t", None)]},
    {"k": "b", "n": 2, "body": b"", "h": []},
    {"k": "c", "n": 3, "body": b"\xff", "h": [("", b"")]},
]


@pytest.mark.parametrize("key", [("k",), ("k", "n"), ("n",)])
@pytest.mark.parametrize("word", ["json", "raw"])
def test_messages_become_the_rows_that_they_were_made_of(key: tuple[str, ...], word: str) -> None:
    columns = COLUMNS if word == "json" else {name: COLUMNS[name] for name in (*key, "body", "h")}
    rows = pa.Table.from_pylist(ROWS, schema=to_schema(columns))
    shape = layout(columns, word=word, key=key, headers="h")
    values, keys, headers = Messages(shape, "t").of(rows)
    assert headers == [[(name.encode(), value) for name, value in row["h"]] for row in ROWS]  # type: ignore[attr-defined]
    assert keys is not None
    if word == "raw":
        assert values.to_pylist() == [row["body"] for row in ROWS]
    found = rows_of(shape, pa.chunked_array([values]), pa.chunked_array([keys]), headers)
    assert found.to_pylist() == rows.to_pylist()


def test_what_has_no_place_in_a_message_is_refused() -> None:
    for columns, more in (
        ({"a": "BLOB", "b": "BLOB"}, {"word": "raw"}),
        ({"a": "BIGINT"}, {"word": "raw"}),
        ({"a": "BIGINT"}, {"headers": "a"}),
        ({"a": "BIGINT", "h": "STRUCT(name VARCHAR, value BIGINT)[]"}, {"headers": "h"}),
        ({"a": "BIGINT", "h": "MAP(VARCHAR, BLOB)"}, {"headers": "h", "key": ("h",)}),
    ):
        with pytest.raises(SchemaError):
            Messages(layout(columns, **more), "t")  # type: ignore[arg-type]
    shape = layout({"a": "BIGINT", "h": "STRUCT(name VARCHAR, value BLOB)[]"}, headers="h")
    for nameless in ([{"name": None, "value": b"x"}], [None]):
        with pytest.raises(RowsRefused, match="no name"):
            Messages(shape, "t").of(pa.Table.from_pylist([{"a": 1, "h": nameless}], schema=shape.stored))
