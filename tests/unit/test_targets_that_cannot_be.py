"""A target that no later try can make good ends a run with an error that says so; it is not waited for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.errors import SinkRefused

TARGETS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "duckdb, no folder": (lambda at: of.duckdb(f"{at}/none/x.db").table("t"), "there is no folder"),
    "duckdb, a text file": (lambda at: of.duckdb(f"{at}/text").table("t"), "is no database of this kind"),
    "duckdb, a folder": (lambda at: of.duckdb(f"{at}/folder").table("t"), "is a folder"),
    "sqlite, no folder": (lambda at: of.sqlite(f"{at}/none/x.db").table("t"), "there is no folder"),
    "sqlite, a text file": (lambda at: of.sqlite(f"{at}/text").table("t"), "is no database of this kind"),
    "sqlite, a folder": (lambda at: of.sqlite(f"{at}/folder").table("t"), "is a folder"),
    "files, a text file": (lambda at: of.files(f"{at}/text", format="parquet"), "Not a directory"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_target_that_can_never_be_written_ends_the_run(case: str, tmp_path: Path) -> None:
    make, told = TARGETS[case]
    (tmp_path / "text").write_text("This is text, and not what the sink keeps.\n" * 100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "in.json").write_text('{"id": 1}\n')
    flow = of.Flow("hopeless")
    flow.read(of.files(str(tmp_path / "in.json")), schema={"id": "BIGINT"}).append(make(tmp_path))
    with pytest.raises(SinkRefused, match=told) as caught:
        flow.run(until="drained", state=tmp_path / "state")
    assert "run again" in caught.value.next_step
