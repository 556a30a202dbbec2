"""Tables and a data set that commit together: killed at every durable step, in recovery, by the clock; zombies."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from onefold.testing.harness import Schedule, play
from tests.crash import oracle
from tests.services import postgres_flows
from tests.services.database_systems import BOTH, MYSQL, POSTGRES, System
from tests.stage import Count, Stage

pytestmark = pytest.mark.crash

one_server = pytest.mark.parametrize("system", [POSTGRES, MYSQL], ids=str)
any_servers = pytest.mark.parametrize("system", [POSTGRES, MYSQL, BOTH], ids=str)


@pytest.fixture
def stage(system: System, request: pytest.FixtureRequest, tmp_path: Path, schedules: Count, seed: int) -> Stage:
    part = system.part
    return Stage(tmp_path, request.getfixturevalue(system.forks), lambda usual: schedules(round(usual * part)), seed)


@any_servers
def test_killed_at_any_durable_step_all_sinks_show_an_epoch_or_none(system: System, stage: Stage) -> None:
    steps = stage.steps(system.together)
    assert {f"before {system.steps}.prepare", f"after {system.steps}.prepare"} <= {s.partition("#")[0] for s in steps}
    stage.at_every_step(system.together, 28, steps=steps)


@one_server
def test_killed_again_inside_recovery_all_sinks_show_an_epoch_or_none(system: System, stage: Stage) -> None:
    stage.inside_recovery(system.together, 8)


DECIDING = (
    "kill after {0}.prepare#2 then kill before {0}.abort#1",
    "kill after {0}.prepare#3 then kill after {0}.abort#1 then kill after {0}.prepare#1",
    "kill after journal.seal#2 then kill before {0}.commit#1",
    "kill after journal.seal#2 then kill after {0}.commit#1",
)


@any_servers
def test_killed_while_it_decides_what_was_left_all_sinks_show_an_epoch_or_none(system: System, stage: Stage) -> None:
    schedules = [Schedule.parse(text.format(system.steps)) for text in DECIDING]
    results = stage.play(system.together, schedules)
    assert [len(result.met) for result in results.results] == [len(schedule.lives) for schedule in schedules]


@one_server
def test_killed_at_random_moments_all_sinks_show_an_epoch_or_none(system: System, stage: Stage) -> None:
    stage.at_random_moments(system.together, 6)


STEPS = ["before {}.write", "before {}.prepare", "after {}.prepare", "before journal.seal"]


@pytest.mark.parametrize(
    ("system", "count"),
    [(POSTGRES, 1), (POSTGRES, 4), pytest.param(MYSQL, 1, marks=pytest.mark.heavy), (MYSQL, 4)],
    ids=str,
)
@pytest.mark.parametrize("step", [*STEPS, "before {}.commit", "after {}.commit"])
def test_a_zombie_that_wakes_decides_nothing(step: str, system: System, count: int, stage: Stage) -> None:
    """Frozen with transactions open or prepared, which its successor finds, and aborts or commits by the journal."""
    stage.wake_a_zombie(system.together, f"{step.format(system.steps)}#{count}")


@one_server
@pytest.mark.parametrize("step", ["after {}.prepare#2", "after journal.seal#2", "after {}.commit#3"])
def test_a_copied_journal_aborts_nothing_until_it_is_adopted(step: str, system: System, stage: Stage) -> None:
    stage.play(system.together, [Schedule.parse(f"fork {step.format(system.steps)}")])


ABORTED = "kill after {0}.prepare#2 then kill after {0}.prepare#2 then kill before journal.seal#2"


@any_servers
@pytest.mark.parametrize("is_control", [False, True], ids=["as it is", "control"])
def test_no_reader_ever_sees_rows_of_an_epoch_that_is_aborted(is_control: bool, system: System, stage: Stage) -> None:
    """What is aborted is computed again and draws anew: a draw that the data set does not have in the end, which no
    control touches, was of an aborted one."""
    early = (system.controls.shown_before_the_decision, system.controls.token_moved_after_the_handle)
    subject = replace(system.together, arrange=early if is_control else ())
    folder, ended = stage.folder / "flow", threading.Event()
    seen: dict[str, set[str]] = {place: set() for place in ("ledger", "totals", "data set")}
    reading = threading.Thread(target=_read_draws, args=(system, folder, seen, ended), daemon=True)
    reading.start()
    play(Schedule.parse(ABORTED.format(system.steps)), subject, folder, stage.server)
    ended.set()
    reading.join()
    final = {draw for (draw,) in oracle.parquet_rows(folder / "ledger", ["draw"])}
    assert all(seen.values())
    assert {place: seen[place] <= final for place in seen} == {
        "ledger": not is_control,
        "totals": not (is_control and system is not BOTH),  # there, the control is of the other server alone
        "data set": True,
    }


def _read_draws(system: System, folder: Path, seen: dict[str, set[str]], ended: threading.Event) -> None:
    totals = postgres_flows.rows if system is BOTH else system.flows.rows
    while not ended.wait(0.005):
        seen["ledger"].update(draw for (draw,) in system.flows.rows(folder, "SELECT draw FROM ledger"))
        seen["totals"].update(draw for (draw,) in totals(folder, "SELECT draw FROM totals"))
        seen["data set"].update(draw for (draw,) in oracle.parquet_rows(folder / "ledger", ["draw"]))


@one_server
@pytest.mark.parametrize(
    ("safeguard", "step"), [("shown_before_the_decision", "prepare"), ("token_moved_after_the_handle", "commit")]
)
def test_a_safeguard_taken_out_is_missed(safeguard: str, step: str, system: System, stage: Stage) -> None:
    texts = [f"kill after {system.steps}.{step}#{count}" for count in (1, 4)]
    stage.miss_a_safeguard(system.together, getattr(system.controls, safeguard), texts)
