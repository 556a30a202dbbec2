"""Running suites over a patched copy of src/."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.mutants.protocol_bugs import SUITES, Mutant

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "onefold"
SUITE_SECONDS = 300.0
FAILED = re.compile(r"^FAILED (.+?)(?: - .*)?$", re.MULTILINE)


def patched(folder: Path, mutant: Mutant | None) -> Path:
    """A copy of src/ with the bug in it; compiled files stay good, since times are kept."""
    copy = folder / "src"
    shutil.copytree(PACKAGE, copy / "onefold", copy_function=shutil.copy2)
    if mutant is not None:
        file = copy / "onefold" / mutant.file
        text = file.read_text("utf-8")
        for old, new in mutant.edits:
            text = text.replace(old, new)
        file.write_text(text, "utf-8")
    return copy


def first_failure(source: Path, suites: Iterable[str]) -> tuple[str, str] | None:
    """The first (suite, test) that fails over this source; None when all pass."""
    for suite in suites:
        failed = run(source, SUITES[suite])
        if failed is not None:
            return suite, failed
    return None


def run(source: Path, arguments: Sequence[str]) -> str | None:
    """The first test that fails, as pytest names it; None when all pass. Raises when the tests cannot be run at all."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(source), "HYPOTHESIS_STORAGE_DIRECTORY": str(source.parent / "hypothesis")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SUITE_SECONDS, check=False
    )
    if done.returncode == 0:
        return None
    found = FAILED.search(done.stdout)
    if done.returncode != 1 or found is None:
        raise RuntimeError(f"pytest {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return found[1]


def alone(suite: str, test: str) -> tuple[str, ...]:
    """Arguments for that test only, as its suite runs it."""
    arguments = SUITES[suite]
    schedules = arguments.index("--schedules") if "--schedules" in arguments else len(arguments)
    return (test, *arguments[schedules : schedules + 2])
