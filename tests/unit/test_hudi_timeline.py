"""A reader of a Hudi table passes over no instant, whenever it completes. The timeline is that of a table on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onefold.connectors.hudi.folder import Folder
from onefold.connectors.hudi.timeline import History, pending, step_after

FIRST, SECOND, THIRD = "20260101000000001", "20260101000000002", "20260101000000003"


@dataclass
class Told:
    """What hudi-rs tells: the completed instants at the moment when it is asked."""

    folder: Path
    before: Any = None
    then: Any = None

    def get_timeline(self) -> Told:
        return self

    def get_completed_commits(self) -> list[Any]:
        if self.before:
            self.before()
        place = self.folder / ".hoodie" / "timeline"
        found = sorted(path.name.partition("_")[0] for path in place.glob("*_*.commit"))
        if self.then:
            self.then()
        return [SimpleNamespace(timestamp=name) for name in found]

    def get_completed_replacecommits(self) -> list[Any]:
        return []

    def get_instant_metadata_in_json(self, instant: Any) -> str:
        return '{"partitionToWriteStats": {}, "operationType": "INSERT"}'


def request(folder: Path, instant: str) -> None:
    place = folder / ".hoodie" / "timeline"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{instant}.commit.requested").touch()
    (place / f"{instant}.inflight").touch()


def complete(folder: Path, instant: str) -> None:
    (folder / ".hoodie" / "timeline" / f"{instant}_{instant}.commit").touch()


def test_nothing_is_read_past_an_instant_that_is_under_way(tmp_path: Path) -> None:
    for instant in (FIRST, SECOND, THIRD):
        request(tmp_path, instant)
    complete(tmp_path, FIRST)
    complete(tmp_path, THIRD)
    history = History(Told(tmp_path), Folder(tmp_path), "t")
    assert history.names == [FIRST]
    assert step_after(history, {"done": FIRST}, None) is None
    complete(tmp_path, SECOND)
    assert History(Told(tmp_path), Folder(tmp_path), "t").names == [FIRST, SECOND, THIRD]


def test_an_instant_that_completes_while_the_timeline_is_looked_at_is_not_passed_over(tmp_path: Path) -> None:
    for instant in (FIRST, SECOND, THIRD):
        request(tmp_path, instant)
    complete(tmp_path, FIRST)
    complete(tmp_path, THIRD)
    told = Told(tmp_path, then=lambda: complete(tmp_path, SECOND))
    assert History(told, Folder(tmp_path), "t").names == [FIRST]


def test_two_writers_that_begin_while_the_timeline_is_looked_at_are_not_passed_over(tmp_path: Path) -> None:
    """The later one completes before the other, which is known by its request alone."""
    request(tmp_path, FIRST)
    complete(tmp_path, FIRST)

    def begin() -> None:
        request(tmp_path, SECOND)
        request(tmp_path, THIRD)
        complete(tmp_path, THIRD)

    told = Told(tmp_path, before=begin, then=lambda: complete(tmp_path, SECOND))
    assert History(told, Folder(tmp_path), "t").names == [FIRST]


@pytest.mark.parametrize("name", [f"{SECOND}.clean.requested", f"{SECOND}.rollback.inflight", "hoodie.properties"])
def test_what_writes_no_rows_holds_nobody_up(name: str, tmp_path: Path) -> None:
    request(tmp_path, FIRST)
    (tmp_path / ".hoodie" / "timeline" / name).touch()
    assert pending(Folder(tmp_path), {FIRST}) is None


def test_tables_of_older_versions_have_their_timeline_elsewhere(tmp_path: Path) -> None:
    (tmp_path / ".hoodie").mkdir()
    (tmp_path / ".hoodie" / f"{FIRST}.commit.requested").touch()
    (tmp_path / ".hoodie" / f"{FIRST}.commit").touch()
    (tmp_path / ".hoodie" / f"{SECOND}.commit.requested").touch()
    assert pending(Folder(tmp_path), {FIRST}) == SECOND
