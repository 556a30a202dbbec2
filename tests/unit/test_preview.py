"""`preview`: the first rows as they pass, and nothing left behind: no state, no sink, no change of the input."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import onefold as of
from onefold.errors import UserCodeError

SCHEMA = {"id": "VARCHAR", "amount": "DECIMAL(18,2)", "at": "TIMESTAMP"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with 30 events in two files, one of them twice, and one line that is none."""
    monkeypatch.chdir(tmp_path)
    events = [{"id": f"e{number:02}", "amount": f"{number}.50", "at": "2024-01-01T00:00:01"} for number in range(30)]
    lines = [json.dumps(event) for event in events]
    write(tmp_path / "in" / "a.jsonl", [*lines[:20], lines[0], "{malformed"])
    write(tmp_path / "in" / "b.jsonl", lines[20:])
    return tmp_path


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def events_of(flow: of.Flow) -> of.Stream:
    return flow.read(of.files("in/*.jsonl", complete="rename"), schema=SCHEMA, event_time="at")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_preview_leaves_nothing_behind_and_touches_no_sink(here: Path) -> None:
    before = content(here)
    flow = of.Flow("shop")
    events = events_of(flow)
    kept = events.where("amount > 3").dedup("id", within=None)
    kept.append(of.duckdb("out.duckdb").table("events"))
    kept.append(of.files("lake"))
    kept.append(of.sqlite("no/such/folder.db").table("events"), name="nowhere")
    assert len(kept.preview()) == 20
    assert content(here) == before
    assert [path.name for path in here.iterdir()] == ["in"]


def test_it_shows_so_many_of_the_first_rows_in_order(here: Path) -> None:
    events = events_of(of.Flow("shop"))
    assert events.preview(3)["id"].to_pylist() == ["e00", "e01", "e02"]
    assert len(events.preview(1000)) == 31


def test_it_shows_rows_as_they_pass_at_its_place(here: Path) -> None:
    events = events_of(of.Flow("shop"))
    once = events.dedup("id", within=None)
    assert len(once.preview(1000)) == 30
    hourly = once.window("1 hour").agg(count="count(*)", total="sum(amount)")
    (row,) = hourly.preview().to_pylist()
    assert (row["count"], row["total"]) == (30, 450)
    assert row["window_start"].replace(tzinfo=UTC) == datetime(2024, 1, 1, tzinfo=UTC)


def test_it_is_the_same_again_and_a_run_after_it_misses_nothing(here: Path) -> None:
    flow = of.Flow("shop")
    once = events_of(flow).dedup("id", within=None)
    once.append(of.memory(f"preview-{here}"), name="out")
    assert once.preview(1000) == once.preview(1000)
    flow.run(state=here / "state")
    assert len(of.memory(f"preview-{here}").rows()) == 30


def test_without_input_it_has_the_columns_and_no_rows(here: Path) -> None:
    (here / "none").mkdir()
    flow = of.Flow("shop")
    empty = flow.read(of.files("none/*.jsonl"), schema={"id": "VARCHAR"}).select("id", length="length(id)").preview()
    assert (empty.column_names, len(empty)) == (["id", "length"], 0)


def test_a_function_that_fails_is_told(here: Path) -> None:
    def fails(rows: object) -> object:
        raise ValueError("no")

    with pytest.raises(UserCodeError, match="ValueError: no"):
        events_of(of.Flow("shop")).map(fails, schema=SCHEMA).preview()
