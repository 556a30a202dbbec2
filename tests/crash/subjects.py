"""The flows with their input and judges, as the tests name them."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.testing.harness import Judgement, Subject
from tests.crash import flows, inputs, limits
from tests.crash.oracle import Count

__all__ = ["AT_LEAST_ONCE", "AT_MOST_ONCE", "LEDGERS", "REVENUE", "RUNNING", "SPOOLED", "SUBJECTS", "TOGETHER"]

WEAKER_SINKS = ("parquet", "sqlite", "console")
_MAY_DIFFER = (*WEAKER_SINKS, "topic")


def may_repeat(judgement: Judgement) -> Sequence[str]:
    """At-least-once: repeated rows in its sinks are promised, and nothing else; dead letters stay exactly-once."""
    return _complaints(judgement, repeats=True)


def may_lose(judgement: Judgement) -> Sequence[str]:
    """At-most-once: missing rows in its sinks are promised, and nothing else; dead letters stay exactly-once."""
    return _complaints(judgement, repeats=False)


def _complaints(judgement: Judgement, *, repeats: bool) -> Sequence[str]:
    assert isinstance(judgement, Count)
    complaints = list(judgement.wrong)
    for sink, (lost, surplus, _) in judgement.sinks.items():
        if lost and (repeats or sink not in _MAY_DIFFER):
            complaints.append(f"{sink}: {lost} lost")
        if surplus and (not repeats or sink not in _MAY_DIFFER):
            complaints.append(f"{sink}: {surplus} duplicated")
    return complaints


REVENUE = Subject(build=flows.revenue, arrive=inputs.arrive, judge=flows.judge_revenue)
LEDGERS = Subject(build=flows.ledgers, arrive=inputs.arrive, judge=flows.judge_ledgers)
SPOOLED = Subject(
    build=flows.ledgers, arrive=inputs.arrive, judge=flows.judge_ledgers, arrange=(limits.nothing_inline,)
)
RUNNING = Subject(
    build=flows.running,
    arrive=inputs.arrive,
    judge=flows.judge_running,
    close=True,
    arrange=(limits.nothing_inline,),
)
TOGETHER = Subject(build=flows.together, arrive=inputs.arrive, judge=flows.judge_together)
AT_LEAST_ONCE = Subject(build=flows.at_least_once, arrive=inputs.arrive, judge=flows.judge_weaker, accept=may_repeat)
AT_MOST_ONCE = Subject(build=flows.at_most_once, arrive=inputs.arrive, judge=flows.judge_weaker, accept=may_lose)

SUBJECTS = {"revenue": REVENUE, "ledgers": LEDGERS, "spooled": SPOOLED, "running": RUNNING, "together": TOGETHER}
