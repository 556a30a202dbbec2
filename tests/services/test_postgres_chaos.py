"""Answers of COMMIT, PREPARE TRANSACTION and COMMIT PREPARED are lost, requests come late; nothing is doubled."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from onefold.testing.chaos import PostgresFramer, Proxy, faults_of
from onefold.testing.harness import ForkServer, chosen
from tests.services import postgres_controls as controls
from tests.services.chaos_schedules import Case, Chaos
from tests.services.postgres_flows import LEDGER, PROXIED, TOGETHER

pytestmark = pytest.mark.crash

SUBJECTS = {"ledger": LEDGER, "together": TOGETHER}

AT = {
    "ledger": [("Commit", count) for count in range(1, 12)] + [("Update", count) for count in (1, 3, 6)],
    "together": [(kind, count) for kind in ("PrepareTransaction", "CommitPrepared") for count in range(1, 7)],
}
ACTS = (
    "cut request {at}",
    "cut answer {at}",
    "close answer {at}",
    "delay answer {at} for 1.5s",
    "strand request {at} until request Begin#1",
    "strand request {at} until answer Begin#1",
    "strand request {at} until request Update#2",
    "strand request {at}",
)
"""Late ones come when the next instance opens, when it has opened, within its next transactions, at the end."""

KILLS = ("", "", "kill after postgres.commit#3", "kill before postgres.commit#5")


def every(subject: str) -> list[Case]:
    """Every act on every message, some of them with a process that is killed."""
    kills = itertools.cycle(KILLS)
    faults = [act.format(at=f"{kind}#{count}") for kind, count in AT[subject] for act in ACTS]
    return [Case(subject, faults_of(fault), next(kills)) for fault in faults]


@pytest.fixture(scope="module")
def proxy(database: str) -> Iterator[Proxy]:
    parts = urlsplit(database)
    with Proxy(parts.port or 5432, PostgresFramer) as proxy, pytest.MonkeyPatch.context() as patch:
        who = parts.netloc.rpartition("@")[0]
        way = parts._replace(netloc=f"{who}@{proxy.address}", query="sslmode=disable&gssencmode=disable")
        patch.setenv(PROXIED, way.geturl())
        yield proxy


@pytest.fixture(scope="module")
def forks(proxy: Proxy) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


def play(chaos: Chaos, cases: list[Case]) -> None:
    """All of them, or the one in ONEFOLD_CHAOS_CASE."""
    only = os.environ.get("ONEFOLD_CHAOS_CASE")
    for case in [Case.parse(only)] if only else cases:
        chaos.play(case, SUBJECTS[case.subject])
    print(chaos.text())


@pytest.mark.parametrize("subject", SUBJECTS)
def test_whatever_is_lost_or_late_nothing_is_lost_or_duplicated(
    subject: str, proxy: Proxy, forks: ForkServer, tmp_path: Path, schedules: Callable[[int], int], seed: int
) -> None:
    chaos = Chaos(proxy, forks, tmp_path)
    texts = chosen([str(case) for case in every(subject)], schedules(25), seed=seed)
    play(chaos, [Case.parse(text) for text in texts])
    assert not chaos.failures, chaos.text()
    assert len(chaos.unmet) <= len(chaos.played) / 4, chaos.text()


UNKNOWN = ("ledger: cut answer Commit#5", "ledger: cut answer Commit#7", "ledger: close answer Commit#8")


def test_a_token_that_is_not_compared_is_missed(proxy: Proxy, forks: ForkServer, tmp_path: Path) -> None:
    """An unknown outcome taken for a failure is delivered twice."""
    cases = [Case.parse(text) for text in UNKNOWN]
    chaos = Chaos(proxy, forks, tmp_path / "with")
    play(chaos, cases)
    assert not chaos.failures
    assert not chaos.unmet
    without = Chaos(proxy, forks, tmp_path / "without")
    for case in cases:
        without.play(case, replace(LEDGER, arrange=(controls.unknown_taken_for_failed,)))
    assert without.failures
