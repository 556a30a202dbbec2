"""Options of the suite, and the account of what did not run.

No test is skipped silently: the last lines of a run name every tier and reason, and ONEFOLD_REQUIRE=all turns each
into a failure. Heavy tests are left out unless --heavy asks for them; the last lines say so, and it is no failure.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import hypothesis
import pytest

TIERS = ("tidy", "unit", "contract", "property", "crash", "mutants", "services", "docs")
HEAVY = "heavy: run it with --heavy"
DEFAULT_SEED = 1

# One run is like the next; `--hypothesis-profile=explore` looks further and prints the seed of what it finds.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("onefold")
    group.addoption("--heavy", action="store_true", help="run the tests that take minutes as well")
    group.addoption("--schedules", type=int, metavar="N", help="how many schedules crash tests and simulations try")
    group.addoption("--seed", type=int, default=DEFAULT_SEED, metavar="S", help="where random schedules start")


def pytest_report_header(config: pytest.Config) -> str:
    wanted = config.getoption("--schedules") or "as each test says"
    return f"onefold: --seed {config.getoption('--seed')}, schedules {wanted}"


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The seed that all randomness of a test starts from."""
    return int(pytestconfig.getoption("--seed"))


@pytest.fixture(scope="session")
def schedules(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """How many schedules to try: `schedules(300)` is 300 unless --schedules says otherwise."""
    return lambda usual: int(pytestconfig.getoption("--schedules") or usual)


# ------------------------------------------------------------------------------------------------ what does not run


def pytest_configure() -> None:
    if os.environ.get("ONEFOLD_REQUIRE", "") not in ("", "all"):
        raise pytest.UsageError("ONEFOLD_REQUIRE is `all`, or not set: what cannot run is a failure, or is only named.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("heavy"):
            asked = config.getoption("--heavy")
            item.add_marker(pytest.mark.timeout(0) if asked else pytest.mark.skip(reason=HEAVY))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse_skip((yield))


def _refuse_skip(report: Any) -> Any:
    required = os.environ.get("ONEFOLD_REQUIRE") == "all"
    if required and report.skipped and not hasattr(report, "wasxfail") and _reason(report) != HEAVY:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: could not run ({_reason(report)}), and ONEFOLD_REQUIRE=all"
    return report


def _reason(report: Any) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _tier(report: Any) -> str:
    parts = report.nodeid.replace("\\", "/").split("/")
    return next((part for part in parts if part in TIERS), "other")


def _what(report: Any) -> str:
    return report.nodeid.rsplit("/", 1)[-1] if isinstance(report, pytest.CollectReport) else "tests"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    yield  # everything else first: these are the last lines but pytest's own
    stats = terminalreporter.stats
    skipped = stats.get("skipped", [])
    missing = Counter((_tier(report), _reason(report), _what(report)) for report in skipped if _reason(report) != HEAVY)
    heavy = Counter(_tier(report) for report in skipped if _reason(report) == HEAVY)
    ran = Counter(_tier(report) for outcome in ("passed", "failed") for report in stats.get(outcome, []))
    played: Counter[str] = Counter()
    for report in (report for reports in stats.values() for report in reports):
        if getattr(report, "when", "") == "teardown":
            played.update({name: value for name, value in report.user_properties if name.endswith("schedules")})
    if played:
        terminalreporter.write_line(", ".join(f"{name} {played[name]:,}" for name in sorted(played)))
    if ran:
        counts = ", ".join(f"{tier} {ran[tier]}" for tier in (*TIERS, "other") if ran[tier])
        terminalreporter.write_line(f"tests run by tier: {counts}")
    if heavy:
        counts = ", ".join(f"{tier} {count}" for tier, count in sorted(heavy.items()))
        terminalreporter.write_line(f"left out as heavy, run with --heavy: {counts}", yellow=True)
    if missing:
        terminalreporter.section("could not run here", yellow=True)
    for (tier, reason, what), count in sorted(missing.items()):
        subject = what if what != "tests" else f"{count} test{'s' * (count > 1)}"
        terminalreporter.write_line(f"{tier}: {subject}: {reason}", yellow=True)
