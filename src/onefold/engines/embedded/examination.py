"""Would a run succeed? Everything that a run uses is looked at; nothing is made, opened for writing, or fenced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from onefold.engines.embedded.identity import check_plan, sink_entries
from onefold.engines.embedded.outputs import all_outputs, binding_of
from onefold.engines.embedded.status import history_of, is_decided, running_process
from onefold.engines.embedded.undecided import Undecided
from onefold.errors import OnefoldError, SettingMissing
from onefold.guarantee.declared import explain
from onefold.journal import JOURNAL_FILE
from onefold.plan import Plan
from onefold.protocols import Check, CheckResult
from onefold.settings import names_in, resolve
from onefold.types import Binding, Incarnation

__all__ = ["demand_settings", "examine", "who_works"]

Standing = Literal["ok", "warning", "failed"]

LITTLE_BYTES = 1 << 30
TOO_LITTLE_BYTES = 64 << 20


def examine(plan: Plan, folder: Path) -> list[CheckResult]:
    """Findings in the order in which a run would meet them. Never raises for an operating error."""
    settings = list(_settings(plan))
    if any(finding.status == "failed" for finding in settings):  # without its settings a part cannot be looked at
        return [*settings, *_disk(folder)]
    return [*settings, *_guarantees(plan), *_state(plan, folder), *_disk(folder), *_parts(plan, folder)]


def demand_settings(plan: Plan) -> None:
    """Raise SettingMissing for the first ${NAME} of the plan without a value, before anything is opened."""
    for label in _labels(plan):
        resolve(label)


def _labels(plan: Plan) -> list[str]:
    return [read.label for read in plan.reads()] + [output.label for output in plan.outputs]


def _settings(plan: Plan) -> Iterator[CheckResult]:
    for name in dict.fromkeys(name for label in _labels(plan) for name in names_in(label)):
        try:
            resolve(f"${{{name}}}")
        except SettingMissing as error:
            yield CheckResult(f"setting {name}", "failed", "it has no value", error.next_step)
        else:
            yield CheckResult(f"setting {name}", "ok", "it has a value")


def _guarantees(plan: Plan) -> Iterator[CheckResult]:
    for verdict in explain(plan).verdicts:
        status: Standing = "ok" if verdict.is_kept else "failed"
        found = f"{verdict.kept}, because {verdict.reason}"
        step = f'Say guarantee="{verdict.kept}" for this sink, or choose another.'
        yield CheckResult(f"guarantee of {verdict.sink}", status, found, step)


def _state(plan: Plan, folder: Path) -> Iterator[CheckResult]:
    what = f"state in {folder}"
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield CheckResult(what, "failed", f"{existing} cannot be written", "Choose another folder with --state.")
    elif not (folder / JOURNAL_FILE).exists():
        yield CheckResult(what, "ok", "it will be made; the flow has not run yet")
    else:
        yield _journal(plan, folder, what)
    running = running_process(folder)
    if running is not None:
        found = f"process {running.get('pid')} on {running.get('host')} runs this flow"
        yield CheckResult(what, "warning", found, "A second run would be refused until that one ends.")


def _journal(plan: Plan, folder: Path, what: str) -> CheckResult:
    try:
        history, _ = history_of(plan.flow, folder)
        if history.start is not None:
            check_plan(history.start, plan)
        undecided = Undecided(folder)
        history.undecided = undecided.file if undecided.is_marked else None
        sink_entries(history, all_outputs(plan, folder))
    except OnefoldError as error:
        found = f"{error.summary} {error.found or ''}".strip()
        return CheckResult(what, "failed", found, error.next_step)
    return CheckResult(what, "ok", f"epoch {history.head} is sealed, {history.settled} is settled")


def _disk(folder: Path) -> Iterator[CheckResult]:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / (1 << 30):,.1f} GiB free"
    status: Standing = "failed" if free < TOO_LITTLE_BYTES else "warning" if free < LITTLE_BYTES else "ok"
    yield CheckResult("disk of the state", status, found, "Free some room: the journal and undelivered rows need it.")


def _parts(plan: Plan, folder: Path) -> Iterator[CheckResult]:
    for read in plan.reads():
        yield from _checked(f"source {read.name}", read.source, read.label)
    who = who_works(plan, folder)
    for output in plan.outputs:
        binding = binding_of(output, plan, spool=None, **who)
        found = _checked(f"sink {output.name}", output.sink, output.label, binding)
        yield from _told_apart(found, plan, folder)


def who_works(plan: Plan, folder: Path) -> dict[str, Any]:
    """Journal and incarnation; of a flow that has not run, or whose journal cannot be read, nobody's."""
    try:
        history, journal = history_of(plan.flow, folder)
    except OnefoldError:
        return {"journal": "", "incarnation": Incarnation(0)}
    return {"journal": journal, "incarnation": history.incarnation}


def _checked(what: str, part: object, label: str, binding: Binding | None = None) -> Iterator[CheckResult]:
    if not isinstance(part, Check):
        yield CheckResult(what, "ok", f"{label} has nothing to look at before it is opened")
        return
    for finding in part.check(binding):
        yield replace(finding, what=f"{what}: {finding.what}")


def _told_apart(findings: Iterator[CheckResult], plan: Plan, folder: Path) -> Iterator[CheckResult]:
    """Of what is prepared: what the journal has decided, and what it has not."""
    for finding in findings:
        if not finding.prepared:
            yield finding
            continue
        try:
            history, journal = history_of(plan.flow, folder)
        except OnefoldError:
            yield finding
            continue
        for word, wanted in (("decided, to be committed", True), ("undecided", False)):
            some = tuple(each for each in finding.prepared if is_decided(each, history, journal) is wanted)
            names = "; ".join(str(each.detail["name"]) for each in some)
            if some:
                yield replace(finding, found=f"{word}: {names}", prepared=some)
