"""One fork server for each worker, and the count of what was played."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onefold.testing import harness
from onefold.testing.harness import ForkServer
from tests.stage import Count, Stage


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture
def stage(tmp_path: Path, server: ForkServer, schedules: Count, seed: int) -> Stage:
    return Stage(tmp_path, server, schedules, seed)


@pytest.fixture(autouse=True)
def count_of_schedules(
    record_property: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Told at the end of the run. Not counted: untouched runs, and those whose safeguards were taken out."""
    stages: list[harness.Stage] = []
    begin = harness.Stage.__init__

    def counted(self: harness.Stage, *args: Any) -> None:
        begin(self, *args)
        stages.append(self)

    monkeypatch.setattr(harness.Stage, "__init__", counted)
    yield
    played = [stage for stage in stages if stage.result.schedule.lives]
    whole = [stage for stage in played if not any("controls" in one.__module__ for one in stage.subject.arrange)]
    record_property("crash schedules", len(whole))
