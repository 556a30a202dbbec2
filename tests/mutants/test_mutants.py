"""Seeded bugs of the protocol: each must fail a test of the ordinary suites."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.engine_bugs import BUGS
from tests.mutants.protocol_bugs import CHAIN, CORE, COURSE, IDENTITY, SUITES, Mutant
from tests.mutants.sink_bugs import SINKS
from tests.mutants.trial import PACKAGE, alone, first_failure, patched, run

MUTANTS = (*CORE, *COURSE, *CHAIN, *IDENTITY, *BUGS, *SINKS)

ALWAYS = (
    "an epoch is delivered before its seal is durable",
    "the cursor is advanced before the acknowledgement",
    "no answer is taken for an acknowledgement",
    "seal ids are not compared",
    "handles that a seal waits for are aborted",
    "an attempt is tried again after a restart",
    "the state's delta is not in the seal",
    "the watermark is not restored",
    "the journal is not synced",
    "the folder is not synced after a rename",
    "a taken number is taken again",
    "memory: the token is not written",
    "DuckDB: the token is moved in a second transaction",
    "SQLite: the token is not written",
    "files: files get their names before the entry",
    "epochs that were sealed and not settled are cut again",
    "a snapshot is named after the next epoch",
    "a key that was seen is not in the delta",
    "payloads are freed when they are settled",
    "settled when the fastest sink has it",
)
"""Tried in every run; the others with --heavy."""


def cases() -> list[object]:
    return [
        pytest.param(mutant, id=mutant.name, marks=() if mutant.name in ALWAYS else pytest.mark.heavy)
        for mutant in MUTANTS
    ]


def test_names_are_unique_and_those_always_tried_exist() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names))
    assert set(ALWAYS) <= set(names)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_still_fits_the_source(mutant: Mutant) -> None:
    text = (PACKAGE / mutant.file).read_text("utf-8")
    assert [text.count(old) for old, _ in mutant.edits] == [1] * len(mutant.edits)
    for old, new in mutant.edits:
        text = text.replace(old, new)
    compile(text, mutant.file, "exec")


def test_suites_see_the_copy_and_not_the_original(tmp_path: Path) -> None:
    source = patched(tmp_path, None)
    code = "import onefold, onefold.kernel.index as index; print(onefold.__file__, index.__file__)"
    imported = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    assert all(path.startswith(str(source)) for path in imported.stdout.split())


@pytest.mark.heavy
@pytest.mark.parametrize("suite", SUITES)
def test_without_a_bug_the_suite_passes(suite: str, tmp_path: Path) -> None:
    assert first_failure(patched(tmp_path, None), [suite]) is None


@pytest.mark.parametrize("mutant", cases())
def test_the_bug_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    others = [suite for suite in SUITES if suite not in mutant.suites]
    killer = first_failure(patched(tmp_path / "bug", mutant), [*mutant.suites, *others])
    print(f"{mutant.name} | {': '.join(killer) if killer else 'NOT CAUGHT'}")
    assert killer is not None, f"no suite sees it: {mutant.name}"
    assert run(patched(tmp_path / "none", None), alone(*killer)) is None, f"{killer} fails without the bug as well"
