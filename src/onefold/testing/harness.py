"""The crash harness: a flow run by real processes that are really killed, and a judge that sees only input and sinks.

    from onefold.testing.harness import ForkServer, Subject, at_every_step, run_schedules

    subject = Subject(build=my_flow, arrive=my_input, judge=my_oracle)
    with ForkServer() as server:
        results = run_schedules(subject, at_every_step(steps_of(subject, folder, server)), folder, server)
    assert not results.failures, results.text()

A schedule is text as well: `kill before journal.seal#3 then kill after *#2` kills the first process before its third
seal, and the next one (inside its recovery) after its second durable step of any name; then processes run untouched
until all input has arrived and is drained.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from onefold.errors import check
from onefold.testing.harness_child import STACK_FILE
from onefold.testing.harness_fork import ForkServer
from onefold.testing.harness_schedules import (
    Act,
    Life,
    Schedule,
    at_every_step,
    at_random_moments,
    at_two_steps,
    chosen,
)

__all__ = [
    "Act", "ForkServer", "Judgement", "Life", "Result", "Results", "Schedule", "Subject", "at_every_step",
    "at_random_moments", "at_two_steps", "chosen", "exactly_once", "play", "run_schedules", "steps_of",
]  # fmt: skip

LIFE_SECONDS = 120.0
"""A process that takes longer hangs: it is killed and the schedule fails."""

BESIDE_SECONDS = 3.0
"""How long a second process may wait for what a frozen one holds (a database file) before that one goes on."""

MOST_LIVES = 12
"""Untouched lives after the ordered ones; more means that the flow never ends."""

FENCED = frozenset({"journal-fenced", "token-refused", "sink-forked"})
"""How a process may end that another has overtaken."""

DISK = frozenset({"disk-full", "disk-failed"})


class Judgement(Protocol):
    """What a judge found. It must import nothing of onefold."""

    @property
    def events(self) -> int:
        """How many events the input holds."""
        ...

    @property
    def lost(self) -> int:
        """Rows that should be in a sink and are not."""
        ...

    @property
    def duplicated(self) -> int:
        """Rows too many."""
        ...

    @property
    def wrong(self) -> Sequence[str]:
        """Everything that is not as it should be, in sentences."""
        ...


def exactly_once(judgement: Judgement) -> Sequence[str]:
    """Nothing lost, nothing duplicated, nothing wrong; else complaints."""
    if not (judgement.lost or judgement.duplicated or judgement.wrong):
        return ()
    return (f"{judgement.lost} lost, {judgement.duplicated} duplicated", *judgement.wrong)


@dataclass(frozen=True)
class Subject:
    """What is put to the test. All functions stand at the top level of an importable module.

    Args:
        build: makes the flow, given the schedule's folder. Called in a forked child.
        arrive: puts more input into the folder, given the number of the life that is about to begin, from 0; returns
            whether all of it is there now. Called in this process.
        judge: compares sinks with input, given the folder, when everything is drained. Called in this process.
        close: close open windows in lives that begin when all input is there.
        arrange: called in each child before `build`: to make limits small, or, for a negative control, to take a
            safeguard out.
        accept: judges the judgement; returns complaints. Default: nothing lost, nothing duplicated, nothing wrong.
    """

    build: Callable[[Path], Any]
    arrive: Callable[[Path, int], bool]
    judge: Callable[[Path], Judgement]
    close: bool = False
    arrange: tuple[Callable[[], None], ...] = ()
    accept: Callable[[Judgement], Sequence[str]] = exactly_once


@dataclass
class Result:
    """How one schedule went. met: acts that took place; ends: how each process ended."""

    schedule: Schedule
    folder: Path
    met: list[str] = field(default_factory=list)
    ends: list[Mapping[str, Any]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    judgement: Judgement | None = None

    @property
    def recovery_seconds(self) -> float:
        """The longest time from a restart to its first new epoch, or to its end."""
        return max((float(end.get("recovery", 0.0)) for end in self.ends[1:]), default=0.0)


@dataclass
class Results:
    """All schedules of one run."""

    results: list[Result] = field(default_factory=list)

    @property
    def failures(self) -> list[Result]:
        """Those with complaints."""
        return [result for result in self.results if result.complaints]

    def columns(self) -> dict[str, float]:
        """The table's one row: schedules, steps killed at, restarts, events, lost, duplicated, longest recovery."""
        judged = [result.judgement for result in self.results if result.judgement is not None]
        return {
            "schedules": len(self.results),
            "steps killed at": len({met for result in self.results for met in result.met}),
            "restarts": sum(max(0, len(result.ends) - 1) for result in self.results),
            "events": sum(one.events for one in judged),
            "lost": sum(one.lost for one in judged),
            "duplicated": sum(one.duplicated for one in judged),
            "longest recovery, s": round(max((one.recovery_seconds for one in self.results), default=0.0), 2),
        }

    def text(self) -> str:
        """The table, then every failure with the schedule that repeats it."""
        columns = self.columns()
        lines = [" | ".join(columns), " | ".join(f"{value:g}" for value in columns.values())]
        for result in self.failures:
            lines += ["", f"ONEFOLD_SCHEDULE='{result.schedule}'", f"  folder: {result.folder}"]
            lines += [f"  {complaint}" for complaint in result.complaints[:8]]
            lines += [f"  process {number}: {_short(end)}" for number, end in enumerate(result.ends)]
        return "\n".join(lines)


