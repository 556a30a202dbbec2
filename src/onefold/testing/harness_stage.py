"""One schedule under way: processes that live and die one after the other in one folder."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from onefold.errors import check
from onefold.testing.harness_child import STACK_FILE
from onefold.testing.harness_fork import ForkServer
from onefold.testing.harness_schedules import Life, Schedule

__all__ = ["Judgement", "OVERTAKEN", "Result", "Stage", "Subject", "exactly_once"]

End: TypeAlias = Mapping[str, Any]
"""end: done, failed (code, text, error) or killed; events, behind, stopped, given_up, seconds, recovery, steps,
most_memory_bytes (of the process so far)."""

STATE_FOLDER = "state"

LIFE_SECONDS = 150.0
"""A process that takes longer hangs: it is killed and the schedule fails. Longer than a database sink waits for a lock,
and again while it prepares."""

BESIDE_SECONDS = 3.0
"""How long a second process may wait for what a frozen one holds (a database file) before that one goes on."""

MOST_LIVES = 12
"""Untouched lives after the ordered ones; more means that the flow never ends."""

OVERTAKEN = frozenset({"journal-fenced", "token-refused", "sink-forked"})
"""How a process may end that another has overtaken."""

BLOCKED = frozenset({"sink-unavailable"})
"""How its successor may end: a zombie prepared rows after the successor had listed what is prepared, and their locks
stay until the next process lists them."""

DISK = frozenset({"disk-full", "disk-failed"})


NOT_ADOPTED = frozenset({"state-unknown"})
"""How a copy ends that finds prepared handles undecided: the original goes on, or a person adopts the copy."""

NONE: frozenset[str] = frozenset()


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


class Stage:
    """One schedule under way: its folder, and the processes that live in it one after the other.

    Args:
        schedule: for the record. subject: what is put to the test. folder: is made; all of the schedule is in it.
    """

    def __init__(self, schedule: Schedule, subject: Subject, folder: Path, server: ForkServer) -> None:
        folder.mkdir(parents=True)
        self.result = Result(schedule, folder)
        self.folder = folder
        self.state = folder / STATE_FOLDER
        self.lists_steps = False
        self.subject = subject
        self._server = server
        self._lives = 0
        self._has_all = False
        self._is_adopted = False

    def live(self, life: Life | None, *, may_fail: frozenset[str] = frozenset(), seconds: float = LIFE_SECONDS) -> End:
        """One process, with an ordered fate or (None) untouched; how it ended.

        may_fail: codes of errors that are no complaint. seconds: how long it may take.
        """
        pid = self._start(life)
        if life is None or (life.step and life.act not in ("freeze", "fork")):
            return self._await(pid, life, seconds, may_fail)
        if not life.step:
            return self._await(pid, life, life.seconds, may_fail)
        return self._beside(pid, life)

    def finish(self) -> None:
        """Untouched processes until all input has arrived and is drained.

        A copied journal that is all there is left is adopted when it asks for that, once.
        """
        for _ in range(MOST_LIVES):
            if self.result.complaints:
                return
            is_unadopted = self.state != self.folder / STATE_FOLDER and not self._is_adopted
            end = self.live(None, may_fail=NOT_ADOPTED if is_unadopted else NONE)
            self._is_adopted |= end["end"] == "failed"
            if self._has_all and end["end"] == "done":
                return
        self.result.complaints.append(f"not drained after {MOST_LIVES} processes")

    def judge(self) -> Result:
        """Compare the sinks with the input, unless there are complaints already."""
        if not self.result.complaints:
            self.result.judgement = self.subject.judge(self.folder)
            self.result.complaints += self.subject.accept(self.result.judgement)
        return self.result

    def _start(self, life: Life | None, *, is_locked: bool = True) -> int:
        self._has_all = self.subject.arrive(self.folder, self._lives) or self._has_all
        self._lives += 1
        act = life.act if life and life.step else ""
        return self._server.start(
            {
                "build": _name_of(self.subject.build),
                "arrange": [_name_of(each) for each in self.subject.arrange],
                "folder": str(self.folder),
                "state": str(self.state),
                "close": self.subject.close and self._has_all,
                "is_locked": is_locked,
                "adopts": self._is_adopted,
                "act": "freeze" if act == "fork" else act,
                "step": life.step if life else "",
                "count": life.count if life else 0,
                "moment": life.moment if life else "before",
                "lists_steps": self.lists_steps,
            }
        )

    def _await(self, pid: int, life: Life | None, seconds: float, may_fail: frozenset[str]) -> End:
        answer = self._server.wait(pid, seconds)
        if answer["state"] != "ended":
            if life is None or life.step:
                self._server.send(pid, signal.SIGUSR1)  # it prints the stacks of its threads
                answer = self._server.wait(pid, 1.0)
                self.result.complaints.append(f"a process still ran after {seconds} seconds: {self._last_words()}")
            if answer["state"] != "ended":
                self._server.send(pid, signal.SIGKILL)
                answer = self._server.wait(pid, LIFE_SECONDS)
            if life is None or life.step:
                answer = {**answer, "signal": 0}
            elif answer["signal"]:
                self.result.met.append("kill by the clock")
        return self._ended(answer, life, may_fail)

    def _ended(self, answer: Mapping[str, Any], life: Life | None, may_fail: frozenset[str]) -> End:
        end = next((told for told in answer["told"] if "end" in told), {"end": "killed"})
        self.result.met += [told["met"] for told in answer["told"] if "met" in told]
        self.result.ends.append(end)
        if life is not None and life.act in ("full", "fail"):
            may_fail |= DISK
        if end["end"] == "killed" and not (life and life.act == "kill" and answer["signal"] == signal.SIGKILL):
            self.result.complaints.append(f"a process died by signal {answer['signal']}: {self._last_words()}")
        elif end["end"] == "failed" and end["code"] not in may_fail:
            self.result.complaints.append(f"a process failed: {end['text']}")
        elif end["end"] == "done" and (end["stopped"] or (end["behind"] and life is None)):
            self.result.complaints.append(f"a process left sinks behind: {end['behind']} {end['stopped']}")
        return end

    def _last_words(self) -> str:
        file = self.folder / STACK_FILE
        return file.read_text("utf-8", "replace")[-9000:] if file.exists() else ""

    def _beside(self, zombie: int, life: Life) -> End:
        """A second process takes over from a frozen one, which then wakes. How the frozen one ended."""
        answer = self._server.wait(zombie, LIFE_SECONDS)
        if answer["state"] == "ended":  # it never came to that step
            return self._ended(answer, life, NONE)
        place = self.state
        if life.act == "fork":
            self.state = self.folder / f"copy-{self._lives}"
            shutil.copytree(place, self.state)
        second = self._start(None, is_locked=life.act == "fork")
        early = self._server.wait(second, BESIDE_SECONDS)
        is_locked_out = life.act == "fork" and early["state"] != "ended"
        self._server.send(zombie, signal.SIGKILL if is_locked_out else signal.SIGCONT)
        end = self._await(zombie, Life("kill", life.step) if is_locked_out else life, LIFE_SECONDS, OVERTAKEN)
        if early["state"] == "ended":
            beside = self._ended(early, None, NOT_ADOPTED if life.act == "fork" else NONE)
        else:
            beside = self._await(second, None, LIFE_SECONDS, OVERTAKEN | BLOCKED)  # both were awake: either may win
        if beside["end"] == "failed" and self.state != place:
            shutil.rmtree(self.state)
            self.state = place
        return end


def _name_of(function: Callable[..., Any]) -> str:
    check("." not in function.__qualname__, "a child finds functions at the top level only", found=function)
    return f"{function.__module__}:{function.__qualname__}"
