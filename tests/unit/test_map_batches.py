"""`map` over polars and pandas: what goes in is what it was, what comes out is what the schema says."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.errors import ExtraMissing, UserCodeError
from tests.needs import need

SCHEMA = {
    "id": "BIGINT",
    "name": "VARCHAR",
    "amount": "DECIMAL(18,2)",
    "weight": "DOUBLE",
    "is_new": "BOOLEAN",
    "day": "DATE",
    "hour": "TIME",
    "at": "TIMESTAMP",
    "seen": "TIMESTAMPTZ",
    "raw": "BLOB",
    "tags": "VARCHAR[]",
    "sizes": "BIGINT[]",
    "place": "STRUCT(x BIGINT, y VARCHAR)",
}
FULL = {
    "id": 9_007_199_254_740_993,  # no DOUBLE is this number
    "name": "é",
    "amount": Decimal("12345678901234.56"),
    "weight": 0.1,
    "is_new": True,
    "day": date(1600, 2, 29),
    "hour": time(23, 59, 59, 999_999),
    "at": datetime.fromisoformat("2024-01-01T00:00:00.000001"),
    "seen": datetime(2024, 1, 1, tzinfo=UTC),
    "raw": b"\x00\xff",
    "tags": ["a", "b"],
    "sizes": [9_007_199_254_740_993, None],
    "place": {"x": 9_007_199_254_740_993, "y": "z"},
}
ROWS: list[dict[str, Any]] = [
    FULL,
    dict.fromkeys(SCHEMA),
    {**FULL, "id": -1, "tags": [], "place": {"x": None, "y": None}},
]

BATCHES = ("arrow", "polars", "pandas")


@pytest.fixture(params=BATCHES)
def batch(request: pytest.FixtureRequest) -> str:
    if request.param != "arrow":
        need(importlib.util.find_spec(request.param), f"no {request.param}")
    return str(request.param)


def mapped(folder: Path, function: Any, batch: str, schema: dict[str, str]) -> list[dict[str, Any]]:
    """What a sink gets of ROWS."""
    given, out = of.memory(f"in-{folder}"), of.memory(f"out-{folder}")
    given.feed(ROWS)
    flow = of.Flow("shop")
    rows = flow.read(given, schema=SCHEMA, name="in")
    rows.map(function, schema=schema, batch=batch).append(out, name="out")  # type: ignore[arg-type]
    flow.run(state=folder / "state")
    return [{name: row[name] for name in schema} for row in out.rows()]


def test_rows_that_are_handed_back_are_the_same(tmp_path: Path, batch: str) -> None:
    assert mapped(tmp_path, lambda rows: rows, batch, SCHEMA) == ROWS


def test_the_function_gets_the_kind_that_it_asked_for_and_may_compute_with_it(tmp_path: Path, batch: str) -> None:
    kinds = []

    def fee(rows: Any) -> Any:
        kinds.append(type(rows).__module__.split(".")[0])
        if batch == "polars":
            import polars

            return rows.filter(polars.col("id") > 0).select("id", fee=polars.col("weight") * 2)
        if batch == "pandas":
            return rows[rows["id"] > 0].assign(fee=lambda some: some["weight"] * 2)[["fee", "id"]]
        import pyarrow.compute as pc

        some = rows.filter(pc.greater(rows["id"], 0))
        return some.select(["id"]).append_column("fee", pc.multiply(some["weight"], 2))

    assert mapped(tmp_path, fee, batch, {"id": "BIGINT", "fee": "DOUBLE"}) == [{"id": FULL["id"], "fee": 0.2}]
    assert kinds == ["pyarrow" if batch == "arrow" else batch]


def test_what_does_not_fit_the_declared_schema_is_an_error(tmp_path: Path, batch: str) -> None:
    with pytest.raises(UserCodeError, match="other columns"):
        mapped(tmp_path / "a", lambda rows: rows, batch, {"id": "BIGINT"})
    with pytest.raises(UserCodeError, match="do not fit"):
        mapped(tmp_path / "b", lambda rows: rows, batch, {**SCHEMA, "id": "SMALLINT"})


@pytest.mark.parametrize("batch", ["polars", "pandas"])
def test_a_missing_package_is_told_with_the_command_that_installs_it(
    tmp_path: Path, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, batch, None)
    with pytest.raises(ExtraMissing, match=f"pip install {batch}"):
        mapped(tmp_path, lambda rows: rows, batch, SCHEMA)
