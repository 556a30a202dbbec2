"""Places in an outbox, and the server's CSV as Arrow. Without a server."""

from __future__ import annotations

import json
import random

import pyarrow as pa
import pytest

from onefold.connectors.postgres.columns import Column, decoded, inferred
from onefold.connectors.postgres.outbox_place import START, Origin, Place
from onefold.errors import SchemaError

HERE = Origin("7711502129545419651", 16384, 3)


@pytest.mark.parametrize(
    "place", [START, Place(2**64 - 1, 2**63 - 1, HERE), Place(1, "3465833f-dda4-459c-bd83-fe1437bba8ec", HERE)]
)
def test_a_place_comes_back_from_json(place: Place) -> None:
    assert Place.of(json.loads(json.dumps(place.position))) == place


def test_places_are_ordered_by_transaction_and_then_by_id() -> None:
    places = [START] + [Place(transaction, number, HERE) for transaction in (3, 7, 2**63) for number in (-1, 5, 40)]
    shuffled = places.copy()
    random.Random(1).shuffle(shuffled)
    for one in shuffled:
        for other in shuffled:
            assert one.is_before(other) is (places.index(one) < places.index(other))


def test_an_unknown_server_is_taken_for_the_same_but_another_database_is_not() -> None:
    assert HERE.is_same(Origin("", 16384, 9))
    assert not HERE.is_same(Origin("", 5, 3))
    assert not HERE.is_same(Origin("1", 16384, 3))


def test_csv_tells_null_from_nothing_and_keeps_all_else() -> None:
    text = b'1,t,"",\\x,"a ""b""\r\n,c"\n,f,,"NULL",""\n-9223372036854775808,,x,ff00,\n'
    kinds = {"n": pa.int64(), "b": pa.bool_(), "s": pa.string(), "t": pa.string(), "u": pa.string()}
    assert decoded(text, kinds).to_pylist() == [
        {"n": 1, "b": True, "s": "", "t": "\\x", "u": 'a "b"\r\n,c'},
        {"n": None, "b": False, "s": None, "t": "NULL", "u": ""},
        {"n": -(2**63), "b": None, "s": "x", "t": "ff00", "u": None},
    ]


def test_bytes_travel_in_hexadecimal_digits() -> None:
    found = decoded(b'00ff0a\n""\n\n', {"raw": pa.binary()})
    assert found.column("raw").to_pylist() == [b"\x00\xff\n", b"", None]


@pytest.mark.parametrize(("kind", "text"), [(pa.int32(), b"2147483648\n"), (pa.bool_(), b"maybe\n")])
def test_what_is_not_of_the_type_is_refused(kind: pa.DataType, text: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid):
        decoded(text, {"x": kind})


def test_floating_point_comes_back_to_the_last_bit() -> None:
    luck = random.Random(3)
    numbers = [luck.uniform(-1, 1) * 10 ** luck.randrange(-300, 300) for _ in range(5000)]
    text = "".join(f"{number!r}\n" for number in numbers).encode()
    assert decoded(text, {"x": pa.float64()}).column("x").to_pylist() == numbers


def test_a_type_that_onefold_does_not_know_is_named() -> None:
    with pytest.raises(SchemaError, match="Column where of outbox") as error:
        inferred([Column("where", "point", '"where"', pa.string(), None)], "outbox")
    assert error.value.found == "point"
