"""Record keys, partitions and Avro schemas of Hudi rows: needs no Java."""

from __future__ import annotations

import itertools
import json

import pyarrow as pa
import pytest

from onefold.connectors.hudi.rows import _folder, _keys, avro_schema, columns_of, name_of, stored_type
from onefold.testing.contract_case import typed_values

HARD = [None, "", "__null__", "__empty__", "%5F_null__", "%", "a,b:c", "c", "a%2Cb:c", "a", "b:a", "a,b:", "%25"]


def test_different_keys_have_different_record_keys() -> None:
    single = _keys(pa.table({"a": pa.array(HARD, pa.string())}), ["a"])
    assert len(set(single)) == len(HARD)
    pairs = list(itertools.product(HARD, HARD))
    table = pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]})
    assert len(set(_keys(table, ["a", "b"]))) == len(pairs)


def test_ordinary_keys_are_those_of_hudis_own_generators() -> None:
    table = pa.table({"a": ["x", None, ""], "b": [1, 2, 3]})
    assert _keys(table, ["a"]) == ["x", "__null__", "__empty__"]
    assert _keys(table, ["a", "b"]) == ["a:x,b:1", "a:__null__,b:2", "a:__empty__,b:3"]


def test_an_avro_schema_gives_the_stored_types_back() -> None:
    kinds = [kind for kind, _ in typed_values() if stored_type(kind) is not None]
    stored = pa.schema([(f"c{number}", stored_type(kind)) for number, kind in enumerate(kinds)])
    assert len(kinds) > 15
    assert columns_of(avro_schema(stored, "ta ble")) == stored
    assert json.loads(avro_schema(stored, "ta ble"))["namespace"] == "hoodie.ta_ble"


@pytest.mark.parametrize("kind", [pa.uint64(), pa.time64("us"), pa.timestamp("ns"), pa.decimal256(50, 2), pa.null()])
def test_a_type_that_would_change_values_has_no_place(kind: pa.DataType) -> None:
    assert stored_type(kind) is None


def test_names_of_folders_are_encoded_as_hudi_does() -> None:
    assert [_folder(value) for value in (None, "", "a/b", "ü=%", 7, True)] == [
        "__HIVE_DEFAULT_PARTITION__", "__HIVE_DEFAULT_PARTITION__", "a%2Fb", "ü%3D%25", "7", "true",
    ]  # fmt: skip
    assert name_of("1 a") == "_1_a"
