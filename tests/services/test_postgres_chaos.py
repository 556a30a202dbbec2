"""Answers of COMMIT, PREPARE TRANSACTION and COMMIT PREPARED are lost, requests come late; nothing is doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from onefold.testing.chaos import PostgresFramer, Proxy
from onefold.testing.harness import ForkServer, chosen
from tests.services import postgres_controls as controls
from tests.services.chaos_schedules import Case, Chaos
from tests.services.database_chaos import every, play
from tests.services.postgres_flows import LEDGER, PLAIN, PROXIED, TOGETHER

pytestmark = pytest.mark.crash

SUBJECTS = {"ledger": LEDGER, "together": TOGETHER}

AT = {
    "ledger": [("Commit", count) for count in range(1, 12)] + [("Update", count) for count in (1, 3, 6)],
    "together": [(kind, count) for kind in ("PrepareTransaction", "CommitPrepared") for count in range(1, 5)],
}
KILLS = ("", "", "kill after postgres.commit#3", "kill before postgres.commit#4")


def every_case(subject: str) -> list[Case]:
    return every(subject, AT[subject], KILLS, begin="Begin")


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


@pytest.mark.parametrize("subject", SUBJECTS)
def test_whatever_is_lost_or_late_nothing_is_lost_or_duplicated(
    subject: str, proxy: Proxy, forks: ForkServer, tmp_path: Path, schedules: Callable[[int], int], seed: int
) -> None:
    chaos = Chaos(proxy, forks, tmp_path)
    texts = chosen([str(case) for case in every_case(subject)], schedules(16), seed=seed)
    play(chaos, [Case.parse(text) for text in texts], SUBJECTS)
    assert not chaos.failures, chaos.text()
    assert len(chaos.unmet) <= len(chaos.played) / 4, chaos.text()


UNKNOWN = tuple(f"plain: {act} answer Commit#{count}" for count in (3, 4, 5) for act in ("cut", "close"))


def test_a_token_that_is_not_compared_is_missed(proxy: Proxy, forks: ForkServer, tmp_path: Path) -> None:
    """An unknown outcome taken for a failure is delivered twice."""
    cases = [Case.parse(text) for text in UNKNOWN]
    chaos = Chaos(proxy, forks, tmp_path / "with")
    play(chaos, cases, {"plain": PLAIN})
    assert not chaos.failures
    assert not chaos.unmet
    without = Chaos(proxy, forks, tmp_path / "without")
    for case in cases:
        without.play(case, replace(PLAIN, arrange=(controls.unknown_taken_for_failed,)))
    assert without.failures, "of several commits, not all of the token alone, one is repeated"
