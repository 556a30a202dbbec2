"""docs/reference/flow.md names every public verb and setting, and its examples hold."""

from __future__ import annotations

import doctest
from dataclasses import fields
from pathlib import Path

import pytest

import onefold as of
from onefold.flow import Grouped, Windowed
from onefold.plan import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "flow.md"


@pytest.mark.parametrize("kind", [of.Flow, of.Stream, Windowed, Grouped])
def test_every_public_verb_has_an_entry(kind: type) -> None:
    page = PAGE.read_text("utf-8")
    verbs = [name for name in vars(kind) if not name.startswith("_")]
    assert verbs
    assert [name for name in verbs if f"### `{kind.__name__.lower()}.{name}" not in page] == []


def test_every_setting_has_a_line() -> None:
    page = PAGE.read_text("utf-8")
    assert [field.name for field in fields(Settings) if f"| `{field.name}` |" not in page] == []


def test_the_examples_hold() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted >= 6
    assert result.failed == 0
