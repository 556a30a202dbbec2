"""python -m spec: search the scenarios and print the shortest counter-example where there is one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spec.model import Setting
from spec.narrate import narrate
from spec.replay import check, written
from spec.safeguards import without
from spec.scenarios import SCENARIOS, recordable, scenario
from spec.search import Searched, search

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when no counter-example was found (or the trace is allowed), 1 otherwise, 2 for wrong arguments."""
    asked = _parser().parse_args(arguments)
    if asked.trace:
        wrong = check(asked.trace.read_text().splitlines())
        sys.stdout.write(f"{asked.trace}: {wrong or 'a path that the model allows'}\n")
        return 1 if wrong else 0
    found_any = False
    for name in asked.scenario or SCENARIOS:
        try:
            setting = Setting(scenario(name, is_deep=asked.deep), without(*asked.without))
        except KeyError as error:
            sys.stderr.write(f"{error.args[0]}\n")
            return 2
        if asked.trace_out:
            setting = setting._replace(scenario=recordable(setting.scenario))
        found = search(setting, keep_last=bool(asked.trace_out))
        sys.stdout.write(_report(name, found))
        sys.stdout.flush()
        found_any = found_any or found.finding is not None
        if asked.trace_out:
            asked.trace_out.write_text("\n".join(written(setting, found.longest)) + "\n")
    return 1 if found_any else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spec", description=__doc__)
    parser.add_argument("--scenario", action="append", metavar="NAME", help=f"one of {', '.join(SCENARIOS)}")
    parser.add_argument("--without", action="append", default=[], metavar="SAFEGUARD", help="remove a safeguard")
    parser.add_argument("--deep", action="store_true", help="larger bounds: minutes and gigabytes")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="check a recorded run of the engine")
    parser.add_argument(
        "--trace-out", type=Path, metavar="FILE", help="write one of the longest runs, without zombies, as a trace"
    )
    return parser


def _report(name: str, found: Searched) -> str:
    text = f"{name:20} {found.states:8} states {found.steps:8} steps, depth {found.depth:3}, {found.seconds:6.1f} s"
    if found.finding is None:
        return f"{text}  holds\n"
    lines = [f"{text}  FAILS: {found.finding.wrong}", *_numbered(narrate(found.finding.schedule))]
    if found.finding.recovery:
        lines += ["  then everything is killed, and one process without faults:"]
        lines += _numbered(narrate(found.finding.recovery))
    return "\n".join(lines) + "\n"


def _numbered(lines: list[str]) -> list[str]:
    return [f"  {number:3} {line}" for number, line in enumerate(lines, 1)]


if __name__ == "__main__":
    sys.exit(main())
