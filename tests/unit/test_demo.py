"""The demo's events and its judge: the events are what they are said to be, and the judge sees what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from onefold.cli.demo.crashes import Crash
from onefold.cli.demo.events import FILES, draws, write_events
from onefold.cli.demo.expected import Judge
from onefold.cli.demo.verb import Verdict, _show

COUNT = 20_000


def content(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_events(folder / "events", COUNT, seed=1)
    return folder


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge(folder)


def test_one_seed_gives_one_input_and_another_another(folder: Path, tmp_path: Path) -> None:
    write_events(tmp_path / "same", COUNT, seed=1)
    write_events(tmp_path / "other", COUNT, seed=2)
    assert content(tmp_path / "same") == content(folder / "events")
    assert content(tmp_path / "other") != content(folder / "events")


def test_draws_are_even_and_differ_by_seed_and_salt() -> None:
    numbers = draws(1, 1, 100_000)
    assert 0 <= numbers.min() < 0.001 < 0.999 < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert not (numbers == draws(1, 2, 100_000)).any()
    assert not (numbers == draws(2, 1, 100_000)).any()


def test_the_events_have_replays_latecomers_refunds_and_five_kinds_of_damage(folder: Path, judge: Judge) -> None:
    lines = b"".join(content(folder / "events")).decode().splitlines()
    assert len(lines) == COUNT
    assert len(content(folder / "events")) == FILES
    counts = judge.counts()
    assert counts["read"] == COUNT == sum(counts.values()) - counts["read"]
    assert 0.07 < counts["duplicates"] / COUNT < 0.11
    assert 0.005 < counts["late"] / COUNT < 0.03
    assert 0.001 < counts["dead"] / COUNT < 0.005
    assert 0.02 < counts["refunds"] / COUNT < 0.04
    broken = [line for line in lines if not _is_sound(line)]
    for damage in ("-- connection lost --", '"twelve"', '"yesterday"'):
        assert any(damage in line for line in broken)
    assert any(not line.endswith("}") and line.startswith("{") for line in broken)


def _is_sound(line: str) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event["amount"], float) and event["paid_at"].startswith("2024-03-01")


def test_the_judge_takes_what_is_right(judge: Judge, tmp_path: Path) -> None:
    found = judge.duckdb(target(judge, tmp_path, ""), "payments")
    assert found.is_right
    assert found.expected == found.found > COUNT / 2


@pytest.mark.parametrize(
    ("harm", "lost", "duplicated"),
    [
        ("DELETE FROM payments WHERE rowid < 3", 3, 0),
        ("INSERT INTO payments SELECT * FROM payments WHERE rowid < 2", 0, 2),
        ("UPDATE payments SET amount = amount + 0.01 WHERE rowid = 0", 1, 1),
        ("DELETE FROM payments WHERE rowid = 0; INSERT INTO payments SELECT * FROM payments LIMIT 1", 1, 1),
    ],
)
def test_the_judge_sees_what_is_lost_doubled_or_wrong(
    judge: Judge, tmp_path: Path, harm: str, lost: int, duplicated: int
) -> None:
    found = judge.duckdb(target(judge, tmp_path, harm), "payments")
    assert (found.lost, found.duplicated) == (lost, duplicated)
    assert not found.is_right


def test_a_demo_that_was_killed_too_seldom_proves_nothing() -> None:
    counts = {"read": 10}
    crash = Crash(1.0, 5, 1, 5, is_in_progress=True)
    verdict = Verdict(1, 2, counts, counts, {}, (crash, crash), 1.0, 1.0)
    assert verdict.is_right
    seldom = replace(verdict, crashes=(crash,))
    assert not seldom.is_right
    assert seldom.as_json()["is_right"] is False
    told = Console(record=True, width=120)
    _show(told, seldom, None)
    assert "less often than 2 times" in told.export_text()


def test_the_judge_compares_a_parquet_data_set_as_well(judge: Judge, tmp_path: Path) -> None:
    file = target(judge, tmp_path, "DELETE FROM payments WHERE rowid = 7")
    (tmp_path / "lake").mkdir()
    with duckdb.connect(str(file)) as connection:
        connection.execute(f"COPY payments TO '{tmp_path}/lake/a.parquet'")
    assert judge.parquet(tmp_path / "lake", "payments").lost == 1


def target(judge: Judge, folder: Path, harm: str) -> Path:
    """A table of what the judge expects, harmed."""
    file = folder / "out.duckdb"
    rows = judge._con.cursor().sql("SELECT * FROM payments").to_arrow_table()  # noqa: F841 - named in the SQL
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE payments AS SELECT * FROM rows")
        connection.execute(harm)
    return file
