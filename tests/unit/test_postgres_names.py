"""Names never leave their quotes; types that would change a value are refused. Without a server."""

from __future__ import annotations

import random
from collections import Counter

import pyarrow as pa
import pytest

from onefold.connectors.postgres.connection import Server
from onefold.connectors.postgres.types import NAME_BYTES, declared_type, keeps_exactly, quoted
from onefold.errors import BuildError, SchemaError
from tests.names import hostile


def test_hostile_names_stay_one_identifier() -> None:
    """Of every length up to the longest and beyond, cut inside of a sign of several bytes too."""
    luck = random.Random(5)
    lengths = Counter[int]()
    for _ in range(10_000):
        name = hostile(luck, most_bytes=NAME_BYTES + 3)
        length = len(name.encode())
        lengths[length] += 1
        if length > NAME_BYTES:
            with pytest.raises(SchemaError, match="cannot have this name"):
                quoted(name)
            continue
        text = quoted(name)
        assert text[0] == text[-1] == '"'
        assert '"' not in text[1:-1].replace('""', "")
        assert text[1:-1].replace('""', '"') == name
    assert all(lengths[length] > 50 for length in range(NAME_BYTES - 1, NAME_BYTES + 3)), lengths


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "é" * 32, "x" * 62 + "é", "x" * 61 + "漢"])
def test_names_that_would_be_cut_or_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="cannot have this name"):
        quoted(name)


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("ns"), pa.duration("us"), pa.decimal256(40, 2), pa.decimal128(5, -2), pa.struct([("a", pa.int8())]),
     pa.map_(pa.string(), pa.int8()), pa.float16(), pa.null(), pa.date64(), pa.list_(pa.list_(pa.int8()))],
    ids=str,
)  # fmt: skip
def test_types_that_postgres_cannot_keep_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(SchemaError, match="cannot keep column x"):
        declared_type(pa.field("x", kind), "postgres(…).t")


@pytest.mark.parametrize(
    ("declared", "found", "is_kept"),
    [
        ("bigint", "bigint", True),
        ("bigint", "integer", False),
        ("integer", "bigint", True),
        ("bigint", "numeric(30,0)", True),
        ("bigint", "numeric(30,-2)", False),
        ("numeric(18,2)", "numeric", True),
        ("numeric(18,2)", "numeric(18,1)", False),
        ("numeric(18,2)", "numeric(10,2)", True),
        ("text", "character varying(10)", True),
        ("text", "character(10)", False),
        ("text", "jsonb", True),
        ("double precision", "real", False),
        ("timestamp without time zone", "timestamp(3) without time zone", False),
        ("timestamp without time zone", "timestamp with time zone", False),
        ("integer[]", "bigint[]", True),
        ("integer[]", "integer", False),
    ],
)
def test_a_column_keeps_or_refuses_every_value_or_is_refused(declared: str, found: str, is_kept: bool) -> None:
    assert keeps_exactly(declared, found) is is_kept


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("postgresql://me:secret@db:5433/shop", "postgres(postgresql://me:(hidden)@db:5433/shop)"),
        ("${PG_URL}", "postgres(${PG_URL})"),
        ("postgresql://${USER}:${PASSWORD}@db/shop", "postgres(postgresql://${USER}:${PASSWORD}@db/shop)"),
    ],
)
def test_a_label_shows_no_password(url: str, label: str) -> None:
    assert Server(url).label == label
    assert "secret" not in repr(Server(url))


@pytest.mark.parametrize("url", ["", "   ", "mysql://db/shop", "shop"])
def test_what_is_no_url_of_postgres_is_refused_when_it_is_written(url: str) -> None:
    with pytest.raises(BuildError):
        Server(url)
