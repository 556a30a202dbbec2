"""Tables and a data set that commit together: killed at every durable step, in recovery, by the clock; zombies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from onefold.testing.harness import (
    ForkServer,
    Schedule,
    at_every_step,
    at_random_moments,
    at_two_steps,
    chosen,
    play,
    run_schedules,
    steps_of,
)
from tests.services import postgres_controls as controls
from tests.services.postgres_flows import TOGETHER, rows

pytestmark = pytest.mark.crash

Count = Callable[[int], int]


def test_killed_at_any_durable_step_all_sinks_show_an_epoch_or_none(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = chosen(steps_of(TOGETHER, tmp_path / "untouched", database_server), schedules(40), seed=seed)
    assert {"before postgres.prepare", "after postgres.prepare"} <= {step.partition("#")[0] for step in steps}
    results = run_schedules(TOGETHER, at_every_step(steps), tmp_path, database_server)
    print(results.text())
    assert not results.failures, results.text()


def test_killed_again_inside_recovery_all_sinks_show_an_epoch_or_none(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    steps = steps_of(TOGETHER, tmp_path / "untouched", database_server)
    results = run_schedules(TOGETHER, at_two_steps(schedules(15), steps, seed=seed), tmp_path, database_server)
    print(results.text())
    assert not results.failures, results.text()


def test_killed_at_random_moments_all_sinks_show_an_epoch_or_none(
    tmp_path: Path, database_server: ForkServer, schedules: Count, seed: int
) -> None:
    results = run_schedules(TOGETHER, at_random_moments(schedules(10), 1.0, seed=seed), tmp_path, database_server)
    print(results.text())
    assert not results.failures, results.text()


STEPS = ["before postgres.write", "before postgres.prepare", "after postgres.prepare", "before journal.seal"]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("step", [*STEPS, "before postgres.commit", "after postgres.commit"])
def test_a_zombie_that_wakes_decides_nothing(
    step: str, count: int, tmp_path: Path, database_server: ForkServer
) -> None:
    """Frozen with transactions open or prepared, which its successor finds, and aborts or commits by the journal."""
    results = run_schedules(TOGETHER, [Schedule.parse(f"freeze {step}#{count}")], tmp_path, database_server)
    assert not results.failures, results.text()


@pytest.mark.parametrize("step", ["after postgres.prepare#2", "after journal.seal#2", "after postgres.commit#3"])
def test_a_copied_journal_aborts_nothing_until_it_is_adopted(
    step: str, tmp_path: Path, database_server: ForkServer
) -> None:
    results = run_schedules(TOGETHER, [Schedule.parse(f"fork {step}")], tmp_path, database_server)
    assert not results.failures, results.text()


ABORTED = "kill after postgres.prepare#2 then kill after postgres.prepare#2 then kill before journal.seal#2"


EARLY = (controls.shown_before_the_decision, controls.token_moved_after_the_handle)


@pytest.mark.parametrize("arrange", [(), EARLY], ids=["as it is", "control"])
def test_no_reader_ever_sees_rows_of_an_epoch_that_is_aborted(
    arrange: tuple[Callable[[], None], ...], tmp_path: Path, database_server: ForkServer
) -> None:
    """What is aborted is computed again and draws anew: an event that shows two draws has shown an aborted one."""
    folder, ended = tmp_path / "flow", threading.Event()
    seen: set[tuple[str, str]] = set()
    reading = threading.Thread(target=_read_draws, args=(folder, seen, ended), daemon=True)
    reading.start()
    play(Schedule.parse(ABORTED), replace(TOGETHER, arrange=arrange), folder, database_server)
    ended.set()
    reading.join()
    assert seen
    assert (len(seen) > len({event for event, _ in seen})) == bool(arrange)
    assert arrange or seen <= set(rows(folder, DRAWS))


DRAWS = "SELECT event_id, draw FROM ledger"


def _read_draws(folder: Path, seen: set[tuple[str, str]], ended: threading.Event) -> None:
    while not ended.wait(0.005):
        seen.update((event, draw) for event, draw in rows(folder, DRAWS))


CONTROLS = {
    controls.shown_before_the_decision: [f"kill after postgres.prepare#{count}" for count in (1, 3, 5)],
    controls.token_moved_after_the_handle: [f"kill after postgres.commit#{count}" for count in (1, 3, 5)],
}


@pytest.mark.parametrize("safeguard", CONTROLS, ids=lambda safeguard: safeguard.__name__)
def test_a_safeguard_taken_out_is_missed(
    safeguard: Callable[[], None], tmp_path: Path, database_server: ForkServer
) -> None:
    """Under the same schedules all is right with it."""
    schedules = [Schedule.parse(text) for text in CONTROLS[safeguard]]
    with_it = run_schedules(TOGETHER, schedules, tmp_path / "with", database_server)
    assert not with_it.failures, with_it.text()
    without = replace(TOGETHER, arrange=(safeguard,))
    assert run_schedules(without, schedules, tmp_path / "without", database_server).failures
