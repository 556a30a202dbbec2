"""Names and values never leave their quotes; types that would change a value are refused. Without a server."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pymysql
import pytest

from onefold.connectors.mysql.connection import Server
from onefold.connectors.mysql.literals import cells, joined, packed
from onefold.connectors.mysql.types import (
    KEY_BYTES,
    NAME_CHARACTERS,
    declared_type,
    keeps_exactly,
    key_characters,
    quoted,
)
from onefold.errors import BuildError, SchemaError, SinkRefused, SinkUnavailable
from tests.names import hostile

ALPHABET = "aA\"'`\\;-- /*%()$1€ß漢\n\t\u202e{}?:@_\x1a\x00"


def texts(count: int, seed: int) -> list[str]:
    luck = random.Random(seed)
    return ["".join(luck.choice(ALPHABET) for _ in range(luck.randrange(1, 20))) for _ in range(count)]


def read_as_mysql(literal: bytes) -> tuple[bytes, bytes]:
    """The text of a literal in single quotes, where a backslash is a character, and what follows it."""
    assert literal[:1] == b"'"
    at, found = 1, b""
    while True:
        if literal[at : at + 2] == b"''":
            found, at = found + b"'", at + 2
        elif literal[at : at + 1] == b"'":
            return found, literal[at + 1 :]
        else:
            found, at = found + literal[at : at + 1], at + 1


def test_hostile_names_stay_one_identifier() -> None:
    """Of every length up to the longest and beyond."""
    luck, lengths = random.Random(5), Counter[int]()
    for _ in range(10_000):
        name = hostile(luck, most_bytes=luck.choice((NAME_CHARACTERS, 3 * NAME_CHARACTERS)), alphabet=ALPHABET)
        lengths[len(name)] += 1
        if "\0" in name or name.endswith(" ") or len(name) > NAME_CHARACTERS:
            with pytest.raises(SchemaError, match="cannot have this name"):
                quoted(name)
            continue
        text = quoted(name)
        assert text[0] == text[-1] == "`"
        assert "`" not in text[1:-1].replace("``", "")
        assert text[1:-1].replace("``", "`") == name
    assert min(sum(lengths[count] for count in some) for some in (range(50, 65), range(65, 200))) > 50, lengths


@pytest.mark.parametrize("name", ["", "a\0b", "x" * (NAME_CHARACTERS + 1), "a ", "\U0001f600", "\ud800"])
def test_names_that_would_be_changed_or_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="cannot have this name"):
        quoted(name)


def test_hostile_texts_stay_one_literal() -> None:
    values = texts(10_000, 6)
    for value, literal in zip(values, cells(pa.array(values)), strict=True):
        assert read_as_mysql(literal.as_py()) == (value.encode(), b"")
    for value, literal in zip(values, cells(pa.array([text.encode() for text in values])), strict=True):
        assert literal.as_py()[:7] == b"_binary"
        assert read_as_mysql(literal.as_py()[7:]) == (value.encode(), b"")


@pytest.mark.parametrize("most_bytes", [1, 60, 1000, 10**9])
@pytest.mark.parametrize("most_rows", [1, 7, 10**9])
def test_a_statement_holds_whole_rows_in_order_and_no_more_than_it_may(most_bytes: int, most_rows: int) -> None:
    values = texts(500, 7)
    rows = joined([cells(pa.array(values)), cells(pa.array(range(500)))], before=b"(", after=b"),").slice(3)
    found: list[bytes] = []
    for of, part in packed(rows, cut=1, most_bytes=most_bytes, most_rows=most_rows):
        rest, count = bytes(part), 0
        assert b"".join(of.to_pylist())[:-1] == rest
        assert rest[-1:] == b")"
        while rest:
            text, rest = read_as_mysql(rest[1:])
            number, _, rest = rest[1:].partition(b")")
            assert (text, number) == (values[int(number)].encode(), str(len(found) + 3).encode())
            found.append(text)
            rest, count = rest[1:], count + 1
        assert count <= most_rows
        assert len(part) <= most_bytes or count == 1
    assert found == [value.encode() for value in values[3:]]


@pytest.mark.parametrize(
    ("values", "kind", "stored", "compared"),
    [
        ([True, None], pa.bool_(), [b"1", None], [b"1", None]),
        ([2**64 - 1], pa.uint64(), [b"18446744073709551615"], [b"18446744073709551615"]),
        ([Decimal("1E-10")], pa.decimal128(38, 10), [b"'1E-10'"], [b"CAST('1E-10' AS DECIMAL(38,10))"]),
        ([5e-324], pa.float64(), [b"'5e-324'"], [b"CAST('5e-324' AS DOUBLE)"]),
        ([0.1], pa.float32(), [b"'0.10000000149011612'"], [b"CAST('0.10000000149011612' AS DOUBLE)"]),
        ([dt.date(1, 1, 1)], pa.date32(), [b"'0001-01-01'"], [b"DATE'0001-01-01'"]),
        ([dt.time(1, 2, 3)], pa.time32("s"), [b"'01:02:03.000000'"], [b"TIME'01:02:03.000000'"]),
        ([dt.datetime(2026, 7, 1, tzinfo=dt.UTC)], pa.timestamp("ms", "Europe/Berlin"),
         [b"'2026-07-01 00:00:00.000000'"], [b"TIMESTAMP'2026-07-01 00:00:00.000000'"]),
        (["it's"], pa.large_string(), [b"'it''s'"], [b"'it''s'"]),
        (["it's"], pa.string_view(), [b"'it''s'"], [b"'it''s'"]),
        ([b"\xff'"], pa.binary(), [b"_binary'\xff'''"], [b"_binary'\xff'''"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_literal_is_exact_and_what_is_compared_has_its_type(
    values: list[Any], kind: pa.DataType, stored: list[Any], compared: list[Any]
) -> None:
    """A decimal that is compared with a text is compared as a double."""
    column = pa.array(values, kind)
    assert cells(column).to_pylist() == stored
    assert cells(column, is_compared=True).to_pylist() == compared


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("ns"), pa.time64("ns"), pa.duration("us"), pa.decimal256(40, 2), pa.decimal128(5, -2),
     pa.decimal128(38, 31), pa.struct([("a", pa.int8())]), pa.map_(pa.string(), pa.int8()), pa.float16(), pa.null(),
     pa.date64(), pa.list_(pa.int8())],
    ids=str,
)  # fmt: skip
def test_types_that_mysql_cannot_keep_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(SchemaError, match="cannot keep column x"):
        declared_type(pa.field("x", kind), "mysql(…).t")


@pytest.mark.parametrize(
    ("kind", "found", "is_kept"),
    [
        (pa.int64(), "bigint", True),
        (pa.int64(), "bigint(20)", True),
        (pa.int64(), "int(11)", False),
        (pa.int64(), "bigint(20) unsigned", False),
        (pa.int32(), "int(5) unsigned zerofill", False),
        (pa.uint32(), "bigint", True),
        (pa.uint32(), "int", False),
        (pa.uint64(), "bigint unsigned", True),
        (pa.uint64(), "decimal(20,0)", True),
        (pa.int16(), "mediumint", True),
        (pa.bool_(), "tinyint(1)", True),
        (pa.int8(), "tinyint(1)", True),
        (pa.int64(), "double", False),
        (pa.decimal128(18, 2), "decimal(20,4)", True),
        (pa.decimal128(18, 2), "decimal(18,1)", False),
        (pa.decimal128(18, 2), "double", False),
        (pa.float64(), "float", False),
        (pa.float64(), "double(10,2)", False),
        (pa.float32(), "float", True),
        (pa.string(), "varchar(3)", True),
        (pa.string(), "char(3)", False),
        (pa.string(), "enum('a')", False),
        (pa.string(), "varbinary(3)", False),
        (pa.binary(), "binary(3)", False),
        (pa.timestamp("us"), "datetime(6)", True),
        (pa.timestamp("us"), "datetime", False),
        (pa.timestamp("s"), "datetime", True),
        (pa.timestamp("us"), "timestamp(6)", False),
        (pa.timestamp("us", "UTC"), "timestamp(6)", True),
        (pa.timestamp("ns"), "datetime(6)", False),
        (pa.time64("us"), "time", False),
        (pa.date32(), "datetime(6)", False),
    ],
)
def test_a_column_keeps_or_refuses_every_value_or_is_refused(kind: pa.DataType, found: str, is_kept: bool) -> None:
    assert keeps_exactly(kind, found) is is_kept


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_the_texts_of_a_key_fit_into_one_index(count: int, others: int) -> None:
    key = [pa.field(f"t{number}", pa.string()) for number in range(count)]
    key += [pa.field(f"n{number}", pa.decimal128(38, 2)) for number in range(others)]
    assert 1 <= key_characters(key) <= 255
    assert key_characters(key) * 4 * count + 20 * others <= KEY_BYTES
    assert math.isclose(key_characters(key[:1]), 255)


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("mysql://me:secret@db:3307/shop", "mysql(mysql://me:(hidden)@db:3307/shop)"),
        ("${MYSQL_URL}", "mysql(${MYSQL_URL})"),
        ("mariadb://${USER}:${PASSWORD}@db/shop", "mysql(mariadb://${USER}:${PASSWORD}@db/shop)"),
    ],
)
def test_a_label_shows_no_password(url: str, label: str) -> None:
    assert Server(url).label == label
    assert "secret" not in repr(Server(url))


@pytest.mark.parametrize(
    "url",
    ["", "   ", "postgresql://db/shop", "shop", "mysql://db", "mysql://db/", "mysql://db/a/b", "mysql://db:x/a",
     "mysql://db/a?x=1", "mysql://db/a?ssl_mode=MAYBE", "mysql://db/a?ssl_mode=VERIFY_CA", "mysql://db/a?x"],
)  # fmt: skip
def test_what_is_no_url_of_mysql_is_refused_when_it_is_written(url: str) -> None:
    with pytest.raises(BuildError):
        Server(url)


def test_a_url_says_how_the_client_connects() -> None:
    server = Server("mysql://us%40er:p%C3%A5ss@db/my%20shop?ssl_ca=/ca.pem&ssl_mode=verify_identity")
    arguments = server._arguments()
    assert (arguments["host"], arguments["port"], arguments["database"]) == ("db", 3306, "my shop")
    assert (arguments["user"], arguments["password"]) == ("us@er", "påss".encode())
    assert arguments["ssl"] == {"ca": "/ca.pem", "verify_mode": True, "check_hostname": True}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1045, SinkRefused), (1044, SinkRefused), (1049, SinkRefused), (1142, SinkRefused), (1130, SinkRefused),
        (1040, SinkUnavailable), (1203, SinkUnavailable), (1205, SinkUnavailable), (1213, SinkUnavailable),
        (1053, SinkUnavailable), (1290, SinkUnavailable), (2003, SinkUnavailable), (2006, SinkUnavailable),
        (2013, SinkUnavailable),
    ],
)  # fmt: skip
def test_an_error_is_hopeless_or_may_pass_and_shows_no_password(code: int, error: type[Exception]) -> None:
    found = pymysql.OperationalError(code, "no: it's s@cret, or s%40cret")
    failure = Server("mysql://me:s%40cret@db/shop").failure(found, SinkUnavailable)
    assert type(failure) is error
    assert str(code) in str(failure)
    assert "cret" not in str(failure)