def _short(end: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in end.items() if name not in ("steps", "recovery"))


def steps_of(subject: Subject, folder: Path, server: ForkServer) -> list[str]:
    """Every durable step of an untouched run, as "before journal.seal#3", of its first process."""
    result = play(Schedule(()), subject, folder, server, lists_steps=True)
    check(not result.complaints, "an untouched run is right", found="\n".join(result.complaints))
    first = result.ends[0]["steps"]
    counts: dict[str, int] = {}
    found = []
    for line in first:
        counts[line] = counts.get(line, 0) + 1
        found.append(f"{line}#{counts[line]}")
    return found


# ------------------------------------------------------------------------------------------------------------- playing


def run_schedules(
    subject: Subject, schedules: Iterable[Schedule], folder: Path, server: ForkServer, *, keep: bool = False
) -> Results:
    """Play each schedule in a folder of its own below `folder`; the folders of good ones are removed unless `keep`.

    With ONEFOLD_SCHEDULE in the environment that schedule alone is played.
    """
    only = os.environ.get("ONEFOLD_SCHEDULE")
    results = Results()
    for number, schedule in enumerate([Schedule.parse(only)] if only else schedules):
        place = folder / f"{number:04d}"
        result = play(schedule, subject, place, server)
        results.results.append(result)
        if not result.complaints and not keep:
            shutil.rmtree(place)
    return results


def play(
    schedule: Schedule, subject: Subject, folder: Path, server: ForkServer, *, lists_steps: bool = False
) -> Result:
    """Play one schedule: the ordered lives, then untouched ones until everything is drained; then judge."""
    folder.mkdir(parents=True)
    stage = _Stage(schedule, subject, folder, server, lists_steps)
    for life in schedule.lives:
        stage.live(life)
    stage.finish()
    result = stage.result
    if not result.complaints:
        result.judgement = subject.judge(folder)
        result.complaints += subject.accept(result.judgement)
    return result


