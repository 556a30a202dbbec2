"""`onefold demo`, small: killed by its own parent, then judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from onefold.cli.group import main

pytestmark = pytest.mark.crash


def test_the_demo_is_killed_and_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    result = CliRunner().invoke(
        main,
        [
            "demo",
            "--events",
            "20000",
            "--crashes",
            "5",
            "--seed",
            str(seed),
            "--keep",
            str(tmp_path / "demo"),
            "--json",
        ],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["is_right"] is True
    assert verdict["expected"] == verdict["books"]
    assert verdict["expected"]["read"] == 20_000
    assert len(verdict["crashes"]) == 5
    assert all(found["lost"] == found["duplicated"] == 0 < found["found"] for found in verdict["sinks"].values())
    assert (tmp_path / "demo" / "revenue.py").exists()


def test_the_demo_works_in_no_folder_of_someone_else(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    assert CliRunner().invoke(main, ["demo", "--keep", str(tmp_path)]).exit_code == 2
