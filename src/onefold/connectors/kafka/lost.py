"""The errors of a position that a topic cannot be read on from; each knows where one goes on who accepts the loss."""

from __future__ import annotations

import re
from typing import Any

from onefold.connectors.kafka.cluster import TopicPartition
from onefold.connectors.kafka.place import Place
from onefold.errors import InputLost
from onefold.types import Skip

__all__ = ["outside_log", "partition_gone", "topic_remade"]

_PARTED = re.compile(r"broker end offset is (\d+)")
"""What librdkafka says of a truncated log: where the broker's history parts from ours."""


def partition_gone(label: str, one: TopicPartition, place: Place, remember: Any) -> InputLost:
    """It was read, and is no more. remember: what makes the source forget it."""
    return InputLost(
        f"{label}: a partition that was being read is gone.",
        partition=str(one),
        found="no such partition",
        expected=f"offset {place.at} of it",
        next_step="Restore the topic",
        skip=Skip(None, remember=remember),
    )


def topic_remade(label: str, one: TopicPartition, place: Place, begin: Place) -> InputLost:
    """Another topic has its name. begin: where that one begins."""
    return InputLost(
        f"{label}: the topic was deleted and made anew.",
        partition=str(one),
        found=f"topic id {begin.topic}",
        expected=f"topic id {place.topic}, from offset {place.at} on",
        next_step="Restore the topic",
        skip=Skip(begin.position()),
    )


def outside_log(
    label: str, one: TopicPartition, place: Place, *, log: tuple[int, int] | None, said: str = ""
) -> InputLost:
    """The log holds other offsets, or another history. log: its first offset, and the one after its last; None:
    unknown. said: the client's text."""
    first, last = log or (None, None)
    skip: Skip | None
    if first is not None and place.at < first:
        what = f"offsets {place.at} to {first - 1} are gone before they were processed"
        skip = Skip(Place(place.topic, first).position(), first - place.at)
    elif last is not None and place.at > last:
        what = f"offsets {last} to {place.at - 1} were processed, and are gone from the log"
        skip = Skip(Place(place.topic, last).position(), 0)
    else:
        what = f"what was before offset {place.at} is not what was processed"
        parted = _PARTED.search(said)
        skip = None if parted is None else Skip(Place(place.topic, int(parted[1])).position(), 0)
    held = "unknown" if first is None else f"offsets {first} to {last}, the last excluded"
    return InputLost(
        f"{label}: {what}.",
        partition=str(one),
        found=f"{held}; {said}" if said else held,
        expected=f"offset {place.at}, leader epoch {place.epoch}",
        next_step="Restore the topic",
        skip=skip,
    )
