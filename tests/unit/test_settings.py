"""${NAME}: shown as written, read at run, never in an error text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onefold import settings
from onefold.errors import BuildError, SettingMissing

SECRET = "hunter2-very-secret"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("ONE", "TWO", "PG_URL"):
        monkeypatch.delenv(name, raising=False)
    yield
    settings.forget_env_files()


def test_references_are_replaced_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "a${TWO}$")
    assert settings.resolve("x/${ONE}/$ONE/$/y") == "x/a${TWO}$/$ONE/$/y"


def test_a_doubled_dollar_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "1")
    assert settings.resolve("$${ONE} ${ONE}") == "${ONE} 1"
    assert settings.show("$${ONE} ${ONE}") == "${ONE} ${ONE}"
    assert settings.names_in("$${TWO} ${ONE} ${ONE}") == ("ONE",)


def test_a_missing_setting_is_named_with_its_place() -> None:
    with pytest.raises(SettingMissing) as caught:
        settings.resolve("postgres://${PG_URL}/db", used_in="sink ledger")
    assert "PG_URL" in str(caught.value)
    assert "sink ledger" in str(caught.value)


def test_an_empty_value_is_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "")
    assert settings.resolve("a${ONE}b") == "ab"


@pytest.mark.parametrize("text", ["${", "${}", "${A B}", "${1A}", "${A", "a${A-b}"])
def test_a_broken_reference_is_an_error(text: str) -> None:
    with pytest.raises(BuildError) as caught:
        settings.resolve(text)
    assert not isinstance(caught.value, SettingMissing)


def test_env_files_hold_quotes_comments_and_exports(tmp_path: Path) -> None:
    file = tmp_path / "run.env"
    file.write_text(
        "# a comment\n\nONE=plain # said\nexport TWO='single # ${ONE} \\n'\n"
        'PG_URL="two\\nlines \\"q\\" \\\\ \\$" # after\nEMPTY=\nHASH=a#b\n',
        "utf-8",
    )
    assert settings.load_env_file(file) == ("ONE", "TWO", "PG_URL", "EMPTY", "HASH")
    assert settings.resolve("${ONE}|${TWO}|${EMPTY}|${HASH}") == "plain|single # ${ONE} \\n||a#b"
    assert settings.resolve("${PG_URL}") == 'two\nlines "q" \\ $'


def test_the_environment_wins_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.env"
    file.write_text("ONE=file\n", "utf-8")
    settings.load_env_file(str(file))
    monkeypatch.setenv("ONE", "environment")
    assert settings.resolve("${ONE}") == "environment"


@pytest.mark.parametrize("line", [SECRET, f"A B={SECRET}", f"ONE='{SECRET}", f'ONE="{SECRET}" x', f'ONE="{SECRET}\\"'])
def test_a_wrong_line_is_named_by_number_and_never_shown(tmp_path: Path, line: str) -> None:
    file = tmp_path / "run.env"
    file.write_text(f"TWO=2\n{line}\n", "utf-8")
    with pytest.raises(BuildError) as caught:
        settings.load_env_file(file)
    assert "line 2" in str(caught.value)
    assert SECRET not in str(caught.value)
    with pytest.raises(SettingMissing):
        settings.resolve("${TWO}")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be read"):
        settings.load_env_file(tmp_path / "none.env")
