"""CSV: records into typed columns, exactly; the plain and the quoted path agree."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

import onefold as of
from onefold.errors import BuildError, SchemaError, SourceError
from onefold.formats import format_named, format_names
from onefold.formats.csv import Csv
from onefold.formats.schema import to_schema

SCHEMA = to_schema({"id": "BIGINT", "name": "VARCHAR", "amount": "DECIMAL(18,2)", "at": "TIMESTAMP"})
GOOD = b"1,a,2.50,2024-01-01T00:00:00"


def decode(lines, csv=None, schema=SCHEMA, is_lenient=False):
    return (csv or Csv()).decode(pa.array(lines, pa.binary()), schema, is_lenient=is_lenient)


def misfits(decoded):
    return list(zip(decoded.misfits.index.to_pylist(), decoded.misfits.reason.to_pylist(), strict=True))


@pytest.mark.parametrize("line", [GOOD, b'"1",a,"2.50","2024-01-01 00:00:00"'])
def test_fields_become_typed_columns(line) -> None:
    rows = decode([line]).rows
    at = datetime.fromisoformat("2024-01-01")
    assert rows.to_pylist() == [{"id": 1, "name": "a", "amount": Decimal("2.50"), "at": at}]
    assert rows.schema.equals(SCHEMA)


@pytest.mark.parametrize(("line", "reason"), [
    (b"", "malformed"), (b"1,a,2.50", "malformed"), (b"1,a,2.50,,", "malformed"), (None, "malformed"),
    (b"1,\xff,2.50,", "malformed"), (b'1,"a"b,2.50,', "malformed"), (b'1,"a,2.50,', "malformed"),
    (b"1,a\nb,2.50,", "malformed"), (b"1,a\rb,2.50,", "malformed"),
    (b"1.5,a,2.50,", "misfit"), (b"1,a,2.505,", "misfit"), (b"x,a,,", "misfit"), (b" 1,a,,", "misfit"),
    (b"1,a,2.50,yesterday", "misfit"), (b"\xef\xbb\xbf1,a,2.50,", "misfit"),
])  # fmt: skip
@pytest.mark.parametrize("neighbour", [GOOD, b'1,"a",2.50,'])
def test_a_broken_record_is_refused_and_its_neighbours_are_kept(line, reason, neighbour) -> None:
    decoded = decode([neighbour, line, neighbour])
    assert misfits(decoded) == [(1, reason)]
    assert decoded.kept.to_pylist() == [0, 2]


def test_an_unclosed_quote_does_not_swallow_the_next_record() -> None:
    assert misfits(decode([b'1,"a,,', GOOD, b'",2,,', GOOD])) == [(0, "malformed"), (2, "malformed")]


def test_quoted_line_ends_and_quotes_are_part_of_the_value() -> None:
    rows = decode([b'1,"a\n""b"",",2.50,']).rows
    assert rows.column("name").to_pylist() == ['a\n"b",']


def test_dialects() -> None:
    csv = Csv(delimiter=";", quote="'", escape="\\", null="NULL")
    decoded = decode([b"1;'a\\';b';NULL;NULL", b"2;;NULL;NULL"], csv)
    assert decoded.rows.column("name").to_pylist() == ["a';b", ""]
    assert decoded.rows.column("amount").to_pylist() == [None, None]


def test_columns_that_the_schema_does_not_have_are_left_out() -> None:
    csv = Csv(columns=("id", "extra", "name", "amount", "at"))
    assert decode([b"1,zzz,a,2.50,"], csv).rows.column("name").to_pylist() == ["a"]
    with pytest.raises(SchemaError, match="that the CSV has not"):
        decode([GOOD], Csv(columns=("id",)))


def test_a_header_in_another_order_is_an_error_that_shows_both() -> None:
    Csv().check_header(b"\xef\xbb\xbfid,name,amount,at", SCHEMA, where="a.csv")
    with pytest.raises(SourceError, match=r"(?s)header.*a\.csv.*name,id,amount,at.*id,name,amount,at"):
        Csv().check_header(b"name,id,amount,at", SCHEMA, where="a.csv")


@pytest.mark.parametrize(("header", "advice"), [
    (b"id;name;amount;at", 'of.csv(delimiter=";")'), (b"at\tamount\tname\tid", r'of.csv(delimiter="\t")'),
    (b"'id'|'name'|'amount'|'at'", "of.csv(columns=["), (b"id,name,amount", "of.csv(columns=["),
    (b"", "of.csv(columns=["),
])  # fmt: skip
def test_a_wrong_header_is_answered_by_what_would_read_it(header, advice) -> None:
    with pytest.raises(SourceError) as wrong:
        Csv().check_header(header, SCHEMA, where="a.csv")
    assert advice in wrong.value.next_step


def test_a_dialect_is_read_from_the_files_to_the_sink(tmp_path) -> None:
    (tmp_path / "a.csv").write_bytes(b"name;extra;id\n'x;y';1;1\n'O''Hara';2;2\n-;3;3\n\"q\";4;4\n'bad'x;5;5\n")
    flow = of.Flow("sales")
    sales = flow.read(
        of.files(tmp_path / "*.csv", complete="rename"),
        schema={"id": "BIGINT", "name": "VARCHAR"},
        format=of.csv(delimiter=";", quote="'", null="-", columns=["name", "extra", "id"]),
    )
    sales.append(of.sqlite(str(tmp_path / "out.db")).table("sales"))
    flow.run(state=tmp_path / "state")
    with contextlib.closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        found = connection.execute("SELECT id, name FROM sales ORDER BY id").fetchall()
    assert found == [(1, "x;y"), (2, "O'Hara"), (3, None), (4, '"q"')]


def test_columns_may_be_any_sequence_but_no_text() -> None:
    assert hash(of.csv(columns=["id"])) == hash(of.csv(columns=("id",)))
    with pytest.raises(SchemaError):
        of.csv(columns="id")


def test_nested_columns_are_written_as_json_and_bytes_as_base64() -> None:
    schema = to_schema({"l": "BIGINT[]", "j": "JSON", "b": "BLOB"})
    decoded = decode([b'"[1,2.0]","{""a"":1.10}",AP8=', b"[1],{,", b"[1.5],,", b",,x"], schema=schema)
    assert decoded.rows.to_pylist() == [{"l": [1, 2], "j": '{"a":1.10}', "b": b"\x00\xff"}]
    assert misfits(decoded) == [(1, "misfit"), (2, "misfit"), (3, "misfit")]


def test_many_plain_records_keep_their_order_beside_refused_ones() -> None:
    lines = [b"%d,n,%s," % (n, b"1.005" if n % 1000 == 7 else b"1.5") for n in range(20_000)]
    decoded = decode(lines)
    expected = [n for n in range(20_000) if n % 1000 != 7]
    assert decoded.rows.column("id").to_pylist() == expected == decoded.kept.to_pylist()


@pytest.mark.parametrize("options", [{"delimiter": ""}, {"delimiter": "\n"}, {"quote": ","}, {"escape": "ab"}])
def test_an_impossible_dialect_is_refused(options) -> None:
    with pytest.raises(SchemaError):
        format_named("csv", **options)


def test_formats_are_found_by_name() -> None:
    assert [format_named(name).name for name in format_names()] == list(format_names())
    with pytest.raises(BuildError, match=r"(?s)no format 'jsn'.*'json'"):
        format_named("jsn")
    with pytest.raises(BuildError, match="does not take"):
        format_named("json", delimiter=",")


def test_large_binary_values_are_decoded_as_binary_ones_are() -> None:
    lines = [GOOD, b"2,b,0.10,2024-01-02T00:00:00"]
    large = Csv().decode(pa.array(lines, pa.large_binary()), SCHEMA, is_lenient=False)
    assert large.rows.to_pylist() == decode(lines).rows.to_pylist()
    assert len(large.misfits) == 0
