"""Nothing is skipped silently."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TIERS
from tests.tidy import house

UNIT = """
import pytest
from tests.needs import need, need_program

def test_runs(seed, schedules):
    assert (seed, schedules(300)) == (7, 5)

def test_without_java():
    need(False, "no Java here")

def test_without_a_program():
    need_program("no-such-program")

@pytest.mark.heavy
def test_large():
    pass
"""

SERVICE = """
from tests.needs import need
need(False, "no server here")
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A small suite with this conftest: one test runs, three things cannot, one is heavy."""
    shutil.copy(house.ROOT / "pyproject.toml", tmp_path)
    for tier, code in {"unit": UNIT, "services": SERVICE}.items():
        (tmp_path / "tests" / tier).mkdir(parents=True)
        (tmp_path / "tests" / tier / "test_it.py").write_text(code)
    for name in ("__init__.py", "needs.py", "conftest.py"):
        shutil.copy(house.ROOT / "tests" / name, tmp_path / "tests")
    return tmp_path


def run(suite: Path, *options: str, require: str = "") -> tuple[int, list[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ONEFOLD_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--seed=7", "--schedules=5", *options]
    done = subprocess.run(
        command,
        cwd=suite,
        env={**environment, "ONEFOLD_REQUIRE": require, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "parallel"])
def test_the_last_lines_name_what_could_not_run(suite: Path, workers: list[str]) -> None:
    status, lines = run(suite, *workers)
    assert status == 0
    assert lines[-7:-5] == ["tests run by tier: unit 1", "left out as heavy, run with --heavy: unit 1"]
    assert lines[-5].strip("= ") == "could not run here"
    assert lines[-4:-1] == [
        "services: test_it.py: no server here",
        "unit: 1 test: no Java here",
        "unit: 1 test: no no-such-program on the PATH",
    ]
    assert "1 passed" in lines[-1]


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "parallel"])
def test_what_is_required_and_cannot_run_is_a_failure(suite: Path, workers: list[str]) -> None:
    status, lines = run(suite, "--continue-on-collection-errors", *workers, require="all")
    assert status != 0
    assert "2 failed, 1 passed, 1 skipped, 1 error" in lines[-1]
    assert any("no server here" in line and "ONEFOLD_REQUIRE=all" in line for line in lines)


def test_a_requirement_that_is_not_known_is_not_ignored(suite: Path) -> None:
    status, _ = run(suite, require="1")
    assert status == pytest.ExitCode.USAGE_ERROR


def test_heavy_tests_run_when_asked_for(suite: Path) -> None:
    _, lines = run(suite, "--heavy")
    assert "2 passed" in lines[-1]
    assert not any("left out as heavy" in line for line in lines)


def test_every_test_file_is_in_a_tier() -> None:
    tests = [module.path.relative_to(house.ROOT / "tests") for module in house.modules("tests")]
    assert [str(path) for path in tests if path.name.startswith("test_") and path.parts[0] not in TIERS] == []
