"""`onefold doctor FLOW`: looks at everything a run uses, and changes nothing."""

from __future__ import annotations

import click
from rich.text import Text

from onefold.cli.command import Chosen, Verb, print_json, results_to, takes_flow
from onefold.cli.exits import Exit
from onefold.engines.embedded.examination import examine
from onefold.protocols import CheckResult

__all__ = ["command"]

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red")}


@click.command("doctor", cls=Verb)
@takes_flow
def command(chosen: Chosen) -> None:
    """Would a run of FLOW succeed? Looks at settings, guarantees, state, disk, sources and sinks; writes nothing.

    Exit code 0: it would, warnings aside; 1: it would fail; 2: there is no such flow; 3: it would be refused, because
    a sink cannot keep its guarantee.
    """
    findings = examine(chosen.plan, chosen.folder)
    code = _code(findings)
    if chosen.as_json:
        found = [_as_json(finding) for finding in findings]
        print_json({"flow": chosen.plan.flow, "exit_code": int(code), "findings": found})
    else:
        for finding in findings:
            results_to().print(_of(finding))
    if code is not Exit.OK:
        raise click.exceptions.Exit(code)


def _code(findings: list[CheckResult]) -> Exit:
    failed = [finding.what for finding in findings if finding.status == "failed"]
    if any(what.startswith("guarantee") for what in failed):
        return Exit.REFUSED
    return Exit.FAILED if failed else Exit.OK


def _as_json(finding: CheckResult) -> dict[str, object]:
    """What is well needs no next step; what is prepared has names."""
    prepared = [str(handle.detail["name"]) for handle in finding.prepared]
    return {**vars(finding), "next_step": "" if finding.status == "ok" else finding.next_step, "prepared": prepared}


def _of(finding: CheckResult) -> Text:
    sign, style = _SIGNS[finding.status]
    text = Text.assemble("  ", (sign, style), f" {finding.what}")
    if finding.found:
        text.append(f": {finding.found}", "" if finding.status != "ok" else "dim")
    if finding.next_step and finding.status != "ok":
        text.append(f"\n      {finding.next_step}", "cyan")
    return text
