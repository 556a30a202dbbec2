"""What the repository holds: nothing that is fetched or made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.needs import need_program
from tests.tidy import house

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_that_is_ignored_is_kept() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    kept = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not kept, "git rm --cached them"


SOURCES = [path for path in house.files() if path.suffix in (".pyx", ".pxd", ".h")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_change_of_what_is_compiled_is_compiled_by_the_next_make(source: Path, tmp_path: Path) -> None:
    need_program("make")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / ".runs").touch()
    command = ["make", "--question", f"VENV={tmp_path}", f"{tmp_path}/.runs"]
    changed = [*command, f"--what-if={source.relative_to(house.ROOT)}"]
    assert [subprocess.run(one, cwd=house.ROOT, check=False).returncode for one in (command, changed)] == [0, 1]
