"""A flow killed before and after its durable steps, in memory: the same tables as if nothing had happened."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

import onefold as of
from onefold import disk, spool
from onefold.connectors.memory.store import store_named
from onefold.testing.flow_run import FlowRun, SimulatedCrash

START = datetime.fromisoformat("2024-01-01")
SCHEMA = {"event_id": "VARCHAR", "merchant": "VARCHAR", "amount": "BIGINT", "paid_at": "TIMESTAMP"}

# (event, minute): e1, e3 and e4 come again, an epoch or more later; e7 and e9 come more than ten minutes late,
# e7 after what an epoch before it held.
INPUT = (
    ("e1", 0), ("e2", 5), ("e1", 0), ("e3", 20), ("e4", 21), ("e3", 20), ("e5", 45), ("e6", 50), ("e7", 30),
    ("e4", 44), ("e8", 62), ("e9", 49), ("e10", 70), ("e8", 62),
)  # fmt: skip
KEPT = ["e1", "e2", "e3", "e4", "e5", "e6", "e8", "e10"]
LATE = ["e7", "e9"]
SUMS = {("m0", 0): 2 + 4 + 6, ("m1", 0): 1 + 3 + 5, ("m0", 1): 8 + 10, ("m1", 1): 0}


def rows() -> list[dict[str, Any]]:
    return [
        {"event_id": event, "merchant": f"m{int(event[1:]) % 2}", "amount": int(event[1:]), "paid_at": _time(minute)}
        for event, minute in INPUT
    ]


def _time(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def shop(**settings: Any) -> of.Flow:
    flow = of.Flow("shop", **settings)
    payments = flow.read(of.memory("payments"), schema=SCHEMA, event_time="paid_at", lateness="10 minutes")
    kept = payments.dedup("event_id", within="7 days")
    hourly = kept.window("1 hour").group_by("merchant").agg(revenue="sum(amount)")
    kept.append(of.memory("ledger"))
    hourly.upsert(of.memory("hourly"), key=["merchant", "window_start"])
    return flow


class Watched(FlowRun):
    """Dies at one durable step, counted over all names; counts them."""

    def __init__(self, flow: of.Flow, fatal: int = -1) -> None:
        super().__init__(flow.plan, 2)
        self.fatal = fatal
        self.steps: list[str] = []

    def _observe(self, step: str, moment: disk.Moment) -> None:
        if self._is_dead:
            raise SimulatedCrash("dead already")
        self.steps.append(f"{moment} {step}")
        if len(self.steps) == self.fatal:
            self._is_dead = True
            raise SimulatedCrash(f"{moment} {step}")

    def found(self) -> tuple[list[str], dict[Any, int], list[str]]:
        ledger = [row["event_id"] for row in self.rows("ledger")]
        hourly = {(row["merchant"], row["window_start"].hour): int(row["revenue"]) for row in self.rows("hourly")}
        return ledger, hourly, [letter["reason"] for letter in self.dead_letters()]


def expected() -> tuple[list[str], dict[Any, int], list[str]]:
    return KEPT, {key: revenue for key, revenue in SUMS.items() if revenue}, ["late"] * len(LATE)


SETTINGS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "freed at once": {"keep_settled_bytes": 1, "settle_every": 0.001},
}


def play(run: Watched) -> None:
    """Settling and freeing come with time: half a second an epoch."""
    run.feed("payments", rows())
    while True:
        run.clock.advance(0.5)
        crashes = run.crashes_survived
        if not run.step() and run.crashes_survived == crashes:
            break
    run.drain()


@pytest.mark.parametrize("payloads", ["in the journal", "in files"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_killed_at_any_durable_step_nothing_is_lost_or_doubled(
    settings: str, payloads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if payloads == "in files":
        monkeypatch.setattr(spool, "INLINE_BYTES", 0)
    with Watched(shop(**SETTINGS[settings])) as untouched:
        play(untouched)
        steps = untouched.steps
        assert untouched.found() == expected()
    wrong = {}
    for fatal in range(steps.index("before journal.start") + 1, len(steps) + 1, 10):
        with Watched(shop(**SETTINGS[settings]), fatal) as run:
            play(run)
            if run.crashes_survived != 1 or run.found() != expected():
                wrong[f"{fatal} {steps[fatal - 1]}"] = run.found()
    assert wrong == {}


@pytest.mark.parametrize("payloads", ["in the journal", "in files"])
def test_restarted_after_every_epoch_nothing_is_forgotten(payloads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if payloads == "in files":
        monkeypatch.setattr(spool, "INLINE_BYTES", 0)
    with Watched(shop()) as run:
        run.feed("payments", rows())
        for _ in range(len(INPUT) // 2):
            assert run.step()
            run._abandon()
        run.drain()
        assert run.found() == expected()


def test_from_a_snapshot_and_the_deltas_after_it_nothing_is_forgotten() -> None:
    with Watched(shop(snapshot_every_bytes=150, settle_every=0.001)) as run:
        for start in range(0, len(INPUT), 5):  # three epochs to a process: some after its last snapshot
            run.feed("payments", rows()[start : start + 5])
            run.clock.advance(0.5)
            run.drain()
        assert any("snapshot.publish" in step for step in run.steps)
        assert run.found() == expected()


@pytest.mark.parametrize("fault", ["unavailable", "unknown-landed", "unknown-lost"])
def test_a_lost_answer_is_neither_a_loss_nor_a_duplicate(fault: Any) -> None:
    with Watched(shop()) as run:
        run.feed("payments", rows())
        for _ in range(len(INPUT) // 2):
            run.fail_next("ledger", fault)
            run.fail_next("hourly", fault)
            assert run.step()
        run.drain()
        assert run.found() == expected()


def test_a_sink_restored_from_a_backup_is_given_again_what_was_settled() -> None:
    with Watched(shop()) as run:
        run.feed("payments", rows()[:6])
        run.drain()
        store = store_named(run._tables["ledger"].name)
        table, tokens = store.written(), dict(store.tokens)
        run.feed("payments", rows()[6:])
        run.drain()
        store.table, store.tokens = table, tokens
        run.drain()
        assert run.found() == expected()
