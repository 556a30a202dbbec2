"""What of the Kafka connector needs no broker: options, tokens, positions."""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.kafka.messages import Layout, Messages, rows_of
from onefold.connectors.kafka.place import Place
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
