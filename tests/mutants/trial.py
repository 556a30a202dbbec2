"""Running suites over a patched copy of src/."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.mutants.protocol_bugs import SUITES, Mutant

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "onefold"
SUITE_SECONDS = 300.0
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


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


def first_failure(source: Path, suites: Iterable[str]) -> str:
    """The first test that fails over this source: "suite: test"; "" when all pass."""
    for suite in suites:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *SUITES[suite]]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"PYTHONPATH": str(source), "HYPOTHESIS_STORAGE_DIRECTORY": str(source.parent / "hypothesis")}
        try:
            run = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SUITE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{suite}: it no longer ends"
        if run.returncode not in (0, 1):
            return f"{suite}: pytest ended with {run.returncode}: {run.stdout[-400:]}"
        if run.returncode == 1:
            found = FAILED.search(run.stdout)
            return f"{suite}: {found[1].rsplit('/', 1)[-1] if found else 'a failure'}"
    return ""
