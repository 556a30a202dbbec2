"""What a reader looks up is there, and is what the code says."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

import pytest

from onefold import errors
from tests.tidy import house

KINDS = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, errors.OnefoldError) and kind.__module__ == errors.__name__
]
GENERATED = runpy.run_path(str(house.ROOT / "docs" / "generate.py"))["PAGES"]


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_the_generated_page_is_current(path: Path) -> None:
    assert path.read_text("utf-8") == GENERATED[path](), "run: python docs/generate.py"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_documented_under_a_code_of_its_own(kind: type[errors.OnefoldError]) -> None:
    assert kind.__doc__, "the docstring is its message"
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", vars(kind).get("code", "")), "a code of its own"
    assert [other for other in KINDS if other.code == kind.code] == [kind]
    assert kind.__name__ in errors.__all__
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__ or "") or kind is errors.OnefoldError
    page = (house.ROOT / "docs/reference/errors.md").read_text("utf-8")
    assert f"\n## {kind.code}\n" in page


@pytest.mark.parametrize("word", house.WORDS)
def test_the_glossary_gives_the_word_one_meaning(word: str) -> None:
    page = (house.ROOT / "docs/explanation/glossary.md").read_text("utf-8")
    meanings = re.findall(rf"^- \*\*{re.escape(word)}\*\*: (.+(?:\n  .+)*)$", page, re.MULTILINE)
    assert len(meanings) == 1
    assert meanings[0].rstrip().endswith(".")


def test_the_changelog_has_a_place_for_what_is_next() -> None:
    page = (house.ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## Unreleased\n\n(- .+\n)", page, re.MULTILINE)


def test_the_licence_is_the_one_that_the_package_names() -> None:
    assert 'license = "Apache-2.0"' in (house.ROOT / "pyproject.toml").read_text("utf-8")
    text = (house.ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(house.ROOT)} -> {target}"
        for page in house.files()
        if page.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists()
    ]
    assert broken == []