class _Stage:
    """One schedule under way."""

    def __init__(
        self, schedule: Schedule, subject: Subject, folder: Path, server: ForkServer, lists_steps: bool
    ) -> None:
        self.result = Result(schedule, folder)
        self._subject = subject
        self._folder = folder
        self._state = folder / "state"
        self._server = server
        self._lists_steps = lists_steps
        self._lives = 0
        self._has_all = False

    def live(self, life: Life) -> None:
        """One process with an ordered fate."""
        pid = self._start(life)
        if not life.step:
            self._end_of(pid, life, life.seconds)
        elif life.act in ("freeze", "fork"):
            self._beside(pid, life)
        else:
            self._end_of(pid, life, LIFE_SECONDS)

    def finish(self) -> None:
        """Untouched processes until all input has arrived and is drained."""
        for _ in range(MOST_LIVES):
            if self.result.complaints:
                return
            pid = self._start(None)
            had_all = self._has_all
            end = self._end_of(pid, None, LIFE_SECONDS)
            if had_all and end.get("end") == "done":
                return
        self.result.complaints.append(f"not drained after {MOST_LIVES} processes")

    def _start(self, life: Life | None, *, is_locked: bool = True, state: Path | None = None) -> int:
        self._has_all = self._has_all or self._subject.arrive(self._folder, self._lives)
        self._lives += 1
        acts = {"fork": "freeze"}
        return self._server.start(
            {
                "build": _name_of(self._subject.build),
                "arrange": [_name_of(each) for each in self._subject.arrange],
                "folder": str(self._folder),
                "state": str(state or self._state),
                "close": self._subject.close and self._has_all,
                "is_locked": is_locked,
                "act": acts.get(life.act, life.act) if life and life.step else "",
                "step": life.step if life else "",
                "count": life.count if life else 0,
                "moment": life.moment if life else "before",
                "lists_steps": self._lists_steps,
            }
        )

    def _end_of(self, pid: int, life: Life | None, seconds: float, *, also: frozenset[str] = frozenset()) -> Any:
        """Await the end of a process and judge how it ended."""
        answer = self._server.wait(pid, seconds)
        is_timed = life is not None and not life.step
        if answer["state"] != "ended":
            self._server.send(pid, signal.SIGKILL)
            answer = self._server.wait(pid, LIFE_SECONDS)
            if not is_timed:
                self.result.complaints.append(f"a process still ran after {seconds} seconds")
            elif answer["signal"]:
                self.result.met.append("kill by the clock")
        end = next((told for told in answer["told"] if "end" in told), {"end": "killed"})
        self.result.met += [told["met"] for told in answer["told"] if "met" in told]
        self.result.ends.append(end)
        self._judge_end(end, life, answer["signal"], also)
        return end

    def _judge_end(self, end: Mapping[str, Any], life: Life | None, number: int, also: frozenset[str]) -> None:
        may_fail = also | (DISK if life is not None and life.act in ("full", "fail") else frozenset())
        was_killed = number == signal.SIGKILL and life is not None and life.act == "kill"
        if end["end"] == "killed" and not was_killed:
            self.result.complaints.append(f"a process died by signal {number}: {self._last_words()}")
        elif end["end"] == "failed" and end["code"] not in may_fail:
            self.result.complaints.append(f"a process failed: {end['text']}")
        elif end["end"] == "done" and (end["stopped"] or (end["behind"] and life is None)):
            self.result.complaints.append(f"a process left sinks behind: {end['behind']} {end['stopped']}")

    def _last_words(self) -> str:
        file = self._folder / STACK_FILE
        return file.read_text("utf-8", "replace")[-600:] if file.exists() else ""

    def _beside(self, zombie: int, life: Life) -> None:
        """A second process takes over from a frozen one, which then wakes."""
        answer = self._server.wait(zombie, LIFE_SECONDS)
        if answer["state"] == "ended":  # it never came to that step
            self._server_forget(answer, life)
            return
        if life.act == "fork":
            copy = self._folder / f"copy-{self._lives}"
            shutil.copytree(self._state, copy)
            self._state = copy
        second = self._start(None, is_locked=life.act == "fork")
        early = self._server.wait(second, BESIDE_SECONDS)
        self._server.send(zombie, signal.SIGCONT)
        self._end_of(zombie, life, LIFE_SECONDS, also=FENCED)
        if early["state"] == "ended":
            end = next((told for told in early["told"] if "end" in told), {"end": "killed"})
            self.result.ends.append(end)
            self._judge_end(end, None, early["signal"], frozenset())
        else:
            self._end_of(second, None, LIFE_SECONDS, also=FENCED)

    def _server_forget(self, answer: Mapping[str, Any], life: Life) -> None:
        end = next((told for told in answer["told"] if "end" in told), {"end": "killed"})
        self.result.ends.append(end)
        self._judge_end(end, life, answer["signal"], frozenset())


def _name_of(function: Callable[..., Any]) -> str:
    check("." not in function.__qualname__, "a child finds functions at the top level only", found=function)
    return f"{function.__module__}:{function.__qualname__}"
