"""What every sink must keep when it is killed, or raced, at any durable step."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any, Self

from onefold import disk
from onefold.errors import OutcomeUnknown, SinkUnavailable, TokenRefused, check
from onefold.testing.contract_case import SinkBench, equal, expect, move, numbered, token
from onefold.types import Receipt

__all__ = ["CRASH_CONTRACTS"]

_WAIT_SECONDS = 60.0
_MOST_MOMENTS = 200


def rows_and_token_are_one_under_a_kill(bench: SinkBench) -> None:
    """Killed before and after each durable step of a commit: afterwards both are there, or neither."""
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    rehearsal = bench.under(sink="rehearsal", table="rehearsal")
    rehearsal.instance()  # folders are made only once
    moments = _count(lambda: _commit_once(rehearsal, 0, 1))
    expect(moments > 0, "a commit marks its durable steps (onefold.disk.durable_step)")
    ids = [1]
    for moment in range(moments):
        epoch = moment + 2
        receipt = bench.prepare(bench.instance(epoch)[0], epoch, numbered(epoch))
        _killed_at(bench, moment, lambda e=epoch, r=receipt: bench.instance(e)[0].commit([r], move(e - 1, e)))  # type: ignore[misc]
        found, rows = bench.look()[1], bench.ids()
        if found == token(epoch):
            equal(rows, [*ids, epoch], f"moment {moment}: the token is there, so are the rows")
        else:
            equal((rows, found), (ids, token(epoch - 1)), f"moment {moment}: nothing landed, nothing shows")
            bench.instance(epoch)[0].commit([receipt], move(epoch - 1, epoch))
        ids.append(epoch)
        equal(bench.ids(), ids, f"moment {moment}: redelivery completes it, once")


def what_is_prepared_shows_nothing(bench: SinkBench) -> None:
    """Killed at each durable step of prepare: nothing is visible, and the epoch can be prepared again."""
    large = [{"id": number, "name": f"{number:064d}"} for number in range(9000)]
    bench.prepare(bench.instance()[0], 1, large)  # folders are made only once
    moments = _count(lambda: bench.prepare(bench.instance()[0], 1, large))
    expect(moments > 0, "prepare marks its durable steps")
    for moment in range(moments):
        _killed_at(bench, moment, lambda: bench.prepare(bench.instance()[0], 1, large))
        equal((bench.ids(), bench.look()[1]), ([], None), f"moment {moment}: prepared rows are invisible")
    sink, _ = bench.instance(2)
    sink.commit([bench.prepare(sink, 1, large)], move(0, 1))
    equal(len(bench.ids()), len(large), "the epoch lands once after all")


def a_rival_at_any_moment_leaves_one_winner(bench: SinkBench) -> None:
    """While one instance stands at a durable step of its commit, another opens and commits the same epoch."""
    rehearsal = bench.under(sink="rehearsal", table="rehearsal")
    rehearsed, _ = rehearsal.instance()
    rehearsed_receipt = rehearsal.prepare(rehearsed, 1, numbered(1))
    moments = _count(lambda: rehearsed.commit([rehearsed_receipt], move(0, 1)))
    history: list[int] = []
    for moment in range(moments):
        epoch = moment + 1
        mine, theirs = epoch * 10, epoch * 10 + 1
        expected = bench.look()[1]
        receipt = bench.prepare(bench.instance(epoch)[0], epoch, numbered(theirs))
        rival = _rival(bench, lambda e=epoch, r=receipt, x=expected: _attempt(bench, e, r, x, "r"))  # type: ignore[misc]
        receipt = bench.prepare(bench.instance(epoch)[0], epoch, numbered(mine))
        sink, _ = bench.instance(epoch)
        with _Interrupted(moment, rival.go) as interrupted:
            landed = _outcome(lambda: sink.commit([receipt], type(move(0, 1))(expected, token(epoch, "m"))))  # noqa: B023
        expect(interrupted.is_done, "the commit takes the same steps again")
        answer = rival.answer()
        rows, found = bench.ids(), bench.look()[1]
        won = [number for number in (mine, theirs) if number in rows]
        expect(len(won) == 1, f"moment {moment}: exactly one lands", found=(rows, landed, answer))
        expect(found == token(epoch, "m" if won == [mine] else "r"), f"moment {moment}: the token is the winner's")
        expect(landed in ("landed", "unknown") if won == [mine] else landed != "landed", "a loser never claims to win")
        expect(answer in ("landed", "unknown") if won == [theirs] else answer != "landed", "nor does the rival")
        history += won
        equal(rows, sorted(history), f"moment {moment}: nothing else changed")


CRASH_CONTRACTS = (
    rows_and_token_are_one_under_a_kill,
    what_is_prepared_shows_nothing,
    a_rival_at_any_moment_leaves_one_winner,
)


# -------------------------------------------------------------------------------------------------------------- moments


class _Interrupted:
    """Calls an action once, at the n-th moment (before or after a durable step) of the block."""

    def __init__(self, moment: int, action: Callable[[], object]) -> None:
        self._left = moment
        self._action = action
        self.is_done = False

    def __enter__(self) -> Self:
        check(disk.observer is None, "one observer at a time")
        disk.observer = self._at
        return self

    def __exit__(self, *_: object) -> None:
        disk.observer = None

    def _at(self, step: str, moment: str) -> None:
        self._left -= 1
        if self._left == -1:
            disk.observer = None
            self.is_done = True
            self._action()


def _count(action: Callable[[], object]) -> int:
    """How many moments an action has."""
    with _Interrupted(_MOST_MOMENTS, lambda: None) as counted:
        action()
    return _MOST_MOMENTS - counted._left


def _commit_once(bench: SinkBench, start: int, end: int) -> None:
    sink, _ = bench.instance()
    sink.commit([bench.prepare(sink, end, numbered(end))], move(start, end))


def _killed_at(bench: SinkBench, moment: int, action: Callable[[], object]) -> None:
    """Run it in a child that kills itself at that moment; a child that gets through must have done it."""
    child = os.fork()
    if child == 0:
        try:
            bench.case.after_fork()
            with _Interrupted(moment, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                action()
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    expect(
        os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "the child came to the moment", found=status
    )


# --------------------------------------------------------------------------------------------------------------- rivals


def _attempt(bench: SinkBench, epoch: int, receipt: Receipt, expected: Any, history: str) -> str:
    def act() -> None:
        sink, found = bench.instance(epoch + 1)
        if found != expected:
            raise TokenRefused("The rival found another token.")
        sink.commit([receipt], type(move(0, 1))(expected, token(epoch, history)))

    return _outcome(act)


def _outcome(action: Callable[[], object]) -> str:
    try:
        action()
    except TokenRefused:
        return "refused"
    except SinkUnavailable:
        return "unavailable"
    except OutcomeUnknown:
        return "unknown"
    return "landed"


class _Here:
    """A rival in this process, for targets that live in it."""

    def __init__(self, action: Callable[[], str]) -> None:
        self._action = action
        self._answer = "not asked"

    def go(self) -> None:
        self._answer = self._action()

    def answer(self) -> str:
        return self._answer


class _Beside:
    """A rival in a child process. It is forked before anything is open here, and waits to be told."""

    def __init__(self, action: Callable[[], str], after_fork: Callable[[], None]) -> None:
        self._told, self._tell = os.pipe()
        self._heard, self._hear = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._tell)  # so that the end of the parent is the end of the wait
            try:
                after_fork()
                if os.read(self._told, 1):
                    os.write(self._hear, json.dumps(action()).encode())
            finally:
                os._exit(0)
        self._answer = ""

    def go(self) -> None:
        os.write(self._tell, b"!")
        ready, _, _ = select.select([self._heard], [], [], _WAIT_SECONDS)
        expect(bool(ready), "a rival answers in time")
        os.waitpid(self._child, 0)
        self._answer = json.loads(os.read(self._heard, 1 << 16))
        for descriptor in (self._told, self._tell, self._heard, self._hear):
            os.close(descriptor)

    def answer(self) -> str:
        return self._answer


def _rival(bench: SinkBench, action: Callable[[], str]) -> _Here | _Beside:
    return _Here(action) if bench.case.is_local else _Beside(action, bench.case.after_fork)
