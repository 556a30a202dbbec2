"""Schedules of what a chaos proxy does to the sink's words with its broker: enumerated, then drawn from by seed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onefold.testing.chaos import Fault, Proxy, faults_of, text_of
from onefold.testing.harness import OVERTAKEN, ForkServer, Result, Schedule, Stage, Subject

MOST_LIVES = 12
POSITIONS = (1, 2, 3)
"""The first, second and third delivery, or opening."""

KINDS: dict[str, tuple[int, int, int]] = {
    "InitProducerId": (1, 2, 3),
    "OffsetFetch": (2, 4, 6),
    "AddPartitionsToTxn": (1, 3, 5),
    "Produce": (1, 4, 7),
    "AddOffsetsToTxn": (1, 3, 4),
    "TxnOffsetCommit": (1, 3, 4),
    "EndTxn": (1, 2, 3),
}
"""Which request of its kind belongs to each position. Openings ask for two offsets; the first delivery writes two."""

OPENING = ("InitProducerId", "OffsetFetch")
AGAIN = ("cut request EndTxn#1", "cut request EndTxn#3")
"""What makes the sink open again, once and twice."""

NEXT_PRODUCER = "until answer InitProducerId#1"
ACTS = (
    "drop request {at}",
    "drop answer {at}",
    "cut request {at}",
    "cut answer {at}",
    "close answer {at}",
    "delay answer {at} for 1.5s",
    "hold request {at} " + NEXT_PRODUCER,
    "strand request {at} " + NEXT_PRODUCER,
    "strand request {at} until {mid}",
    "strand request {at}",
)


LATER = (
    *(f"strand request EndTxn#{count} until request TxnOffsetCommit#1" for count in range(4, 9)),
    *(f"strand request TxnOffsetCommit#{count} until request EndTxn#2" for count in range(5, 10)),
)
"""Into the next transaction from the later deliveries, and from the transaction in which a new process writes the token
again."""


@dataclass(frozen=True)
class Case:
    """One schedule: faults, then maybe a kill. str() and `parse` are each other's inverse."""

    subject: str
    faults: tuple[Fault, ...]
    kill: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {text_of(self.faults)}" + (f"; {self.kill}" if self.kill else "")

    @staticmethod
    def parse(text: str) -> Case:
        subject, _, rest = text.partition(": ")
        faults, _, kill = rest.partition("; ")
        return Case(subject, faults_of(faults), kill)


def every(subject: str) -> Iterator[Case]:
    """Every kind, act and position of a subject; a half with the process killed after the delivery that follows."""
    for kind, counts in KINDS.items():
        for position, count in zip(POSITIONS, counts, strict=True):
            for number, act in enumerate(ACTS):
                mid = "request TxnOffsetCommit#1" if kind == "EndTxn" else "request EndTxn#2"
                before = AGAIN[: position - 1] if kind in OPENING else ()
                text = " and ".join([*before, act.format(at=f"{kind}#{count}", mid=mid)])
                is_killed = (number + position) % 2 == 0
                yield Case(subject, faults_of(text), f"kill after kafka.commit#{position + 1}" if is_killed else "")
    for text in LATER:
        yield Case(subject, faults_of(text))


def drawn(subjects: list[str], count: int, *, seed: int) -> list[Case]:
    """At most so many of all, by seed; a small count meets as many pairs of kind and act as it can."""
    ranked: list[tuple[int, int, Case]] = []
    pairs: dict[tuple[str, str], int] = {}
    cases = [case for subject in subjects for case in every(subject)]
    for case in sorted(cases, key=lambda case: _hash(seed, case)):
        last = case.faults[-1]
        pair = (last.at.kind, f"{last.act} {last.at.side} {last.until.kind if last.until else ''}")
        ranked.append((pairs.get(pair, 0), _hash(seed, case), case))
        pairs[pair] = pairs.get(pair, 0) + 1
    return [case for *_, case in sorted(ranked, key=lambda each: each[:2])[:count]]


def _hash(seed: int, case: Case) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {case}".encode(), digest_size=8).digest(), "big")


# ------------------------------------------------------------------------------------------------------------- playing


@dataclass
class Chaos:
    """Plays cases in folders of their own. unmet: cases whose fault never took place."""

    proxy: Proxy
    server: ForkServer
    folder: Path
    played: list[tuple[Case, Result]] = field(default_factory=list)
    unmet: list[Case] = field(default_factory=list)

    def play(self, case: Case, subject: Subject) -> Result:
        """The lives that are ordered, then untouched ones until all is drained; then what is still held arrives, and
        one more life looks at it."""
        lives = Schedule.parse(case.kill).lives if case.kill else ()
        stage = Stage(Schedule(lives), subject, self.folder / f"{len(self.played):04d}", self.server)
        self.proxy.order(case.faults)
        for life in lives:
            stage.live(life, may_fail=self._may_fail(case))
        self._drain(stage, case, len(lives))
        self.proxy.release()
        if not stage.result.complaints:
            stage.live(None, may_fail=self._may_fail(case))
        if len(self.proxy.met) < len(case.faults):
            self.unmet.append(case)
        result = stage.judge()
        self.played.append((case, result))
        if not result.complaints:
            shutil.rmtree(result.folder)
        return result

    def _drain(self, stage: Stage, case: Case, lives: int) -> None:
        for number in range(lives, MOST_LIVES):
            end = stage.live(None, may_fail=self._may_fail(case))
            if stage.result.complaints or (end["end"] == "done" and number > 0):
                return
        stage.result.complaints.append(f"not drained after {MOST_LIVES} processes")

    def _may_fail(self, case: Case) -> frozenset[str]:
        """An initialisation that comes late fences whoever came after it, as a newer instance does."""
        is_late = any(fault.act in ("hold", "strand") and fault.at.kind == "InitProducerId" for fault in case.faults)
        return OVERTAKEN if is_late else frozenset()

    @property
    def failures(self) -> list[Result]:
        """Those with complaints."""
        return [result for _, result in self.played if result.complaints]

    def text(self) -> str:
        """Counts, then each failure with what repeats it."""
        judged = [result.judgement for _, result in self.played if result.judgement is not None]
        lost, duplicated = sum(one.lost for one in judged), sum(one.duplicated for one in judged)
        events, ends = sum(one.events for one in judged), [end for _, result in self.played for end in result.ends]
        codes = sorted({end["code"] for end in ends if end["end"] == "failed"})
        table = f"{len(self.played)} schedules, {len(self.unmet)} not met, {len(ends)} processes, failed: {codes}, "
        lines = [table + f"{events} events, {lost} lost, {duplicated} duplicated"]
        lines += [f"  not met: {case}" for case in self.unmet]
        for case, result in self.played:
            if result.complaints:
                lines += [f"ONEFOLD_CHAOS_CASE='{case}'", *(f"  {complaint}" for complaint in result.complaints[:8])]
        return "\n".join(lines)
