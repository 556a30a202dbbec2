"""The code in the pages runs, and prints what they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.settings import forget_env_files
from tests.docs.pages import ROOT, Reader, first_missing, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONEFOLD_STATE", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    try:
        Reader(tmp_path).read(page)
    finally:
        forget_env_files()


def test_the_first_page_that_people_see_is_among_them() -> None:
    assert ROOT / "README.md" in pages()


def test_a_wrong_page_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path)
    for wrong in (
        "```console\n$ echo one\ntwo\n```\n",
        "```console\n$ exit 1\n```\n",
        "```console\n$ onefold status nothing.py\n```\n",
        "```python\n>>> 1 + 1\n3\n\n```\n",
        "```python\nraise AssertionError\n```\n",
        "```bash\ntrue\n```\n",
    ):
        page = ROOT / "docs" / "none.md"
        with pytest.raises(AssertionError):
            reader.read(_Text(page, wrong))


class _Text(type(Path())):  # type: ignore[misc]
    """A page that is nowhere on the disk."""

    def __new__(cls, path: Path, text: str) -> _Text:
        page = super().__new__(cls, path)
        page.text = text
        return page

    def __init__(self, path: Path, text: str) -> None:
        if hasattr(Path, "with_segments"):  # Python 3.12 takes the arguments here
            super().__init__(path)

    def read_text(self, *_: object) -> str:
        return self.text


def test_lines_are_looked_for_in_order() -> None:
    assert first_missing(["a", "…", "b 1…"], "x\na\ny\n b   12\n") is None
    assert first_missing(["b", "a"], "a\nb\n") == "a"
