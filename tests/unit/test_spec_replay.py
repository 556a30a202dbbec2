"""Recorded runs are compared with the model: runs it can make are allowed, others are refused at the right line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from spec.__main__ import main
from spec.journal import Label
from spec.model import Setting
from spec.replay import check
from spec.safeguards import MUTANTS, Safeguards, without
from spec.scenarios import scenario
from spec.search import search
from spec.trace import follow, written
from spec.world import first_world, moves

ONE_MACHINE = (
    "crash", "empty", "failed-seal", "sink-added", "least", "most", "mixed", "together", "together-empty",
    "together-lake",
)  # fmt: skip
VISIBLE = (
    "seal_before_delivery", "never_recut_epoch", "unknown_is_not_done",
    "settle_after_all_tokens", "failed_seal_is_fatal", "outcome_recorded", "attempt_before_try", "one_try",
    "attempt_abandoned", "range_never_recut", "losses_counted", "seal_after_all_prepared", "abort_unsealed_only",
)  # fmt: skip
SEAL_1, SEAL_2 = "a1" * 16, "b2" * 16


def walk(setting: Setting, choose: random.Random) -> list[Label]:
    """A random run."""
    world, schedule = first_world(setting), []
    while steps := [step for step in moves(setting, world)]:  # noqa: C416
        label, world = choose.choice(steps)
        schedule.append(label)
    return schedule


def killed_only(name: str) -> Setting:
    return Setting(scenario(name, is_deep=True)._replace(zombies=False), Safeguards())


@pytest.mark.parametrize("name", ONE_MACHINE)
def test_random_runs_of_the_model_are_allowed(name: str) -> None:
    setting = killed_only(name)
    for seed in range(100):
        lines = written(setting, walk(setting, random.Random(seed)))
        assert check(lines) is None, f"seed {seed}\n" + "\n".join(lines)


@pytest.mark.parametrize("name", VISIBLE)
def test_the_run_of_a_mutant_is_refused(name: str) -> None:
    bounds = scenario(MUTANTS[name].scenario)._replace(zombies=False)
    mutant = Setting(bounds, without(name))
    found = search(mutant).finding
    assert found is not None
    lines = written(mutant, found.schedule)
    if found.recovery:
        calm = written(mutant, found.schedule + restarted(mutant, found.schedule))
        lines = calm if check(lines) is None else lines
    assert check(lines) is not None, "\n".join(lines)


def restarted(setting: Setting, schedule: list[Label]) -> list[Label]:
    """One more process that runs calmly to its end."""
    world = list(follow(setting, schedule))[-1][2]
    more: list[Label] = []
    p = len(world.procs)
    steps = [step for step in moves(setting, world) if step[0][0] == "restart"]
    while steps:
        label, world = steps[0]
        more.append(label)
        steps = [
            step for step in moves(setting, world) if len(step[0]) > 1 and step[0][1] == p and step[0][0] != "lands"
        ]
    return more


def start(number: int) -> dict[str, Any]:
    return {"do": "append", "kind": "start", "number": number}


def seal(number: int, epoch: int, seal_id: str, previous: str, **more: Any) -> dict[str, Any]:
    fields = {"epoch": epoch, "seal": seal_id, "previous": previous, "rows": {"ledger": 3}}
    return {"do": "append", "kind": "seal", "number": number, **fields, **more}


def opened(token: list[Any] | None) -> dict[str, Any]:
    return {"do": "open", "sink": "ledger", "token": token}


def commit(first: int, last: int, expected: list[Any] | None, new: list[Any], result: str = "ok") -> dict[str, Any]:
    move = {"expected": expected, "new": new, "result": result}
    return {"do": "commit", "sink": "ledger", "first": first, "last": last, **move}


GOOD = [
    start(1),
    opened(None),
    seal(2, 1, SEAL_1, "journal"),
    seal(3, 2, SEAL_2, SEAL_1),
    commit(1, 1, None, [1, SEAL_1]),
    commit(2, 2, [1, SEAL_1], [2, SEAL_2]),
    {"do": "append", "kind": "settle", "number": 4, "epoch": 2},
    {"do": "drained"},
]


def test_a_plain_run_is_allowed() -> None:
    assert check(GOOD) is None
    assert check([json.dumps(line) for line in GOOD]) is None


@pytest.mark.parametrize(
    ("lines", "line", "why"),
    [
        ([GOOD[1]], 1, "no process has started"),
        ([*GOOD[:2], seal(3, 1, SEAL_1, "journal")], 3, "the next number is 2"),
        ([*GOOD[:3], seal(3, 3, SEAL_2, SEAL_1)], 4, "the next epoch is 2"),
        ([*GOOD[:3], seal(3, 2, SEAL_2, SEAL_2)], 4, "does not name its predecessor"),
        ([*GOOD[:3], seal(3, 2, SEAL_1, SEAL_1)], 4, "used before"),
        ([*GOOD[:2], commit(1, 1, None, [1, SEAL_1])], 3, "only epochs through 0 are sealed"),
        ([*GOOD[:4], commit(2, 2, None, [2, SEAL_2])], 5, "the sink is at epoch 0"),
        ([*GOOD[:4], commit(1, 2, [1, SEAL_1], [2, SEAL_2])], 5, "another token is expected"),
        ([*GOOD[:4], commit(1, 2, None, [2, SEAL_1])], 5, "not the seal of the last epoch"),
        ([start(1), *GOOD[2:3], commit(1, 1, None, [1, SEAL_1])], 3, "the sink is closed"),
        ([*GOOD[:5], GOOD[6]], 6, "not every sink is past epoch 1"),
        ([*GOOD[:3], {"do": "kill"}, GOOD[3]], 5, "had to stop: killed"),
        ([*GOOD[:3], start(3)], 4, "has not ended"),
        ([*GOOD[:4], commit(1, 1, None, [1, SEAL_1], "unknown"), GOOD[4]], 6, "the sink is closed"),
        ([*GOOD[:5], {"do": "kill"}, start(4), opened(None)], 8, "cannot hold this token"),
        ([*GOOD[:3], seal(3, 2, SEAL_2, SEAL_1, result="failed"), GOOD[4]], 5, "an append failed"),
        ([{"do": "dance"}], 1, "no such line"),
    ],
)
def test_a_run_is_refused_at_the_line_where_it_leaves_the_model(lines: list[Any], line: int, why: str) -> None:
    found = check(lines)
    assert found is not None
    assert found.startswith(f"line {line},")
    assert why in found


def test_an_unanswered_commit_may_have_landed_or_not() -> None:
    unanswered = [*GOOD[:4], commit(1, 2, None, [2, SEAL_2], "unknown")]
    assert check([*unanswered, opened(None), commit(1, 1, None, [1, SEAL_1])]) is None
    assert check([*unanswered, opened([2, SEAL_2]), GOOD[6]]) is None
    assert check([*unanswered, opened(None), commit(1, 1, None, [1, SEAL_1], "refused")]) is None
    assert check([*unanswered, opened([1, SEAL_1])]) is not None


def test_what_was_asked_when_the_process_was_killed_may_have_happened_or_not() -> None:
    asked = {**commit(1, 2, None, [2, SEAL_2]), "result": "asked"}
    assert check([*GOOD[:4], asked, {"do": "kill"}, start(4), opened([2, SEAL_2])]) is None
    assert check([*GOOD[:4], asked, {"do": "kill"}, start(4), opened(None)]) is None
    assert check([*GOOD[:4], asked, {"do": "kill"}, start(4), opened([1, SEAL_1])]) is not None
    sealing = {**GOOD[3], "result": "asked"}
    assert check([*GOOD[:3], sealing, GOOD[3], commit(1, 2, None, [2, SEAL_2])]) is None
    for number in (3, 4):
        assert check([*GOOD[:3], sealing, {"do": "kill"}, start(number)]) is None
    assert check([*GOOD[:3], sealing, {"do": "kill"}, start(5)]) is not None


def test_an_end_is_clean_only_when_everything_is_settled() -> None:
    assert check([*GOOD[:6], {"do": "drained"}]) is not None
    assert check([*GOOD[:6], {"do": "drained", "behind": {"ledger": 1}}]) is None


def test_a_surely_failed_commit_changes_nothing() -> None:
    assert check([*GOOD[:4], commit(1, 1, None, [1, SEAL_1], "unavailable"), opened(None), *GOOD[4:]]) is None


def test_a_long_run_is_checked_in_little_time() -> None:
    lines: list[dict[str, Any]] = [start(1), opened(None)]
    before: list[Any] | None = None
    for epoch in range(1, 301):
        seal_id = f"{epoch:032x}"
        lines.append(seal(epoch + 1, epoch, seal_id, before[1] if before else "journal"))
        lines.append(commit(epoch, epoch, before, [epoch, seal_id]))
        before = [epoch, seal_id]
    assert check(lines) is None


def test_the_command_line_checks_a_trace_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.jsonl"
    assert main(["--scenario", "failed-seal", "--trace-out", str(trace)]) == 0
    assert main(["--trace", str(trace)]) == 0
    assert "a path that the model allows" in capsys.readouterr().out
    lines = trace.read_text().splitlines()
    trace.write_text("\n".join(lines[:1] + lines[2:]))
    assert main(["--trace", str(trace)]) == 1
