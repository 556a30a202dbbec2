"""Where partitions end: asked without waiting, and every answer given once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from onefold.connectors.kafka.cluster import TopicPartition
from onefold.connectors.kafka.ends import STALE_SECONDS, PartitionEnds
from onefold.engines.embedded.inline import ManualClock
from onefold.errors import SourceUnavailable

ONE, TWO = TopicPartition("t", 0), TopicPartition("t", 1)


class Answer:
    """Not given yet, as long as offset is None."""

    offset: int | None = None
    fails = False

    def done(self) -> bool:
        return self.offset is not None or self.fails


class Slow:
    """A cluster that answers when told to."""

    def __init__(self) -> None:
        self.asked: list[dict[TopicPartition, Answer]] = []

    def ask_ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Answer]:
        self.asked.append({one: Answer() for one in partitions})
        return self.asked[-1]

    def offset_of(self, topic: str, answer: Answer) -> tuple[int, int]:
        if answer.fails or answer.offset is None:
            raise SourceUnavailable(topic)
        return answer.offset, 0

    def answer(self, *offsets: int) -> None:
        for answer, offset in zip(self.asked[-1].values(), offsets, strict=True):
            answer.offset = offset


def made() -> tuple[Any, Slow, ManualClock]:
    cluster, clock = Slow(), ManualClock()
    return PartitionEnds(cluster, clock), cluster, clock  # type: ignore[arg-type]


def test_an_answer_that_comes_late_counts_however_late_and_once() -> None:
    ends, cluster, clock = made()
    assert ends.of(ONE, [ONE]) == math.inf
    clock.advance(5.0)
    assert ends.of(ONE, [ONE]) == math.inf
    cluster.answer(7)
    assert ends.of(ONE, [ONE]) == 7
    assert len(cluster.asked) == 1, "what is asked next is asked after this was said"
    assert ends.of(ONE, [ONE]) == math.inf
    cluster.answer(9)
    assert ends.of(ONE, [ONE]) == 9


def test_one_question_serves_all_partitions_for_a_moment() -> None:
    ends, cluster, clock = made()
    ends.of(ONE, [ONE, TWO])
    cluster.answer(1, 2)
    assert (ends.of(ONE, [ONE, TWO]), ends.of(TWO, [ONE, TWO])) == (1, 2)
    clock.advance(1.0)
    ends.of(ONE, [ONE, TWO])
    cluster.answer(3, 4)
    assert ends.of(ONE, [ONE, TWO]) == 3
    clock.advance(STALE_SECONDS + 0.1)
    assert ends.of(TWO, [ONE, TWO]) == math.inf, "too old"
    cluster.answer(5, 6)
    assert ends.of(TWO, [ONE, TWO]) == 6


def test_when_nobody_answers_nothing_ends_and_it_is_asked_again() -> None:
    ends, cluster, clock = made()
    ends.of(ONE, [ONE])
    cluster.asked[-1][ONE].fails = True
    clock.advance(1.0)
    assert ends.of(ONE, [ONE]) == math.inf
    cluster.answer(3)
    assert ends.of(ONE, [ONE]) == 3
