"""Iceberg tables of a Glue catalog in an S3-compatible store, whose answers get lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onefold.connectors.iceberg import iceberg
from onefold.errors import TokenRefused
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered
from onefold.testing.contracts import sink_contracts
from tests.services.lake_s3_flows import glue_of
from tests.services.lost_answers import lands_once
from tests.services.s3_server import S3


def case_of(url: str) -> SinkCase:
    def make(folder: Path, table: str, mode: Any, key: tuple[str, ...]) -> Any:
        place = "".join(sign if sign.isalnum() else "_" for sign in f"{folder.name}_{table}").lower()
        return iceberg(("lake", place), glue_of(url)).as_sink(mode, key)

    return SinkCase("iceberg-glue", make, fences=True)


CONTRACTS = ("insert_if_absent", "empty_commit", "receipt_is_enough", "last_row", "deletes", "values_are", "handles")
"""Enough of them: the server is slow, and the table the same as in a folder."""


@pytest.mark.parametrize(
    "name", [one.name for one in sink_contracts(case_of("http://x")) if any(word in one.name for word in CONTRACTS)]
)
def test_the_sink_keeps(name: str, s3: S3, tmp_path: Path) -> None:
    [contract] = [one for one in sink_contracts(case_of(s3.url)) if one.name == name]
    contract.run(tmp_path)


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("fate", [500, 503, "cut"])
def test_a_commit_whose_answer_is_lost_lands_once(fate: Any, mode: Any, s3: S3, tmp_path: Path) -> None:
    """Glue's client sends it again, and is told that the table's version is another by then."""
    bench = SinkBench(case_of(s3.url), tmp_path, mode, ("id",) if mode == "upsert" else ())
    lands_once(bench, s3, lambda: s3.lose(fate, within="/", action="UpdateTable"))


def test_an_older_instance_is_refused_by_the_table(s3: S3, tmp_path: Path) -> None:
    bench = SinkBench(case_of(s3.url), tmp_path)
    older, _ = bench.instance()
    receipt = bench.prepare(older, 1, numbered(1))
    newer, found = bench.instance()
    assert found is None
    newer.commit([bench.prepare(newer, 1, numbered(1))], move(0, 1))
    with pytest.raises(TokenRefused):
        older.commit([receipt], move(0, 1))
    assert bench.ids() == [1]
