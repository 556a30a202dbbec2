"""A safeguard taken out is missed: under the same schedules all is right with it, and not without it.

So a green run of the other tests means something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from onefold.testing.harness import Results, Subject
from tests.crash import controls, flows, inputs, limits
from tests.crash.subjects import AT_LEAST_ONCE, AT_MOST_ONCE, RUNNING, TOGETHER
from tests.stage import Stage

pytestmark = pytest.mark.crash

PLAIN = Subject(build=flows.plain, arrive=inputs.arrive, judge=flows.judge_plain)
PLAIN_SPOOLED = replace(PLAIN, arrange=(limits.nothing_inline,))
LAKE = Subject(build=flows.lake, arrive=inputs.arrive, judge=flows.judge_lake)

COMMITS = [f"kill after sqlite.commit#{count}" for count in (1, 3)]
SEALS = [f"kill {moment} journal.seal#{count}" for moment in ("before", "after") for count in (2, 3)]
FORKS = [f"fork after journal.seal#{count}" for count in (1, 2, 3)]
ZOMBIES = [f"freeze after journal.seal#{count}" for count in (1, 2, 3)]
SYNCS = [f"fail before journal.seal#{count}" for count in (2, 3)]
SNAPSHOTS = [f"kill after snapshot.publish#{count}" for count in (1, 2)]

CONTROLS: dict[Callable[[], None], tuple[Subject, list[str], str]] = {
    controls.token_not_compared: (PLAIN, FORKS, "duplicated"),
    controls.token_not_kept: (PLAIN, COMMITS, "duplicated"),
    controls.rows_before_the_seal: (PLAIN, SEALS, "duplicated"),
    controls.dedup_state_not_sealed: (PLAIN, SEALS, "duplicated"),
    controls.watermarks_not_restored: (PLAIN, SEALS, "stopped"),
    controls.positions_kept_back: (PLAIN, SEALS, "duplicated"),
    controls.positions_moved_ahead: (PLAIN, SEALS, "lost"),
    controls.freed_before_delivered: (PLAIN_SPOOLED, SEALS, "stopped"),
    controls.swept_blindly: (PLAIN_SPOOLED, SEALS, "stopped"),
    controls.renamed_before_logged: (LAKE, [f"kill before files.commit#{count}" for count in (1, 2)], "duplicated"),
    controls.attempts_forgotten: (AT_MOST_ONCE, [*COMMITS, "kill after files.publish#2"], "duplicated"),
    controls.sealed_taken_for_delivered: (AT_LEAST_ONCE, SEALS, "lost"),
    controls.journal_not_fenced: (PLAIN, ZOMBIES, "stopped"),
    controls.failed_sync_taken_for_done: (PLAIN, SYNCS, "stopped"),
    controls.sealed_handles_aborted: (TOGETHER, SEALS, "stopped"),
    controls.snapshot_named_too_late: (RUNNING, SNAPSHOTS, "stopped"),
}


def seen(subject: Subject, results: Results, what: str) -> bool:
    """Whether some schedule showed it. "stopped": a process refused to go on."""
    if what == "stopped":
        return any(end["end"] == "failed" for result in results.failures for end in result.ends)
    return any(getattr(subject.judge(result.folder), what) for result in results.failures)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.__name__)
def test_a_safeguard_that_is_taken_out_is_missed(control: Callable[[], None], stage: Stage) -> None:
    subject, texts, what = CONTROLS[control]
    stage.miss_a_safeguard(subject, control, texts, is_seen=lambda results: seen(subject, results, what))
