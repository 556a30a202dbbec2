"""Parts of the change stream that need no server."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.postgres.changes.place import Place, lsn_number, lsn_text
from onefold.connectors.postgres.changes.rows import Row, RowsToArrow
from onefold.connectors.postgres.changes.seeking import parted_at
from onefold.connectors.postgres.changes.slot import default_name
from onefold.connectors.postgres.changes.snapshot import Seen
from onefold.errors import BuildError, SourceError

PLACES = [
    Place(),
    Place(begin=7),
    Place(lsn=5 << 32, system="1", timeline=2),
    Place(begin=7, lsn=9, commit=12, done=3, table="t ü", after=("1", "'"), system="1", timeline=2),
    Place(lsn=9, table="t"),
]


@pytest.mark.parametrize("place", PLACES)
def test_a_place_survives_json(place: Place) -> None:
    assert Place.of(json.loads(json.dumps(place.position()))) == place


def test_a_place_in_the_log_is_read_as_the_server_writes_it() -> None:
    assert lsn_number("16/B374D848") == 0x16B374D848
    assert lsn_text(0x16B374D848) == "16/B374D848"


@pytest.mark.parametrize(
    ("xmin", "xmax", "running", "xid", "holds"),
    [
        (10, 20, (), 9, True),
        (10, 20, (10, 12), 10, False),
        (10, 20, (10, 12), 11, True),
        (10, 20, (10, 12), 20, False),
        ((1 << 32) + 5, (1 << 32) + 9, ((1 << 32) + 5,), 0xFFFFFFFF, True),
        ((1 << 32) + 5, (1 << 32) + 9, ((1 << 32) + 5,), 5, False),
        ((1 << 32) - 5, (1 << 32) - 1, (), 3, False),
    ],
)
def test_a_snapshot_knows_transactions_by_half_their_number(
    xmin: int, xmax: int, running: tuple[int, ...], xid: int, holds: bool
) -> None:
    assert Seen(xmin, xmax, frozenset(running)).holds(xid) is holds


def test_a_history_says_where_a_timeline_was_left() -> None:
    history = "1\t0/5000060\tno recovery target specified\n\n2\t0/A000000\tbefore 2024\n"
    assert [parted_at(history, timeline) for timeline in (1, 2, 3)] == [0x5000060, 0xA000000, None]


def test_names_of_slots_are_the_servers_and_differ() -> None:
    names = {default_name(*each) for each in (("A b", "c"), ("a", "b_c"), ("a_b", "c"), ("ü" * 90, "x"))}
    assert len(names) == 4
    assert all(len(name) <= 63 and name.replace("_", "").isalnum() and name.isascii() for name in names)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{}", []),
        ('{a,"b,c","d\\"e\\\\",NULL,"NULL",""}', ["a", "b,c", 'd"e\\', None, "NULL", ""]),
        ('{"x"}', ["x"]),
    ],
)
def test_arrays_become_lists(text: str, values: list[str | None]) -> None:
    assert _read(text, pa.list_(pa.string())) == values


@pytest.mark.parametrize("text", ["{{1,2},{3,4}}", "[0:1]={1,2}"])
def test_arrays_that_are_no_lists_are_errors(text: str) -> None:
    with pytest.raises(SourceError, match="column c holds a value"):
        _read(text, pa.list_(pa.int32()))


def test_text_that_is_none_is_an_error() -> None:
    with pytest.raises(SourceError, match="column c holds a value"):
        RowsToArrow({"c": pa.string()}, (), "t").batch([_row(b"\xff")])


def _read(text: str, kind: pa.DataType) -> object:
    return RowsToArrow({"c": kind}, (), "t").batch([_row(text.encode())]).column("c")[0].as_py()


def _row(value: bytes) -> Row:
    return Row("upsert", "t", [value], None, 1, 0, 1, 1, (), 1)


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ([], {}),
        (["a", "a"], {}),
        ("a\0", {}),
        ("a", {"slot": "Big"}),
        ("a", {"truncate": "go"}),
        ("a", {"unchanged": ""}),
    ],
)
def test_what_cannot_be_asked_for_is_refused(table: object, options: dict[str, str]) -> None:
    with pytest.raises(BuildError):
        of.postgres("postgresql://h/d").changes(table, **options)  # type: ignore[arg-type]
