"""What a cluster says about topics: their ids, partitions and offsets. Through the client's own admin interface."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onefold.connectors.kafka.connection import Connection
from onefold.errors import OnefoldError, SinkUnavailable, SourceUnavailable

__all__ = ["Cluster", "Ends", "TopicPartition", "Topic"]

ANSWER_SECONDS = 10.0
_REFUSALS = (
    "_AUTHENTICATION", "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "SASL_AUTHENTICATION_FAILED"
)  # fmt: skip


@dataclass(frozen=True)
class Topic:
    """A topic as it is now. id: changes when a topic is deleted and made anew; "" where brokers do not tell."""

    name: str
    id: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, order=True)
class TopicPartition:
    """One partition; as text topic:number."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.number}"

    @staticmethod
    def of(text: str) -> TopicPartition:
        """The inverse of str. Raises ValueError."""
        topic, _, number = text.rpartition(":")
        return TopicPartition(topic, int(number))


class Ends:
    """A question that is under way: where partitions end."""

    def __init__(self, cluster: Cluster, answers: Mapping[TopicPartition, Any]) -> None:
        self._cluster = cluster
        self._answers = answers

    def is_answered(self) -> bool:
        """Whether `offsets` waits no more."""
        return all(answer.done() for answer in self._answers.values())

    def offsets(self) -> dict[TopicPartition, int]:
        """End by partition. Raises SinkUnavailable or SourceUnavailable."""
        return {one: self._cluster.offset_of(answer)[0] for one, answer in self._answers.items()}


class Cluster:
    """Answers questions. error: what to raise when nobody answers, SourceUnavailable or SinkUnavailable."""

    def __init__(self, connection: Connection, error: type[SourceUnavailable | SinkUnavailable]) -> None:
        from confluent_kafka.admin import AdminClient

        self._connection = connection
        self._error = error
        self._admin = AdminClient({**connection.settings(), "log_level": "0"})

    def topics(self, names: Sequence[str]) -> dict[str, Topic]:
        """Those of these names that exist; a name that begins with ^ is a pattern over all names."""
        from confluent_kafka import TopicCollection

        wanted = self._matching(names)
        if not wanted:
            return {}
        found: dict[str, Topic] = {}
        answers = self._admin.describe_topics(TopicCollection(wanted), request_timeout=ANSWER_SECONDS)
        for name, answer in answers.items():
            about = self._answer(answer, missing="UNKNOWN_TOPIC_OR_PART")
            if about is not None:
                numbers = tuple(sorted(partition.id for partition in about.partitions))
                found[name] = Topic(name, str(about.topic_id or ""), numbers)
        return found

    def offsets(self, partitions: Iterable[TopicPartition], at: str | int) -> dict[TopicPartition, tuple[int, int]]:
        """(offset, leader epoch) by partition. at: "earliest", "latest", or milliseconds since 1970: the first record
        with that time or later, else the end. Epoch -1: not known."""
        wanted = list(partitions)
        if not wanted:
            return {}
        found = {one: self.offset_of(answer) for one, answer in self._ask_offsets(wanted, at).items()}
        behind = [one for one in wanted if found[one][0] < 0]  # no record is as young as that
        return found | (self.offsets(behind, "latest") if behind else {})

    def ask_ends(self, partitions: Iterable[TopicPartition]) -> Ends:
        """Where partitions end now, without waiting for the answer."""
        return Ends(self, self._ask_offsets(list(partitions), "latest"))

    def _ask_offsets(self, wanted: Sequence[TopicPartition], at: str | int) -> dict[TopicPartition, Any]:
        from confluent_kafka import IsolationLevel
        from confluent_kafka import TopicPartition as Named
        from confluent_kafka.admin import OffsetSpec

        specs = {"earliest": OffsetSpec.earliest, "latest": OffsetSpec.latest}
        spec = specs[at]() if isinstance(at, str) else OffsetSpec.for_timestamp(at)
        asked = {Named(one.topic, one.number): spec for one in wanted}
        answers = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_SECONDS
        )
        return {TopicPartition(named.topic, named.partition): answer for named, answer in answers.items()}

    def offset_of(self, answer: Any) -> tuple[int, int]:
        """(offset, leader epoch) of one answer. Raises SinkUnavailable or SourceUnavailable."""
        about = self._answer(answer)
        return about.offset, about.leader_epoch if about.leader_epoch is not None else -1

    def _matching(self, names: Sequence[str]) -> list[str]:
        patterns = [re.compile(name) for name in names if name.startswith("^")]
        plain = [name for name in names if not name.startswith("^")]
        if not patterns:
            return plain
        try:
            listed = self._admin.list_topics(timeout=ANSWER_SECONDS).topics
        except Exception as error:
            raise self.unavailable(error) from error
        return sorted({*plain, *(name for name in listed if any(pattern.search(name) for pattern in patterns))})

    def _answer(self, answer: Any, *, missing: str = "") -> Any:
        """None for an answer that says `missing`."""
        try:
            return answer.result(ANSWER_SECONDS + 5)
        except Exception as error:
            if missing and name_of(error) == missing:
                return None
            raise self.unavailable(error) from error

    def unavailable(self, error: Exception) -> OnefoldError:
        """What to raise. Never shows a setting's value."""
        name = name_of(error)
        found = f"{name}: {_text_of(error)}" if name else str(error)
        label = self._connection.label
        if name in _REFUSALS:
            advice = "Check user name, password and the cluster's permissions."
            return self._error(f"{label} refuses us.", found=found, next_step=advice)
        return self._error(f"{label} does not answer.", found=found)


def name_of(error: BaseException) -> str:
    """The client's name of an error, such as _TRANSPORT; "" when it is another."""
    about: Any = error.args[0] if error.args else None
    return str(about.name()) if hasattr(about, "name") else ""


def _text_of(error: BaseException) -> str:
    about: Any = error.args[0] if error.args else None
    return str(about.str()) if hasattr(about, "str") else str(error)
