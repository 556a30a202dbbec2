"""Errors of a run say where: flow, read or step, epoch, the line of the user's function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.errors import DiskFailed, ExtraMissing, OnefoldError, SourceUnavailable, UserCodeError
from onefold.flow.stream import Stream

N = {"n": "BIGINT"}

Failing = Callable[..., OnefoldError]


def divide(rows: pa.Table) -> pa.Table:
    one = 1
    return one / 0 and rows


DIVIDES = divide.__code__.co_firstlineno + 2


@pytest.fixture
def failing(tmp_path: Path, request: pytest.FixtureRequest) -> Failing:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n' * 3)

    def fail(steps: Callable[[Stream], Stream], state: str = "state", pattern: str = "*.jsonl") -> OnefoldError:
        flow = of.Flow("shop")
        rows = flow.read(of.files(tmp_path / pattern), schema=N, name="in")
        steps(rows).append(of.memory(request.node.name), name="out")
        with pytest.raises(OnefoldError) as caught:
            flow.run(state=tmp_path / state)
        return caught.value

    return fail


def where(error: OnefoldError) -> dict[str, Any]:
    return {name: error.where.get(name) for name in ("flow", "node", "epoch")}


def test_an_expression_is_named_with_its_steps(failing: Failing) -> None:
    error = failing(lambda rows: rows.where("n > 0").select("n", m="CAST(error('no') AS BIGINT)"))
    assert isinstance(error, UserCodeError)
    assert where(error) == {"flow": "shop", "node": "where+select", "epoch": 1}
    assert "n > 0" in error.where["expression"]
    assert "m=CAST" in error.where["expression"]


def test_an_aggregate_is_named(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    grouped = of.Flow("shop")
    rows = grouped.read(of.files(tmp_path / "*.jsonl"), schema=N, name="in")
    sums = rows.group_by("n").agg(m="sum(CAST(error('no') AS BIGINT))")
    sums.upsert(of.memory(request.node.name), key=["n"], name="out")
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n')
    with pytest.raises(UserCodeError) as caught:
        grouped.run(state=tmp_path / "state")
    error = caught.value
    assert where(error)["node"] == "group_by"


def test_the_line_of_a_function_is_named(failing: Failing) -> None:
    error = failing(lambda rows: rows.map(divide, schema=N))
    assert where(error) == {"flow": "shop", "node": "map", "epoch": 1}
    assert (error.where["file"], error.where["line"]) == (__file__, DIVIDES)


@pytest.mark.parametrize("result", [pa.table({"q": [1]}), pa.table({"n": ["x"]})])
def test_a_function_that_breaks_its_schema_is_named(failing: Failing, result: pa.Table) -> None:
    assert where(failing(lambda rows: rows.map(lambda _: result, schema=N)))["node"] == "map"


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_missing_package_is_no_fault_of_the_function(
    failing: Failing, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = failing(lambda rows: rows.map(divide, schema=N, batch=package))
    assert isinstance(error, ExtraMissing)
    assert error.next_step == f"pip install {package}"


def test_a_source_that_fails_is_named(failing: Failing) -> None:
    error = failing(lambda rows: rows, pattern="none/*.jsonl")
    assert isinstance(error, SourceUnavailable)
    assert (error.where["flow"], error.where["read"]) == ("shop", "in")


def test_a_state_folder_that_cannot_be_is_not_blamed_on_the_disk(failing: Failing) -> None:
    error = failing(lambda rows: rows, state="a.jsonl/state")
    assert isinstance(error, DiskFailed)
    assert error.summary == "A folder cannot be made below a file."
    assert "--state" in error.next_step
